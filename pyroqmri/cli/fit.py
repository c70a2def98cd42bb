"""`pyroqmri fit` and `pyroqmri apply`."""

from typing import Any

import click

from pyroqmri.cli.common import (
    NumberOrWord,
    Setting,
    debug_option,
    finish,
    options,
    run_options,
    say_loading,
    toml_value,
    trust_option,
)
from pyroqmri.cli.files import input_option, scan_files, scan_options

drop_options = options(
    click.option("--drop-volumes", metavar="I,J,...", help="Volumes to leave out, counted from 0."),
    click.option("--drop-outliers", is_flag=True, help="Leave out volumes whose residuals are unlike the others'."),
)


def _dropped(volumes: str | None, outliers: bool) -> str | None:
    if volumes is not None and outliers:
        raise click.UsageError("give --drop-volumes or --drop-outliers, not both")
    return "outliers" if outliers else volumes


@click.command()
@click.argument("image")
@click.option("--signal", metavar="S", required=True, help="Physics; see `pyroqmri list signals`.")
@click.option("--recipe", metavar="R", required=True, help="Estimator, a name or a .toml; see `pyroqmri list recipes`.")
@scan_options
@input_option
@click.option("--likelihood", metavar="gaussian|rician", help="In place of the recipe's.")
@click.option("--sigma", type=NumberOrWord(), metavar="X|FILE|estimate|learn", default="estimate", show_default=True,
              help="Noise level.")  # fmt: skip
@click.option("--s0", type=NumberOrWord(), metavar="measured|inferred|VALUE", default="measured", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "settings", type=Setting(toml_value), multiple=True, metavar="TABLE.KEY=VALUE",
              help="Change an entry of the recipe; may be repeated.")  # fmt: skip
@click.option("--fix", type=Setting(float), multiple=True, metavar="NAME=VALUE", help="Fix a parameter at a value.")
@click.option("--tie", type=Setting(str), multiple=True, metavar="NAME=OTHER", help="Set a parameter equal to another.")
@drop_options
@click.option(
    "--khat",
    is_flag=True,
    help="Map the PSIS diagnostic of every voxel; takes as long as all other maps, or several times that.",
)
@click.option("--resume", is_flag=True, help="Go on from where the same command was interrupted.")
@run_options
@debug_option
def fit(
    image: str, signal: str, recipe: str, out: str, sigma: str | float, s0: str | float, settings: Any, fix: Any,
    tie: Any, quiet: bool, likelihood: str | None, seed: int, device: str, drop_volumes: str | None,
    drop_outliers: bool, khat: bool, resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Train RECIPE on IMAGE; write posterior maps, the fit and a report."""
    say_loading(quiet)
    from pyroqmri.commands import fit_image

    folder = fit_image(
        scan_files(image, _dropped(drop_volumes, drop_outliers)), signal=signal, recipe=recipe, out=out,
        likelihood=likelihood, sigma=sigma, s0=s0, seed=seed, device=device, settings=dict(settings), fixed=dict(fix),
        tied=dict(tie), khat=khat, resume=resume, overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    finish(folder, quiet)


@click.command()
@click.argument("fit_dir")
@click.argument("image")
@scan_options
@input_option
@click.option("--sigma", type=NumberOrWord(), metavar="X|FILE|estimate",
              help="Noise level; by default as in the training.")  # fmt: skip
@drop_options
@trust_option
@run_options
@debug_option
def apply(
    fit_dir: str, image: str, out: str, sigma: str | float | None, quiet: bool, drop_volumes: str | None,
    drop_outliers: bool, trust: bool, device: str, overwrite: bool,
) -> None:  # fmt: skip
    """Map IMAGE with the saved fit in FIT_DIR; nothing is trained."""
    say_loading(quiet)
    from pyroqmri.commands import apply_image

    files = scan_files(image, _dropped(drop_volumes, drop_outliers))
    folder = apply_image(
        fit_dir, files, out=out, sigma=sigma, device=device, trust=trust, overwrite=overwrite, progress=not quiet
    )
    finish(folder, quiet)
