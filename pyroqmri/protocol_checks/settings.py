"""Settings against one another and against the signal."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.protocol_checks.words import values_in_words
from pyroqmri.signals import SIGNALS, SignalModel

# relative range of a setting up to which it is constant; heart beats move repetition times
_CONSTANT = {"tr": 0.1}
_ROUNDING = 0.02
_LONG = 5000.0  # ms: five T1 of tissue, after which a repetition time no longer matters
_BEAT = (400.0, 2000.0)  # ms between heart beats
_CLOSE = 0.35  # of a beat, within which inversion times follow one another in a train


def check_times(acquisition: Acquisition) -> None:
    """Raise InputError where an echo or inversion time is not shorter than the repetition time."""
    tr = acquisition.tr
    for name, time in (("te", acquisition.te), ("ti", acquisition.ti)):
        if tr is None or time is None or not bool((time >= tr).any()):
            continue
        i = int((time - tr).argmax())
        what = {"te": "an echo", "ti": "an inversion"}[name]
        raise InputError(
            f"{name} is {float(time[i]):g} ms and tr {float(tr[i]):g} ms in measurement {i}, and {what} time is always "
            "shorter than the repetition time; check both for their units, and tr for being that of the whole sequence"
        )


def unused_settings(acquisition: Acquisition, signal: str) -> list[str]:
    """A sentence for each setting that varies over the measurements and that the signal does not use."""
    model = SIGNALS[signal]
    used = {*model.requires, *model.optional}
    return [
        _unused(name, value, signal, model)
        for name, value in acquisition.settings().items()
        if name not in used and name not in ("bvec", "averages") and varies(name, value)
    ]


def varies(name: str, values: Tensor) -> bool:
    """Whether a setting differs between measurements by more than rounding."""
    limit = _CONSTANT.get(name, _ROUNDING) * float(values.abs().max())
    return float(values.max() - values.min()) > limit


def _unused(name: str, values: Tensor, signal: str, model: type[SignalModel]) -> str:
    both = [key for key, other in SIGNALS.items() if {name, *model.requires} <= {*other.requires, *other.optional}]
    remedy = f"use a signal that includes it ({', '.join(both)}), or " if both else ""
    return (
        f"{values_in_words(name, values)}: {name} varies over the measurements and {signal} does not use it, so that "
        f"its effect is taken for that of the other settings; {remedy}fit the measurements of each {name} apart"
    )


def short_repetition(acquisition: Acquisition, signal: str) -> list[str]:
    """A sentence where inversions are repeated before the magnetisation is back, and the signal takes no tr."""
    model = SIGNALS[signal]
    if "ti" not in model.requires or "tr" in (*model.requires, *model.optional) or acquisition.tr is None:
        return []
    shortest = float(acquisition.tr.min())
    if shortest >= _LONG:
        return []
    return [
        f"tr is {shortest:g} ms, which leaves no full recovery between inversions, and {signal} takes it for endless: "
        "T1 comes out too short"
    ]


def look_locker(acquisition: Acquisition, signal: str) -> list[str]:
    """A sentence where inversion times have the pattern of a readout train over heart beats, as in MOLLI."""
    if acquisition.ti is None or "ti" not in SIGNALS[signal].requires or _is_for_trains(signal):
        return []
    beat = _beat(torch.unique(torch.round(acquisition.ti.double())))
    if beat is None:
        return []
    better = next((f"; use signal {key}" for key in SIGNALS if _is_for_trains(key)), "")
    return [
        f"{values_in_words('ti', acquisition.ti)}: the inversion times come in trains {beat:.4g} ms apart, as those of "
        f"MOLLI and other Look-Locker readouts do; {signal} then estimates T1*, which is shorter than T1 by the readout"
        f"{better}, or correct it as T1* (B/A - 1)"
    ]


def _is_for_trains(signal: str) -> bool:
    return "T1star" in {p.name for p in SIGNALS[signal].parameters}


def _beat(ti: Tensor) -> float | None:
    """The time between readouts of trains that start a little apart, of distinct times ``(n,)``; None without any."""
    if len(ti) < 5 or _evenly_spaced(ti):
        return None
    gaps = (ti.unsqueeze(-1) - ti).flatten()
    for beat in torch.unique(gaps[(gaps >= _BEAT[0]) & (gaps <= _BEAT[1])]).tolist():
        tolerance = 0.03 * beat
        after = (gaps.reshape(len(ti), -1) - beat).abs() <= tolerance  # i comes a beat after j
        partnered = int((after.any(0) | after.any(1)).sum())
        # trains start close to one another, and at least two of them go on; an evenly spaced series is one train
        starts = ti[~after.any(1) & after.any(0)]
        if len(starts) >= 2 and float(starts.max() - starts.min()) <= _CLOSE * beat and partnered >= 0.8 * len(ti):
            return float(beat)
    return None


def _evenly_spaced(ti: Tensor) -> bool:
    steps = ti.diff()
    return float(steps.max() - steps.min()) <= 0.1 * float(steps.mean())
