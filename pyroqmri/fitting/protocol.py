"""Whether a scan has the protocol that something was trained for."""

from dataclasses import dataclass

from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.protocol_checks.words import unit_of
from pyroqmri.signals import SIGNALS

TOLERANCE = 0.05  # of a setting: within it two scans have one protocol
_LEAST = {"bval": 0.003, "flip": 0.002}  # ms/um2, radians: what rounding leaves; 0.05 of all other units
SAME_DIRECTION = 0.01


@dataclass(frozen=True)
class Comparison:
    """Two protocols side by side.

    Attributes
    ----------
    difference
        What differs beside gradient directions, in words; None where nothing does.
    same_directions
        Whether the gradient directions, where the signal uses them, are the same as well.
    """

    difference: str | None
    same_directions: bool


def compare_protocols(mine: Acquisition, its: Acquisition, signal: str, what: str = "image") -> Comparison:
    """Compare an image's settings with a fit's, as far as the signal uses them; ``what`` is the image's name.

    Raises
    ------
    InputError
        When a setting that the signal needs is missing, or one that changes it is known of one of the two alone.
    """
    model = SIGNALS[signal]
    its.require(*model.requires)
    ours, theirs = mine.settings(), its.settings()
    for name in model.optional:
        if (name in ours) != (name in theirs):
            having, lacking = ("fit", what) if name in ours else (what, "fit")
            raise InputError(
                f"{name} is known of the {having} and not of the {lacking}, and {signal} depends on it; give it for "
                "both, or for neither"
            )
    n, m = len(mine), len(its)
    if n != m:
        return Comparison(f"the image has {m} volumes and the fit was trained on {n}", False)
    needed = (*model.requires, *(name for name in model.optional if name in ours))
    for name in needed:
        if name != "bvec" and (off := _differs(name, ours[name], theirs[name], model.negligible_b)).any():
            i = int(off.nonzero()[0])
            unit, factor = unit_of(name)
            had, has = factor * float(ours[name][i]), factor * float(theirs[name][i])
            return Comparison(
                f"{name} of the image differs from the fit's in {int(off.sum())} volumes, the first is volume {i} with "
                f"{has:.4g} instead of {had:.4g} {unit}",
                False,
            )
    same = "bvec" not in needed or bool((ours["bvec"] - theirs["bvec"]).abs().max() <= SAME_DIRECTION)
    return Comparison(None, same)


def check_denoiser_protocol(mine: Acquisition, its: Acquisition, signal: str) -> None:
    """Compare settings measurement by measurement, gradient directions too; a denoiser knows them by their order alone.

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
            off &= (mine.bval > TOLERANCE) if mine.bval is not None else off
        else:
            off = _differs(name, a, b, SIGNALS[signal].negligible_b)
        if off.any():
            raise InputError(
                f"{name} of the image differs from the denoiser's in {int(off.sum())} volumes, the first is volume "
                f"{int(off.nonzero()[0])}; train one for this protocol"
            )


def _differs(name: str, mine: Tensor, its: Tensor, negligible_b: float) -> Tensor:
    """Where settings are apart by more than a tolerance ``(M,)`` bool; b-values that are negligible are all alike."""
    least = max(_LEAST[name], negligible_b) if name == "bval" else _LEAST.get(name, TOLERANCE)
    return (mine - its).abs() > (TOLERANCE * mine.abs()).clamp_min(least)
