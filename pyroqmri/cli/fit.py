"""`pyroqmri fit` and `pyroqmri apply`."""

from typing import Any

import click

from pyroqmri.cli.common import (
    coils_option,
    debug_option,
    example,
    finish,
    jobs_option,
    model_options,
    run_options,
    say_loading,
    seed_option,
    sigma_option,
    trust_option,
)
from pyroqmri.cli.files import scan_files, scan_options


@click.command(**example("pyroqmri fit sub-01_dwi.nii.gz --signal msdki --recipe hierarchical --out out/sub-01"))
@click.argument("image")
@click.option("--signal", metavar="S", required=True, help="Physics; see `pyroqmri list signals`.")
@click.option("--recipe", metavar="R", required=True, help="Estimator, a name or a .toml; see `pyroqmri list recipes`.")
@scan_options
@coils_option("N|learn")
@model_options
@sigma_option("X|FILE|estimate|field|learn")
@seed_option
@click.option(
    "--khat",
    is_flag=True,
    help="Map the PSIS diagnostic of every voxel; takes as long as all other maps, or several times that.",
)
@click.option(
    "--predictive/--no-predictive",
    default=True,
    show_default=True,
    help="Keep a tenth of the volumes aside and record how often 90 % predictive intervals contain them.",
)
@click.option("--resume", is_flag=True, help="Go on from where the same command was interrupted.")
@jobs_option
@run_options
@debug_option
def fit(
    image: str, signal: str, recipe: str, out: str, sigma: str | float, s0: str | float, settings: Any, fix: Any,
    tie: Any, quiet: bool, likelihood: str | None, coils: float | str | None, seed: int, device: str,
    khat: bool, predictive: bool, resume: bool, jobs: int, overwrite: bool,
) -> None:  # fmt: skip
    """Train RECIPE on IMAGE; write posterior maps, the fit and a report."""
    say_loading(quiet)
    from pyroqmri.commands import fit_image

    folder = fit_image(
        scan_files(image), signal=signal, recipe=recipe, out=out, likelihood=likelihood, coils=coils,
        sigma=sigma, s0=s0, seed=seed, device=device, settings=dict(settings), fixed=dict(fix), tied=dict(tie),
        khat=khat, predictive=predictive, resume=resume, jobs=jobs, overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    finish(folder, quiet)


@click.command(**example("pyroqmri apply out/sub-01 sub-02_dwi.nii.gz --out out/sub-02"))
@click.argument("fit_dir")
@click.argument("image")
@scan_options
@sigma_option("X|FILE|estimate|field", None, "; by default as in the training")
@click.option(
    "--retrain",
    is_flag=True,
    help="On another protocol, train what depends on it: a network, or the guide of recipe uniform.",
)
@trust_option
@jobs_option
@run_options
@debug_option
def apply(
    fit_dir: str, image: str, out: str, sigma: str | float | None, retrain: bool, quiet: bool, trust: bool,
    device: str, jobs: int, overwrite: bool,
) -> None:  # fmt: skip
    """Map IMAGE, of the fit's protocol or another, with the saved fit in FIT_DIR; nothing is trained."""
    say_loading(quiet)
    from pyroqmri.commands import apply_image

    folder = apply_image(
        fit_dir, scan_files(image), out=out, sigma=sigma, device=device, trust=trust, retrain=retrain,
        jobs=jobs, overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    finish(folder, quiet)
