"""Whether a scan has the protocol that a network was trained for, gradient directions included."""

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.apply import B_TOLERANCE, SAME_DIRECTION
from pyroqmri.errors import InputError
from pyroqmri.signals import SIGNALS


def check_protocol(mine: Acquisition, its: Acquisition, signal: str) -> None:
    """Compare settings measurement by measurement; a network knows them by their order alone.

    Raises
    ------
    InputError
        When the number of volumes or a setting differs by more than a tolerance.
    """
    if len(mine) != len(its):
        raise InputError(
            f"the image has {len(its)} volumes and the denoiser was trained on {len(mine)}; give a scan of its protocol"
        )
    ours, theirs = mine.settings(), its.settings()
    for name in SIGNALS[signal].requires:
        a, b = ours[name], theirs[name]
        if name == "bvec":
            # an axis is the same either way round
            off = ((a - b).abs().amax(-1) > SAME_DIRECTION) & ((a + b).abs().amax(-1) > SAME_DIRECTION)
            off &= (mine.bval > B_TOLERANCE) if mine.bval is not None else off
        else:
            off = (a - b).abs() > B_TOLERANCE * a.abs().clamp_min(1)
        if off.any():
            raise InputError(
                f"{name} of the image differs from the denoiser's in {int(off.sum())} volumes, the first is volume "
                f"{int(off.nonzero()[0])}; train one for this protocol"
            )
