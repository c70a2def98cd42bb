"""`pyroqmri export`."""

import click

from pyroqmri.cli.common import debug_option, example, overwrite_option, quiet_option, say_loading, seed_option
from pyroqmri.cli.files import scan_files, scan_options


@click.command(**example("pyroqmri export out/sticks --bedpostx"))
@click.argument("fit_dir", metavar="DIR")
@click.argument("image", required=False)
@click.option("--bedpostx", is_flag=True, help="Samples of sticks under the names of FSL's bedpostx.")
@click.option("--out", metavar="DIR", help="Folder to write. [default: DIR.bedpostX]")
@click.option("--samples", type=click.IntRange(2), default=50, show_default=True, metavar="N",
              help="Posterior samples per voxel.")  # fmt: skip
@seed_option
@scan_options
@overwrite_option
@quiet_option
@debug_option
def export(
    fit_dir: str, image: str | None, bedpostx: bool, out: str | None, samples: int, seed: int, overwrite: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Write a fit's posterior samples for other programs; IMAGE is the one that was fitted, where it has moved."""
    if not bedpostx:
        raise click.UsageError("name what to write: --bedpostx")
    say_loading(quiet)
    from pyroqmri.commands.export import export_bedpostx

    files = None if image is None else scan_files(image)
    click.echo(
        export_bedpostx(fit_dir, files, out=out, n_samples=samples, seed=seed, overwrite=overwrite, progress=not quiet)
    )
