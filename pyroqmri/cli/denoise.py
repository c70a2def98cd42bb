"""`pyroqmri denoise`."""

from typing import Any

import click

from pyroqmri.cli.common import (
    NumberOrWord,
    debug_option,
    example,
    finish,
    held_options,
    run_options,
    say_loading,
    seed_option,
    set_option,
    sigma_option,
)
from pyroqmri.cli.files import scan_files, scan_options


@click.command(**example("pyroqmri denoise sub-01_dwi.nii.gz --out out/denoised"))
@click.argument("image")
@click.option(
    "--recipe",
    metavar="R",
    default="denoise_vae",
    show_default=True,
    help="Estimator: denoise_vae, denoise_dae or a .toml.",
)
@click.option("--signal", metavar="S", default="dti", show_default=True, help="Physics of the training signals.")
@click.option("--fit", "fit_dir", metavar="DIR", help="Denoise with this saved denoiser; nothing is trained.")
@scan_options
@sigma_option("X|FILE|estimate|field")
@click.option("--s0", type=NumberOrWord(), metavar="measured|VALUE", default="measured", show_default=True,
              help="Signal without encoding: each voxel's own b0 volumes, or a known value.")  # fmt: skip
@seed_option
@set_option("schedule.epochs=20")
@held_options
@click.option("--resume", is_flag=True, help="Go on from where the same command was interrupted.")
@run_options
@debug_option
def denoise(
    image: str, recipe: str, signal: str, fit_dir: str | None, out: str, quiet: bool, sigma: str | float,
    s0: str | float, seed: int, settings: Any, fix: Any, tie: Any, device: str, resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Denoise IMAGE with a network trained for its protocol; write it, what was removed, and a report."""
    say_loading(quiet)
    from pyroqmri.commands import denoise_image

    folder = denoise_image(
        scan_files(image), recipe=recipe, signal=signal, fit_dir=fit_dir, out=out, sigma=sigma, s0=s0, seed=seed,
        device=device, settings=dict(settings), fixed=dict(fix), tied=dict(tie), resume=resume,
        overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    finish(folder, quiet)
