"""What the mean of residuals shows, in words: a drift, a noise floor, settings that the signal misses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyroqmri.acquisition import Acquisition
from pyroqmri.misfit.patterns import DRIFT, SETTING, WIDTH, Seen
from pyroqmri.protocol_checks.words import unit_of

_WIDER = {"ball_sticks": "ball_sticks_gamma"}  # signals whose diffusivity varies within a voxel
_NAMED = 3  # settings in one sentence
_TITLES = {"te": "TE", "ti": "TI", "tr": "TR", "offset": "offset", "flip": "flip angle"}


def means_in_words(
    shown: Sequence[Seen], acquisition: Acquisition, likelihood: Any, signal: str
) -> list[tuple[str, float, str]]:
    """Kind, size and sentence of each pattern; settings share one sentence.

    Parameters
    ----------
    shown
        What the residuals have, those of most consequence first.
    acquisition
        Settings of the measurements ``(M,)``.
    likelihood, signal
        Of the fit.
    """
    settings = [seen for seen in shown if seen.pattern.kind == SETTING]
    found = []
    for seen in shown:
        if seen.pattern.kind == DRIFT:
            words = (
                f"the measurements drift by {100 * seen.amount:+.2g} % of the signal from the first volume to the "
                "last: the scanner warmed up or its scale changed; correct the drift by interleaved volumes without "
                "encoding"
            )
        elif seen.pattern.kind == SETTING:
            if seen is not settings[0]:
                continue
            words = _settings(settings, acquisition, signal)
        elif seen.pattern.kind == WIDTH:
            words = _width(seen, signal)
        else:
            words = _floor(seen, likelihood, signal)
        found.append((seen.pattern.kind, seen.largest, words))
    return found


def _width(seen: Seen, signal: str) -> str:
    if seen.amount < 0:
        return f"the signal at high b is lower than the single diffusivity of {signal} allows: fit another signal"
    return (
        f"the decay suggests that the diffusivity varies within a voxel, by {100 * seen.amount**0.5:.0f} % (sd) or "
        f"more; {signal} has a single diffusivity and describes the rest by additional sticks: fit "
        f"{_WIDER.get(signal, 'another signal')}, or one shell (--bmax)"
    )


def _settings(shown: Sequence[Seen], acquisition: Acquisition, signal: str) -> str:
    """Settings whose measurements lie beside the fit."""
    named = [
        f"at {name_of(acquisition, seen.pattern.where)} {seen.largest:.2g} sd of the noise "
        f"{'above' if seen.amount > 0 else 'below'}"
        for seen in sorted(shown, key=lambda one: -one.largest)[:_NAMED]
        if seen.pattern.where is not None
    ]
    more = len(shown) - len(named)
    named += [f"at {more} more settings less far away"] if more > 0 else []
    where = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    leave_out = "--bmax, --drop-volumes" if acquisition.bval is not None else "--drop-volumes"
    why = "the signal does not describe them, or they have another scale"
    if acquisition.te is not None and len(acquisition.te.unique()) > 2 and signal != "t2_epg":
        why = f"stimulated echoes do this to a train of echoes (signal t2_epg includes them), else {why}"
    why += f"; leave these volumes out ({leave_out}), or choose another signal"
    return f"in the mean over voxels the measurements lie beside the fitted {signal} signal, {where}: {why}"


def _floor(seen: Seen, likelihood: Any, signal: str) -> str:
    start = f"where the signal is low the measurements lie up to {seen.largest:.2g} sd of the noise"
    if not getattr(likelihood, "magnitude", False):
        if seen.amount > 0:
            return (
                f"{start} above the fit, as magnitudes do on their noise floor, which likelihood gaussian has not: use "
                "--likelihood rician"
            )
        return f"{start} below the fit: {signal} does not describe them, or an offset was subtracted"
    if seen.amount > 0:
        return (
            f"{start} above the fit: a noise floor higher than that of one coil (a sum of squares over coils: "
            "--likelihood ncchi --coils N; or a mean of several magnitudes: --averages N), or tissue that decays less "
            f"than {signal} describes{f', as {_WIDER[signal]} may' if signal in _WIDER else ''}"
        )
    return (
        f"{start} below the fit: these data have no noise floor of magnitudes (real-valued, denoised or freed of it): "
        "use --likelihood gaussian, or the images as they were acquired"
    )


def name_of(acq: Acquisition, group: np.ndarray) -> str:
    """The setting of some measurements in words."""
    if acq.bval is not None:
        return f"b {1000 * float(acq.bval[group].mean()):.4g} s/mm2"
    settings = {name: value for name, value in acq.settings().items() if name in _TITLES}
    varying = [name for name, value in settings.items() if float(value.max() - value.min()) > 0]
    words = []
    for name in varying or list(settings):
        unit, factor = unit_of(name)
        words.append(f"{_TITLES[name]} {factor * float(settings[name][group].mean()):.4g} {unit}")
    return ", ".join(words) if words else f"measurements {', '.join(str(i) for i in group[:5])}"
