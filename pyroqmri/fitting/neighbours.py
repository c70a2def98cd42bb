"""What the rest of an image states about each of its voxels, for fits whose prior is a field."""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.guides import Guide, Structured
from pyroqmri.guides.placing import place
from pyroqmri.measurements.preparation import Batch


class Nearby(NamedTuple):
    """What the rest of an image states about the latents of each of N voxels; NaN where a voxel cannot be fitted.

    Attributes
    ----------
    loc
        Mean ``(N, L)``.
    tril
        Cholesky factor of the covariance ``(N, L, L)``.
    """

    loc: Tensor
    tril: Tensor

    def at(self, where: slice | Tensor) -> "Nearby":
        """That of some voxels."""
        return Nearby(self.loc[where], self.tril[where])

    def given_to(self, batch: Batch) -> Batch:
        """A batch of the N voxels that has it."""
        voxels = replace(batch.voxels, nearby_loc=self.loc[batch.index], nearby_tril=self.tril[batch.index])
        return replace(batch, voxels=voxels)


def nearby_of(guide: Guide | None, batch: Batch) -> Nearby:
    """What all other voxels of a placed batch state about each.

    Raises
    ------
    InputError
        When the fit's prior is no field.
    """
    if guide is None or not guide.model.prior.is_field:
        raise InputError("neighbours are of fits whose prior is a field; use recipe spatial")
    assert isinstance(guide, Structured)
    device, n, size = guide.model.sigma.device, len(batch.status), guide.model.n_latents
    with torch.no_grad():
        voxels = place(guide, guide.prepare(batch.voxels.to(device)))
    found = Nearby(torch.full((n, size), torch.nan), torch.full((n, size, size), torch.nan))
    if voxels.nearby_loc is not None and voxels.nearby_tril is not None:
        found.loc[batch.index] = voxels.nearby_loc.to(found.loc)
        found.tril[batch.index] = voxels.nearby_tril.to(found.tril)
    return found


def missing_places(recipe: str, what: str = "the voxels") -> InputError:
    """What is wrong where nothing gives the positions of voxels that a field needs."""
    return InputError(
        f"recipe {recipe} needs to know where {what} lie: give voxels=, integer indices (N, 3) of the rows of y, or "
        "mask=, an image (X, Y, Z) whose voxels inside are the rows in C order"
    )


def refuse_field(recipe: str, is_field: bool) -> None:
    """Raise InputError for a fit whose voxels cannot be simulated one by one."""
    if is_field:
        raise InputError(
            f"check simulates single voxels, and recipe {recipe} maps images: its intervals are tested on phantoms "
            "(docs/models/spatial.md); check a fit by recipe hierarchical instead"
        )
