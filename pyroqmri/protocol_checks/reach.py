"""Up to which b-value a signal describes the decay of tissue."""

import numpy as np

from pyroqmri.acquisition import WEIGHTED_ABOVE, Acquisition
from pyroqmri.signals import SIGNALS

SLACK = 0.02  # of a limit on b: scanners write 1005 for 1000
BEYOND = 1.05  # times a signal's reach; below it there is no warning


def beyond_reach(acquisition: Acquisition, signal: str) -> list[str]:
    """A sentence where a scan's b-values go beyond what a signal describes, or nothing."""
    model = SIGNALS[signal]
    if model.reach is None or acquisition.bval is None:
        return []
    reach, top = 1000 * model.reach, 1000 * float(acquisition.bval.max())
    if top <= BEYOND * reach:
        return []
    said = f"{signal} describes decay up to about b {reach:g} s/mm2, and this scan reaches b {top:.0f}"
    inside = (acquisition.bval <= (1 + SLACK) * model.reach) & (acquisition.bval > WEIGHTED_ABOVE)
    settings = [acquisition.bval.mul(20).round()[:, None]]
    settings += [value.reshape(len(value), -1) for name, value in acquisition.settings().items()
                 if name != "bval" and name in model.requires]  # fmt: skip
    distinct = {tuple(row) for row in np.round(np.concatenate([np.asarray(s) for s in settings], 1), 3)[inside.numpy()]}
    if len(distinct) < len([p for p in model.parameters if not p.is_direction]):
        return [f"{said}, with too few volumes below to fit those alone: its parameters depend on the b-values used"]
    n_above = int((~inside & (acquisition.bval > WEIGHTED_ABOVE)).sum())
    return [f"{said}: leave out the {n_above} volumes above (--bmax {reach:g})"]
