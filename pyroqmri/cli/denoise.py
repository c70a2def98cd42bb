"""`pyroqmri denoise`."""

from typing import Any

import click

from pyroqmri.cli.common import (
    Setting,
    debug_option,
    finish,
    number_or_word,
    run_options,
    say_loading,
    toml_value,
)


@click.command()
@click.argument("image")
@click.option(
    "--recipe", metavar="R", default="denoise_vae", show_default=True, help="denoise_vae, denoise_dae or a .toml."
)
@click.option("--signal", metavar="S", default="dti", show_default=True, help="Physics of the training signals.")
@click.option("--fit", "fit_dir", metavar="DIR", help="Use a denoiser that was saved; nothing is trained.")
@click.option("--bval", metavar="FILE", help="b-values; s/mm2 and ms/um2 are recognised.")
@click.option("--bvec", metavar="FILE", help="Gradient directions, 3 x M or M x 3.")
@click.option("--te", metavar="FILE", help="Echo times, one a volume.")
@click.option("--json", metavar="FILE", help="BIDS sidecar of the image.")
@click.option("--mask", metavar="FILE", help="Voxels to denoise; without one a mask is made.")
@click.option("--sigma", metavar="X|FILE|estimate", default="estimate", show_default=True, help="Noise level.")
@click.option("--s0", metavar="measured|VALUE", default="measured", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "settings", type=Setting(toml_value), multiple=True, metavar="TABLE.KEY=VALUE",
              help="Change an entry of the recipe, such as targets.source=scan; may be repeated.")  # fmt: skip
@run_options
@debug_option
def denoise(
    image: str, recipe: str, signal: str, fit_dir: str | None, out: str, quiet: bool, bval: str | None,
    bvec: str | None, te: str | None, json: str | None, mask: str | None, sigma: str, s0: str, seed: int,
    settings: Any, device: str, overwrite: bool,
) -> None:  # fmt: skip
    """Denoise IMAGE with a network trained for its protocol; write it, what was removed, and a report."""
    say_loading(quiet)
    from pyroqmri.commands import denoise_image

    level, reference = number_or_word(sigma), number_or_word(s0)
    assert level is not None and reference is not None
    folder = denoise_image(
        image, recipe=recipe, signal=signal, fit_dir=fit_dir, out=out, bval=bval, bvec=bvec, te=te, json=json,
        mask=mask, sigma=level, s0=reference, seed=seed, device=device, settings=dict(settings),
        overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    finish(folder, quiet)
