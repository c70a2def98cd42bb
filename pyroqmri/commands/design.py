"""The command design: the candidate measurements that are worth most, as files of a protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from pyroqmri import __version__
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike, ProtocolFiles, write_protocol
from pyroqmri.errors import InputError
from pyroqmri.fitting.load import load_fit
from pyroqmri.io.text import read_vector
from pyroqmri.maps import write_json
from pyroqmri.planning.figure import gain_figure
from pyroqmri.planning.plan import Plan, plan
from pyroqmri.planning.simulated import Simulated, checked, simulated
from pyroqmri.protocol_checks.words import protocol_in_words
from pyroqmri.signals import SIGNALS
from pyroqmri.whole_files import write_bytes

CHOSEN = "chosen.nii.gz"  # the name of an image that the protocol's files would lie beside


@dataclass(frozen=True)
class DesignResult:
    """What the command found; ``tried`` is by simulation, empty where the recipe takes no other protocol."""

    folder: Path
    plan: Plan
    sentences: list[str]
    tried: dict[str, Simulated]


def design_protocol(
    fit_dir: PathLike,
    candidates: ProtocolFiles,
    *,
    out: PathLike,
    n: int | None = None,
    minutes: float | None = None,
    seconds: PathLike | float | None = None,
    parameters: Sequence[str] | None = None,
    snr: float | None = None,
    each: bool = False,
    voxels: int = 1000,
    seed: int = 0,
    trust: bool = False,
    overwrite: bool = False,
) -> DesignResult:
    """Choose measurements under a saved fit's population; write ``chosen.bval`` and its like, figures and words.

    Parameters
    ----------
    fit_dir
        Folder of the fit, or the folder that :func:`fit_image` wrote.
    candidates
        Files of the candidates' settings.
    n, minutes, parameters, snr, each, seed
        As in :func:`pyroqmri.design`.
    seconds
        How long each candidate takes: a number, or a file with one number per candidate.
    voxels
        How many to simulate for the comparison with the even choice; 0 for none.
    out, trust, overwrite
        As in :func:`pyroqmri.commands.apply_image`.

    Raises
    ------
    InputError
        When the input or the call is wrong.
    """
    fit = load_fit(fit_dir, trust=trust)
    given = [*candidates.settings.values(), fit_dir]
    with output_folder(out, overwrite=overwrite, inputs=given) as folder:
        offered = candidates.acquisition()
        times = seconds if seconds is None or isinstance(seconds, int | float) else read_vector(
            seconds, "seconds", len(offered)
        )  # fmt: skip
        found = plan(
            fit, offered, n, parameters=parameters, minutes=minutes, seconds=times, snr=snr, seed=seed, each=each
        )
        sentences, tried = found.sentences(), dict[str, Simulated]()
        if voxels:
            try:
                tried = simulated(fit, offered, {"chosen": found.index, "even": found.even}, voxels, seed, snr)
                sentences.append(_compared(tried, voxels))
                verdict = checked(fit, offered[found.index], voxels, seed, snr)
                sentences.extend([verdict] if verdict else [])
            except InputError as error:
                sentences.append(f"not tried by simulation: {error}")
        used = (*SIGNALS[fit.signal_name].requires, *SIGNALS[fit.signal_name].optional)
        sentences.insert(0, f"chosen: {protocol_in_words(offered[found.index], used)}")
        _write(folder, fit.signal_name, offered, found, sentences, tried)
    return DesignResult(Path(out), found, sentences, tried)


def _compared(tried: dict[str, Simulated], n: int) -> str:
    chosen, even = tried["chosen"], tried["even"]
    ratios = [
        f"{name} {value / even.variance[name]:.2f} (its 90 % intervals contain {chosen.coverage[name]:.0%})"
        for name, value in chosen.variance.items()
    ]
    return f"on {n} simulated voxels the posterior variance over that of the even choice is {', '.join(ratios)}"


def _write(
    folder: Path, signal: str, offered: Acquisition, found: Plan, sentences: list[str], tried: dict[str, Simulated]
) -> None:
    chosen = offered[found.index]
    write_protocol(folder / CHOSEN, chosen, {"Description": f"measurements chosen for {signal}"})
    stream = BytesIO()
    gain_figure(found).savefig(stream, format="png", dpi=140, metadata={"Software": None})
    write_bytes(folder / "gain.png", stream.getvalue())
    write_bytes(folder / "design.md", page(signal, found, sentences, tried).encode())
    record: dict[str, Any] = {
        "GeneratedBy": [{"Name": "pyroqmri", "Version": __version__}],
        "signal": signal,
        "sentences": sentences,
        **{key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in vars(found).items()},
        "simulated": {name: one.record() for name, one in tried.items()},
    }
    write_json(folder / "design.json", record)


def page(signal: str, found: Plan, sentences: Sequence[str], tried: dict[str, Simulated]) -> str:
    """The findings as Markdown."""
    lines = [["parameter", "unit", "population sd", "all candidates", "evenly spread", "chosen"], ["---"] * 6]
    for name, unit in found.units.items():
        values = (found.population_sd, found.whole_sd, found.even_sd, found.sd)
        lines.append([name, unit, *(f"{value[name]:.3g}" for value in values)])
    parts = [f"# Measurements for `{signal}`", *(f"- {sentence}" for sentence in sentences), "## Expected sd"]
    parts += ["\n".join("| " + " | ".join(line) + " |" for line in lines), "![gain](gain.png)"]
    if tried:
        lines = [["parameter", "choice", "sd", "RMSE", "90 % intervals contain"], ["---"] * 5]
        lines += [
            [name, choice, f"{variance**0.5:.3g}", f"{one.rmse[name]:.3g}", f"{one.coverage[name]:.1%}"]
            for choice, one in tried.items() for name, variance in one.variance.items()
        ]  # fmt: skip
        parts += ["## By simulation", "\n".join("| " + " | ".join(line) + " |" for line in lines)]
    parts += [f"Chosen candidates, counted from 0: {', '.join(map(str, found.index.tolist()))}"]
    return "\n\n".join(parts) + "\n"
