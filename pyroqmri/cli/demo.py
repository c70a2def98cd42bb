"""`pyroqmri demo` and `report`."""

import click

from pyroqmri.cli.common import debug_option, example, overwrite_option, quiet_option, say_loading, table


@click.command(**example("pyroqmri demo --out out/demo"))
@click.option("--out", metavar="DIR", default="out/demo", show_default=True,
              help="Folder to write; must be new or empty.")  # fmt: skip
@click.option("--dataset", metavar="b1k_b2k|small", default="b1k_b2k", show_default=True,
              help="Real brain to fit; small is a crop too small to look at, and needs no network.")  # fmt: skip
@overwrite_option
@quiet_option
@debug_option
def demo(out: str, dataset: str, overwrite: bool, quiet: bool) -> None:
    """Fit a real brain that the package gets by itself, and show what it found."""
    say_loading(quiet)
    from pyroqmri.commands.demo.demo import run_demo
    from pyroqmri.commands.demo.index import demo_table, read_demo

    folder = run_demo(out, dataset, overwrite=overwrite, progress=not quiet)
    record = read_demo(folder)
    kept, every = len(record["volumes"]["kept"]), record["volumes"]["all"]
    click.echo(f"estimates from {kept} of {every} volumes, against least squares (LS) on all of them:")
    table(demo_table(record))
    click.echo(f"look at {folder / 'report.html'} and {folder / 'headline.png'}")


@click.command(**example("pyroqmri report out/sub-01"))
@click.argument("folder", metavar="DIR")
@click.option(
    "--viewer/--no-viewer",
    default=True,
    show_default=True,
    help="Put the slice viewer into the page of a fit; 0.5 MB and up to 8 MB more for a large scan.",
)
@debug_option
def report(folder: str, viewer: bool) -> None:
    """Rebuild the HTML report of an output folder from the files in it."""
    from pyroqmri.commands import rebuild_report

    click.echo(rebuild_report(folder, viewer))
