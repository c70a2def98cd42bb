"""`pyroqmri fits`."""

import click

from pyroqmri.cli.common import debug_option, out_option, overwrite_option, table


@click.group()
def fits() -> None:
    """Fits to share: what there is, what one has learned, and how to hand one on.

    `apply`, `design` and `check` take the name of a fit that comes with the package in place of a folder.
    """


@fits.command(name="list")
@click.argument("folder", required=False, metavar="[DIR]")
@debug_option
def list_fits(folder: str | None) -> None:
    """Fits that come with the package, or that lie in DIR, one a line."""
    from pyroqmri.commands.fits import fit_rows

    table([("NAME", "SIGNAL", "RECIPE", "VOXELS", "LICENCE", "SOURCE"), *fit_rows(folder)])


@fits.command()
@click.argument("name", metavar="NAME|DIR|ZIP")
@debug_option
def show(name: str) -> None:
    """The card of a fit: signal, population, protocol, noise, calibration, licence and citation."""
    from pyroqmri.commands.fits import fit_card

    table(fit_card(name))


@fits.command()
@click.argument("name", metavar="NAME|DIR|ZIP")
@out_option
@overwrite_option
@debug_option
def use(name: str, out: str, overwrite: bool) -> None:
    """Copy a fit to a folder of its own, for `pyroqmri apply`."""
    from pyroqmri.commands.fits import use_fit

    click.echo(use_fit(name, out, overwrite))


@fits.command()
@click.argument("fit_dir")
@click.option("--licence", required=True, metavar="TEXT", help="Terms of the data that it learned from.")
@click.option("--citation", required=True, metavar="TEXT", help="What to cite.")
@click.option("--source", required=True, metavar="TEXT", help="Which scan, on which scanner.")
@out_option
@overwrite_option
@debug_option
def share(fit_dir: str, licence: str, citation: str, source: str, out: str, overwrite: bool) -> None:
    """Write the fit of FIT_DIR alone, with its card: no maps and no voxels."""
    from pyroqmri.commands.fits import share_fit

    click.echo(share_fit(fit_dir, out=out, licence=licence, citation=citation, source=source, overwrite=overwrite))
