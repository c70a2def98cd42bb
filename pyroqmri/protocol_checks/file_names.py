"""What an image's name and sidecar state, as BIDS has it, against the signal that it is to be fitted with."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyroqmri.errors import InputError
from pyroqmri.io.names import stem
from pyroqmri.io.sidecars import stated_beside
from pyroqmri.protocol_checks.words import listed
from pyroqmri.signals import SIGNALS, SignalModel

_NAMED = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceType", "PulseSequenceDetails")
_TRAINS = ("molli", "look-locker", "looklocker", "look locker", "tapir", "sasha")


class Kind(NamedTuple):
    """A kind of series: what it is, and a setting or parameter of the signals that describe it."""

    what: str
    needs: str | None


_KINDS = {
    "dwi": Kind("a diffusion series", "bval"),
    "VFA": Kind("a series of flip angles", "flip"),
    "IRT1": Kind("an inversion recovery", "ti"),
    "MESE": Kind("a spin-echo train", "te"),
    "MEGRE": Kind("a gradient-echo train", "te"),
    "T2starw": Kind("a gradient echo", "te"),
    "cest": Kind("a Z-spectrum", "offset"),
    "MP2RAGE": Kind("an MP2RAGE pair, whose readout trains change the recovery", "mp2rage"),
    "UNIT1": Kind("an MP2RAGE uniform image, a ratio of two", "mp2rage"),
    "MPM": Kind("a series of flip angles, echoes and magnetisation transfer", "mpm"),
    "MTS": Kind("a series with and without magnetisation transfer", "mpm"),
    "MTR": Kind("a pair with and without magnetisation transfer", "mpm"),
    "bold": Kind("a functional series", None),
    "asl": Kind("a perfusion series by spin labelling", None),
    "phase": Kind("a phase image", None),
} | {
    name: Kind("a weighted image, no series over settings", None) for name in ("T1w", "T2w", "PDw", "FLAIR", "m0scan")
} | {
    name: Kind("a scan for a map of B1", None)
    for name in ("TB1AFI", "TB1DAM", "TB1EPI", "TB1RFM", "TB1SRGE", "TB1TFL")
}  # fmt: skip
_GRADIENT_ECHO = ("MEGRE", "T2starw")


def judge_files(image: str | Path, signal: str, json_path: str | Path | None = None) -> list[str]:
    """Sentences on an image whose name, or sidecar, states another kind of series than the signal describes.

    Parameters
    ----------
    json_path
        The sidecar; those that apply to the image by BIDS inheritance when None.

    Raises
    ------
    InputError
        When it is a phase image.
    """
    sidecar = stated_beside(image, json_path)
    sources = sidecar.get("Sources", ())
    own = Path(image).name
    names = [own, *(Path(s).name for s in sources if isinstance(s, str))] if isinstance(sources, list) else [own]
    _refuse_phase(names, sidecar, Path(image).name)
    simulated = sidecar.get("Simulated") is True  # under one name whatever the signal
    found = [_suffix(names, signal, simulated), _transfer(names, sidecar, signal), _trains(sidecar, signal)]
    return [sentence for sentence in found if sentence]


def _entities(name: str) -> tuple[dict[str, str], str]:
    """Entities by key, and the suffix, of a BIDS name."""
    *parts, suffix = stem(name).split("_")
    return dict(part.split("-", 1) for part in parts if "-" in part), suffix


def _refuse_phase(names: Iterable[str], sidecar: Mapping[str, Any], image: str) -> None:
    types = sidecar.get("ImageType")
    stated = isinstance(types, list) and bool({"P", "PHASE"} & {str(t).upper() for t in types})
    phases = [name for name in names if _entities(name)[0].get("part") == "phase" or _entities(name)[1] == "phase"]
    if phases or stated:
        which = listed(phases[:3]) if phases else f"{image} (ImageType in its sidecar)"
        raise InputError(
            f"{which}: phase images contain angles, which no signal here describes; give the magnitudes (part-mag), or "
            "the real part for signals of data that keep their sign"
        )


def _describes(model: type[SignalModel], name: str, needs: str | None) -> bool:
    """Whether a signal describes series of a kind: by a setting that it requires, or by its own name."""
    if "mt" in model.requires or "readout" in model.requires:
        return needs is not None and name.startswith(needs)
    if needs in ("bval", "flip", "ti", "te", "offset"):
        return needs in model.requires
    return needs is not None and name.startswith(needs)


def _suffix(names: Iterable[str], signal: str, simulated: bool) -> str:
    model, own = SIGNALS[signal], {_entities(name)[1] for name in names}
    suffix = next((s for s in own if s in _KINDS), None)
    if suffix is None or simulated:
        return ""
    kind = _KINDS[suffix]
    if _describes(model, signal, kind.needs):
        if "bval" not in model.requires:
            return _star(suffix, kind.what, signal, {p.name for p in model.parameters})
        return ""
    fitting = [name for name, other in SIGNALS.items() if _describes(other, name, kind.needs)]
    remedy = f"signals for it are {listed(fitting)}" if fitting else "no signal here describes it"
    return (
        f"the file's suffix {suffix} means {kind.what}, which {signal} does not describe; {remedy} (rename the file "
        "if it is something else)"
    )


def _star(suffix: str, what: str, signal: str, names: Collection[str]) -> str:
    """On a train of echoes that decays with T2* where the signal has T2, or the other way round."""
    if suffix in _GRADIENT_ECHO and {"T2", "T2_long"} & set(names):
        return (
            f"{suffix} is {what}, whose echoes decay with T2*: what {signal} calls T2 is T2*; use signal t2star_decay"
        )
    if suffix == "MESE" and "T2star" in names:
        return f"{suffix} is {what}, whose echoes decay with T2: what {signal} calls T2* is T2; use signal t2_decay"
    return ""


def _transfer(names: Iterable[str], sidecar: Mapping[str, Any], signal: str) -> str:
    """On magnetisation transfer pulses, which lower the signal and which T1 signals do not describe."""
    state = sidecar.get("MTState")
    on = [name for name in names if _entities(name)[0].get("mt") == "on"]
    stated = state is True or (isinstance(state, list) and True in state)
    if (not on and not stated) or _describes(SIGNALS[signal], signal, "mpm"):
        return ""
    which = listed(on[:3]) if on else "MTState in the sidecar"
    return f"{which}: a magnetisation transfer pulse was on, whose saturation {signal} does not describe; leave it out"


def _trains(sidecar: Mapping[str, Any], signal: str) -> str:
    """On readout trains after one inversion, which shorten the apparent T1."""
    model = SIGNALS[signal]
    if "ti" not in model.requires or "T1star" in {p.name for p in model.parameters} or signal.startswith("mp2rage"):
        return ""
    stated = " ".join(str(sidecar[key]) for key in _NAMED if key in sidecar).lower()
    word = next((w for w in (*_TRAINS, "mp2rage") if w in stated), None)
    if word is None and "NumberShots" in sidecar:
        word = "NumberShots"
    if word is None:
        return ""
    return (
        f"the sidecar states {word}: a train of readouts follows each inversion, so that {signal} estimates T1*, which "
        "is shorter than T1; use a signal or a program for that sequence"
    )
