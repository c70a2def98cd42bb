"""What a fit notes where its voxels show a population of another shape than the one that it assumes."""

import torch
from torch import Tensor

from pyroqmri.fitting.estimating import estimates
from pyroqmri.fitting.fit import Fit
from pyroqmri.guides.population_refinement import evenly
from pyroqmri.guides.population_shape import two_classes
from pyroqmri.measurements.preparation import Batch
from pyroqmri.measurements.status import FINE
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.svi import seeded

VOXELS = 600  # that are looked at
MOVED = 0.03  # share of voxels without any mark that two classes move by more than an sd: worth a warning

_SHAPE = (
    "the population of these voxels is not a single Gaussian: two classes have {gain:.2g} nats per voxel more evidence"
)
_DRAWN = (
    ", and change the values of {moved:.0%} of the voxels by more than their sd: tissue that is unlike the rest, such "
    "as fluid, is drawn to it, and its intervals can miss"
)
_OPEN = (
    ". Values that the measurements leave open rest on the population's shape, and their intervals can be too narrow: "
    "such voxels have status 9"
)
_USE = "; compare with recipe hierarchical_mixture, with uniform, which learns no population, or mask one tissue"


def note_shape(fit: Fit, voxels: Voxels, refined: bool) -> None:
    """Warn of a population, a single Gaussian, that two classes describe better, and mark what rests on it.

    Parameters
    ----------
    fit
        A trained fit.
    voxels
        Its training voxels, prepared.
    refined
        Whether normal posteriors left so much out that the population was raised to the evidence before the training:
        values that the data leave open then rest on its shape, and have status 9.
    """
    assert fit.model is not None and fit.guide is not None
    if len(fit.model.prior.classes().log_weights) > 1:
        return
    some = evenly(voxels, VOXELS)
    with seeded(fit.seed, voxels.y):
        gain, each = two_classes(fit.model, fit.guide, some)
        fit.rests_on_shape = refined and gain > 0
        # statuses take a posterior, which is only made where they may matter
        silent = each & _fine(fit, some) if float(each.double().mean()) > MOVED else each
    moved = float(silent.double().mean())
    if fit.rests_on_shape or moved > MOVED:
        words = _SHAPE + (_DRAWN if moved > MOVED else "") + (_OPEN if fit.rests_on_shape else "") + _USE
        fit.warnings.append(words.format(gain=gain, moved=moved))


def _fine(fit: Fit, voxels: Voxels) -> Tensor:
    """Which of some training voxels have status fine in the maps ``(n,)`` bool: the others carry their own warning."""
    n, device = len(voxels), voxels.y.device
    batch = Batch(voxels, torch.arange(n), torch.full((n,), FINE), torch.ones(n, device=device))
    found = estimates(fit, batch, None, False, None)
    found.rests_on_shape = fit.rests_on_shape
    return found.status.to(device) == FINE
