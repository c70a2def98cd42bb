"""`pyroqmri demo`, `report` and `list`."""

import click

from pyroqmri.cli.common import debug_option, say_loading, table


@click.command()
@click.option("--out", metavar="DIR", default="out/demo", show_default=True)
@click.option("--dataset", metavar="b1k_b2k|small", default="b1k_b2k", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace an output folder that pyroqmri wrote.")
@click.option("--quiet", is_flag=True, help="No progress.")
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


@click.command()
@click.argument("folder", metavar="DIR")
@debug_option
def report(folder: str) -> None:
    """Rebuild the HTML report of an output folder from the files in it."""
    from pyroqmri.commands import rebuild_report

    click.echo(rebuild_report(folder))


@click.group(name="list")
def list_group() -> None:
    """What there is: recipes and signals."""


@list_group.command()
@debug_option
def recipes() -> None:
    """Declared estimators, one a line."""
    from pyroqmri.fitting.schema import list_recipes

    table([("RECIPE", "ESTIMATOR", "WHAT IT IS"), *((r.name, r.estimator, r.doc) for r in list_recipes())])


@list_group.command()
@debug_option
def signals() -> None:
    """Physics: each signal's parameters with units and bounds."""
    from pyroqmri.parameter import Parameter
    from pyroqmri.signals import SIGNALS

    rows: list[tuple[str, ...]] = [("SIGNAL", "NEEDS", "PARAMETER", "UNIT", "BOUNDS", "WHAT IT IS")]
    for name, signal in SIGNALS.items():
        first = (name, " ".join(signal.requires))
        for p in (*signal.parameters, *signal.derived_parameters):
            bounds = f"{p.lower:.3g} to {p.upper:.3g}" if isinstance(p, Parameter) else ""
            derived = " (derived)" if p in signal.derived_parameters else ""
            rows.append((*first, p.name, p.unit, bounds, p.doc + derived))
            first = ("", "")
    table(rows)
