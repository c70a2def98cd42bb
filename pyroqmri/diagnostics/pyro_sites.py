"""What the sites of a Pyro trace are: random or not, which of their points are scored, whether all are there."""

from typing import Any

import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor

from pyroqmri.errors import InputError


def is_random(site: Any) -> bool:
    """Whether a site is sampled, and no plate, factor or deterministic value."""
    if site["type"] != "sample" or site["infer"].get("_deterministic"):
        return False
    return not _is_plate(site) and type(site["fn"]).__name__ != "Unit"


def is_deterministic(site: Any) -> bool:
    """Whether a site is a value that follows from others."""
    return site["type"] == "sample" and bool(site["infer"].get("_deterministic"))


def refuse_subsamples(trace: Any) -> None:
    """Raise where a plate of a trace takes only some of its points."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and _is_plate(site) and len(site["value"]) != int(site["fn"].size):
            raise InputError(
                f"plate {name} takes {len(site['value'])} of its {int(site['fn'].size)} points, and a log likelihood "
                "needs each of them in every draw; call the model with all its data and no subsample_size"
            )


def scored(site: Any) -> Tensor:
    """Which points of an observed site count ``(...)``, of the shape of its log density.

    Left out are those under ``poutine.mask``, ``.mask(...)`` and ``obs_mask``. An event counts as soon as one
    element of it does.
    """
    shape = site["unscaled_log_prob"].shape
    found = torch.ones(shape, dtype=torch.bool)
    if site["mask"] is not None:
        found = found & torch.as_tensor(site["mask"]).bool().cpu()
    fn, n_event = site["fn"], 0
    while isinstance(fn, MaskedDistribution | torch.distributions.Independent):
        if isinstance(fn, MaskedDistribution):
            # Pyro keeps no public name for the mask
            mask = torch.as_tensor(fn._mask).bool().cpu().expand(fn.batch_shape)
            found = found & mask.flatten(mask.dim() - n_event).any(-1) if n_event else found & mask
        else:
            n_event += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    return found.expand(torch.broadcast_shapes(found.shape, shape))


def _is_plate(site: Any) -> bool:
    # Pyro keeps no public name for the site of a plate
    return type(site["fn"]).__name__ == "_Subsample"
