"""`pyroqmri join`."""

import click

from pyroqmri.cli.common import debug_option, say_loading


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--out", metavar="FILE", required=True, help="Image to write; its sidecar comes beside it.")
@click.option("--overwrite", is_flag=True, help="Replace an image that is there.")
@click.option("--quiet", is_flag=True, help="Print only the image's name.")
@debug_option
def join(images: tuple[str, ...], out: str, overwrite: bool, quiet: bool) -> None:
    """Write the images of a series, one an echo, inversion or flip angle, as one image that `fit` reads.

    Each brings its settings in its own BIDS sidecar.
    """
    say_loading(quiet)
    from pyroqmri.commands.join import join_images

    path, acquisition = join_images(images, out=out, overwrite=overwrite)
    if not quiet:
        names = ", ".join(acquisition.settings())
        click.echo(f"note: {len(acquisition)} volumes, with {names} from the sidecars", err=True)
    click.echo(path)
