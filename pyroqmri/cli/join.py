"""`pyroqmri join`."""

import click

from pyroqmri.cli.common import debug_option, example, quiet_option, say_loading


@click.command(**example("pyroqmri join sub-01_echo-1_MESE.nii.gz sub-01_echo-2_MESE.nii.gz --out sub-01_MESE.nii.gz"))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--out", metavar="FILE", required=True, help="Image to write; its sidecar comes beside it.")
@click.option("--overwrite", is_flag=True, help="Replace an image that is there.")
@quiet_option
@debug_option
def join(images: tuple[str, ...], out: str, overwrite: bool, quiet: bool) -> None:
    """Write the images of a series, one an echo, inversion or flip angle, as one image that `fit` reads.

    Each brings its settings in its BIDS sidecars; they are printed volume by volume. Phase images, other contrasts
    and copied sidecars are refused by name.
    """
    say_loading(quiet)
    from pyroqmri.commands.join import join_series, settings_table

    joined = join_series(images, out=out, overwrite=overwrite)
    for warning in joined.warnings:
        click.echo(f"warning: {warning}", err=True)
    if not quiet:
        names = ", ".join(joined.acquisition.settings())
        click.echo(f"note: {len(joined.acquisition)} volumes, with {names} from the sidecars", err=True)
        for note in joined.notes:
            click.echo(f"note: {note}", err=True)
        for line in settings_table(joined):
            click.echo(line, err=True)
    click.echo(joined.path)
