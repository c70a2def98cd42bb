"""`pyroqmri check`."""

from typing import Any

import click

from pyroqmri.cli.common import (
    coils_option,
    debug_option,
    example,
    model_options,
    overwrite_option,
    quiet_option,
    say,
    say_loading,
    seed_option,
    trust_option,
)
from pyroqmri.cli.files import input_values, protocol_files, protocol_options, simulated_inputs


@click.command(**example("pyroqmri check out/sub-01"))
@click.argument("fit_dir", required=False)
@click.option("--signal", metavar="S", help="Physics; see `pyroqmri list signals`. Needed unless a fit is given.")
@click.option("--recipe", metavar="R", help="Estimator, a name or a .toml. Needed unless a fit is given.")
@protocol_options
@simulated_inputs
@click.option("--snr", type=float, metavar="X", help="S0 over sigma; the fit's own by default.")
@click.option("--truth", metavar="own|scan|tissue|both",
              help="Truths of the fit's own population, the same with the noise of the scan's residuals, or tissue. "
                   "[default: own and, where residuals are recorded, scan; without a fit both]")  # fmt: skip
@coils_option("N")
@model_options
@click.option("--voxels", type=click.IntRange(200), default=4000, show_default=True, metavar="N",
              help="Voxels to simulate.")  # fmt: skip
@seed_option
@click.option("--recalibrate", is_flag=True, help="Correct the intervals, save that with the fit, and check again.")
@click.option(
    "--stress", is_flag=True, help="Also try other noise, a lesion and a second fibre; no part of the verdict."
)
@trust_option
@click.option("--out", metavar="DIR", help="Folder to write. [default: check in the fit's folder, else out/check]")
@overwrite_option
@quiet_option
@debug_option
def check(
    fit_dir: str | None, signal: str | None, recipe: str | None, snr: float | None, truth: str | None,
    likelihood: str | None, coils: float | None, s0: str | float, settings: Any, fix: Any, tie: Any, voxels: int,
    seed: int, recalibrate: bool, stress: bool, trust: bool, out: str | None, overwrite: bool, quiet: bool,
) -> int:  # fmt: skip
    """Are the intervals right? Simulate voxels on this protocol and noise, and count; exit 1 when they are not.

    Give the folder of a fit, or --signal, --recipe, --snr and the files of a protocol.
    """
    common: dict[str, Any] = {"n": voxels, "seed": seed, "recalibrated": recalibrate, "overwrite": overwrite}
    common["stressed"] = stress
    common["inputs"] = input_values()
    extra = {
        **protocol_files().settings,
        "averages": protocol_files().averages,
        "likelihood": likelihood,
        "coils": coils,
        "set": settings,
        "fix": fix,
        "tie": tie,
    }
    _refuse(fit_dir, signal, recipe, snr, extra)
    say_loading(quiet)
    from pyroqmri.commands.check import check_fit, check_recipe

    if fit_dir is not None:
        found = check_fit(fit_dir, out=out, snr=snr, trust=trust, truth="auto" if truth is None else truth, **common)
    else:
        assert signal is not None and recipe is not None and snr is not None
        found = check_recipe(
            signal=signal, recipe=recipe, snr=snr, out=out, protocol=protocol_files(), likelihood=likelihood,
            coils=coils, s0=s0, settings=dict(settings), fixed=dict(fix), tied=dict(tie),
            truth="both" if truth is None else truth, **common,
        )  # fmt: skip
    say((), found.warnings, quiet)
    for one in found.before.values():
        click.echo(f"before recalibration: {one.verdict}")
    for one in found.checks.values():
        click.echo(one.verdict)
    click.echo(found.untested)
    click.echo(found.folder / "check.md")
    return 0 if found.holds else 1


def _refuse(fit_dir: str | None, signal: Any, recipe: Any, snr: Any, of_protocol: dict[str, Any]) -> None:
    if fit_dir is None:
        lacking = [n for n, v in (("--signal", signal), ("--recipe", recipe), ("--snr", snr)) if v is None]
        if lacking:
            raise click.UsageError(
                f"give the folder of a fit, or all of --signal, --recipe, --snr; missing {lacking[0]}"
            )
        return
    extra = [f"--{n}" for n, v in {**of_protocol, "signal": signal, "recipe": recipe}.items() if v]
    if extra:
        raise click.UsageError(f"a fit brings its own protocol and recipe; leave out {', '.join(extra)}")
