"""The command check: calibration of a fit, or of a recipe on a protocol, into a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pyroqmri import __version__
from pyroqmri.calibration.check import Check, check, fit_protocol, recalibrate
from pyroqmri.calibration.plots import coverage_figure, rank_figure
from pyroqmri.calibration.ranks import LEVELS, SHIFT, WIDTH
from pyroqmri.calibration.stress import StressRow, stress, stress_sentence
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.commands.protocol_files import PathLike, ProtocolFiles
from pyroqmri.commands.simulated_inputs import read_inputs
from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.fitting.fit import Fit
from pyroqmri.fitting.load import load_fit
from pyroqmri.fitting.save import save_fit
from pyroqmri.io.fit_folder import MAX_RECORD, RECORD, fit_place, sealed_record
from pyroqmri.maps import write_json
from pyroqmri.protocol_checks.reach import beyond_reach
from pyroqmri.signals import SIGNALS
from pyroqmri.whole_files import write_bytes


@dataclass(frozen=True)
class CheckResult:
    """What the command found: one check per ground, by name, after recalibration where it was asked for.

    ``warnings`` are of the protocol.
    """

    folder: Path
    checks: dict[str, Check]
    before: dict[str, Check]
    warnings: tuple[str, ...] = ()
    stressed: tuple[StressRow, ...] = ()

    @property
    def untested(self) -> str:
        """What the verdicts do not cover, and what breaks under stress."""
        return untested(self.checks, self.stressed)

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(found.holds for found in self.checks.values())


def check_fit(
    fit_dir: PathLike,
    *,
    out: PathLike | None = None,
    n: int = 4000,
    snr: float | None = None,
    truth: str = "own",
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    recalibrated: bool = False,
    stressed: bool = False,
    trust: bool = False,
    overwrite: bool = False,
) -> CheckResult:
    """Check a saved fit on voxels simulated at its protocol; ``recalibrated`` learns a correction and keeps it with it.

    Parameters
    ----------
    fit_dir
        Folder of the fit, or the folder that :func:`fit_image` wrote.
    out
        Folder to write; ``check`` in the folder of the fit when None, where an earlier check is replaced.
    n, snr, seed
        As in :func:`pyroqmri.calibration.check.check`.
    truth
        ``own``, ``scan``, ``tissue``, ``both`` (own and tissue) or ``auto`` (own, and scan where it is recorded).
    inputs
        Per-voxel inputs of the simulated voxels by name: a number, a range ``[low, high]`` or the path of a map.
    stressed
        Also try conditions that the fit does not expect (:mod:`pyroqmri.calibration.stress`).
    trust
        As in :func:`pyroqmri.load_fit`.

    Raises
    ------
    InputError
        When the input or the call is wrong.
    """
    found = load_fit(fit_dir, trust=trust)
    by_name = not Path(fit_dir).exists()  # of a fit that comes with the package
    if by_name and recalibrated:
        raise InputError(f"{fit_dir} comes with pyroqmri; copy it first, pyroqmri fits use {fit_dir} --out DIR")
    own = Path("out/check") if by_name else Path(fit_dir) / "check"
    place = own if out is None else Path(out)
    with output_folder(place, overwrite=overwrite or out is None) as folder:
        values = read_inputs(inputs)
        checks, before, found = _run(found, truth, n, snr, seed, recalibrated, values)
        rows = stress(found, seed=seed, inputs=values) if stressed else []
        _write(folder, checks, before, rows=rows)
    if recalibrated:
        _keep(found, Path(fit_dir))
    return CheckResult(place, checks, before, stressed=tuple(rows))


def check_recipe(
    *,
    signal: str,
    recipe: PathLike,
    snr: float,
    out: PathLike | None = None,
    protocol: ProtocolFiles,
    likelihood: str | None = None,
    coils: float | None = None,
    s0: str | float = "measured",
    settings: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    tied: Mapping[str, str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    n: int = 4000,
    truth: str = "both",
    seed: int = 0,
    recalibrated: bool = False,
    stressed: bool = False,
    overwrite: bool = False,
) -> CheckResult:
    """Fit a recipe to simulated tissue on a protocol, then check the fit; the fit is kept in ``out/fit``.

    Parameters
    ----------
    protocol
        Files of its settings.
    signal, recipe, snr, likelihood, coils, s0, settings, fixed, tied
        As in :func:`pyroqmri.calibration.check.fit_protocol`.
    out, n, truth, inputs, seed, recalibrated, overwrite
        As in :func:`check_fit`; ``out/check`` when None, where an earlier check is replaced only on ``overwrite``.
    """
    place = Path("out/check") if out is None else Path(out)
    acquisition, values = protocol.acquisition(), read_inputs(inputs)
    warnings = beyond_reach(acquisition, signal) if signal in SIGNALS else []
    with output_folder(place, overwrite=overwrite) as folder:
        found = fit_protocol(
            acquisition, signal=signal, recipe=recipe, snr=snr, likelihood=likelihood, coils=coils, s0=s0,
            settings=settings, fixed=fixed, tied=tied, inputs=values, seed=seed,
        )  # fmt: skip
        checks, before, found = _run(found, truth, n, snr, seed, recalibrated, values)
        found.warnings.extend(warnings)
        save_fit(found, folder / "fit")
        rows = stress(found, seed=seed, inputs=values) if stressed else []
        _write(folder, checks, before, warnings, rows)
    return CheckResult(place, checks, before, tuple(warnings), tuple(rows))


def _run(
    found: Fit, truth: str, n: int, snr: float | None, seed: int, recalibrated: bool, inputs: Mapping[str, Any]
) -> tuple[dict[str, Check], dict[str, Check], Fit]:
    if truth not in ("own", "scan", "tissue", "both", "auto"):
        raise InputError(f"--truth must be own, scan, tissue or both, got {truth!r}")
    if found.network is not None:
        raise InputError(f"recipe {found.recipe.name} is a network without uncertainty, so there is nothing to check")
    known = ("own", "scan") if found.residual_noise is not None and snr is None else ("own",)
    grounds = {"both": ("own", "tissue"), "auto": known}.get(truth, (truth,))
    if found.is_field and truth == "auto":
        grounds = ("own",)
    if found.model is None:  # a point estimator learns no population
        grounds = tuple(g for g in grounds if g == "tissue")
        if not grounds:
            raise InputError(f"recipe {found.recipe.name} has no population of its own; use --truth tissue")
    checks = {g: check(found, n=n, snr=snr, truth=g, seed=seed, inputs=inputs) for g in grounds}
    if not recalibrated:
        return checks, {}, found
    # on other voxels than the check sees, and of the fit's own population wherever that is checked: there the inference
    # alone is at fault, whereas a map that makes up for a wrong population over all tissue is wrong in each
    found = recalibrate(found, n=2 * n, snr=snr, truth=grounds[0], seed=seed + 1, inputs=inputs)
    after = {g: check(found, n=n, snr=snr, truth=g, seed=seed + 2, inputs=inputs) for g in grounds}
    return after, checks, found


def _keep(found: Fit, folder: Path) -> None:
    """Write the recalibration into ``fit.json``; everything else in it stays."""
    path = fit_place(folder) / RECORD
    assert found.recalibration is not None
    write_bytes(
        path, sealed_record(read_table(path, "record", MAX_RECORD) | {"recalibration": found.recalibration.record()})
    )


def _write(
    folder: Path,
    checks: Mapping[str, Check],
    before: Mapping[str, Check],
    warnings: Sequence[str] = (),
    rows: Sequence[StressRow] = (),
) -> None:
    """Figures, the page and the record, which comes last."""
    for name, found in checks.items():
        counted = sum(cell.counts for cell in found.cells)
        pictures = {
            "ranks": rank_figure(found.ranks, counted, (WIDTH, SHIFT)),
            "coverage": coverage_figure(found.cells),
        }
        for what, figure in pictures.items():
            stream = BytesIO()
            figure.savefig(stream, format="png", dpi=140, metadata={"Software": None})
            write_bytes(folder / f"{name}_{what}.png", stream.getvalue())
    write_bytes(folder / "check.md", page(checks, before, warnings, rows).encode())
    record = {
        "GeneratedBy": [{"Name": "pyroqmri", "Version": __version__}],
        "holds": all(found.holds for found in checks.values()),
        "warnings": list(warnings),
        "checks": {name: found.record() for name, found in checks.items()},
        "untested": untested(checks, rows),
        "stress": [row.record() for row in rows],
        "before_recalibration": {name: found.record() for name, found in before.items()},
    }
    write_json(folder / "check.json", record)


def page(
    checks: Mapping[str, Check],
    before: Mapping[str, Check],
    warnings: Sequence[str] = (),
    rows: Sequence[StressRow] = (),
) -> str:
    """The findings as Markdown."""
    told = next(iter(checks.values())).told
    parts = [
        f"# Calibration of `{told['recipe']}` for `{told['signal']}`",
        f"{told['n_measurements']} measurements, SNR {told['snr']:.3g}, {told['likelihood']} noise, S0 {told['s0']}. "
        f"A parameter passes while its intervals may be within {WIDTH:.0%} of the right width and its centre within "
        f"{SHIFT:g} sd; it fails once simulations show worse, at 5 % over all rows together.",
        *(f"**Warning:** {warning}" for warning in warnings),
    ]
    for name, found in checks.items():
        parts += [f"## On {found.simulated}", found.verdict]
        parts += [f"![ranks]({name}_ranks.png)", f"![coverage]({name}_coverage.png)", cells_table(found)]
        if name in before:
            parts += [f"Before recalibration: {before[name].verdict}", cells_table(before[name])]
    parts += ["## What these checks do not cover", untested(checks, rows), *([stress_table(rows)] if rows else [])]
    return "\n\n".join(parts) + "\n"


def untested(checks: Mapping[str, Check], rows: Sequence[StressRow]) -> str:
    """What the verdicts do not cover, in words, and what breaks under stress where that was tried."""
    left = [] if "scan" in checks else ["the noise of the scan itself"]
    left += [] if "tissue" in checks else ["tissue outside the population"]
    if rows:
        return " ".join([f"Not tested: {', '.join(left)}."] * bool(left) + [stress_sentence(list(rows))])
    left += ["noise of another level or kind (several coils, averages, a field)", "lesions", "second fibres"]
    return f"Not tested: {', '.join(left)}; --stress tries the last ones."


def stress_table(rows: Sequence[StressRow]) -> str:
    """One row a condition: coverage of 90 % intervals by parameter."""
    names = list(rows[0].coverage)
    lines = [["condition", *names, "status fine"], ["---"] * (len(names) + 2)]
    lines += [[row.name, *(f"{row.coverage[name]:.2f}" for name in names), f"{row.fine:.0%}"] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells_table(found: Check) -> str:
    """One row a parameter and group."""
    head = [
        "parameter",
        "voxels",
        "n",
        *(f"{p:.0%}" for p in LEVELS),
        "shift, sd",
        "spread",
        "bias",
        "z",
        "contraction",
    ]
    lines = [[*head, "verdict"], ["---"] * (len(head) + 1)]
    for cell in found.cells:
        verdict = ("exact" if cell.exact else "passes") if cell.holds else " and ".join(cell.faults)
        lines.append(
            [cell.parameter, cell.group, str(cell.n), *(f"{c:.3f}" for c in cell.coverage), f"{cell.shift:+.2f}",
             f"{cell.spread:.2f}", f"{cell.bias:+.3g} {'' if cell.unit == '1' else cell.unit}".strip(),
             f"{cell.z_mean:+.2f} ± {cell.z_sd:.2f}", f"{cell.contraction:.2f}",
             verdict if cell.counts else f"({verdict})"]
        )  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
