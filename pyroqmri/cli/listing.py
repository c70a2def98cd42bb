"""`pyroqmri list`: the signals and recipes that there are."""

from typing import TYPE_CHECKING

import click

from pyroqmri.cli.common import debug_option, table

if TYPE_CHECKING:
    from pyroqmri.acquisition import Acquisition
    from pyroqmri.signals import SignalModel


@click.group(name="list", invoke_without_command=True)
@click.pass_context
def list_group(context: click.Context) -> None:
    """What there is: recipes and signals; alone, the names of both."""
    if context.invoked_subcommand is not None:
        return
    from pyroqmri.fitting.schema import list_recipes
    from pyroqmri.signals import SIGNALS

    click.echo("signals (pyroqmri list signals: parameters, units, bounds)")
    table([(f"  {name}", _title(signal)) for name, signal in SIGNALS.items()])
    click.echo("recipes (pyroqmri list recipes)")
    table([(f"  {recipe.name}", recipe.doc) for recipe in list_recipes()])


def _title(signal: type) -> str:
    """The first line of a signal's docstring."""
    return (signal.__doc__ or "").strip().splitlines()[0].rstrip(".")


@list_group.command()
@debug_option
def recipes() -> None:
    """Declared estimators, one a line."""
    from pyroqmri.fitting.schema import list_recipes

    table([("RECIPE", "ESTIMATOR", "WHAT IT IS"), *((r.name, r.estimator, r.doc) for r in list_recipes())])


@list_group.command()
@click.option(
    "--long", "detailed", is_flag=True, help="Protocol, maps with their suffixes, and source of each as well."
)
@click.argument("names", nargs=-1, metavar="[SIGNAL]...")
@debug_option
def signals(detailed: bool, names: tuple[str, ...]) -> None:
    """Physics: each signal's parameters with units and bounds; of the named signals only, where some are named."""
    from pyroqmri.measurements.arguments import as_signal
    from pyroqmri.signals import SIGNALS

    chosen = {name: as_signal(name) for name in names} or SIGNALS
    if not detailed:
        rows: list[tuple[str, ...]] = [("SIGNAL", "NEEDS", "PARAMETER", "UNIT", "BOUNDS", "WHAT IT IS")]
        for name, signal in chosen.items():
            first = (name, " ".join(signal.requires))
            for row in _quantities(signal):
                rows.append((*first, *row))
                first = ("", "")
        return table(rows)
    for number, (name, signal) in enumerate(chosen.items()):
        click.echo("\n" * bool(number) + f"{name}: {_title(signal)}")
        table([(f"  {what}", text) for what, text in _facts(signal) if text])
        table([("  PARAMETER", "UNIT", "BOUNDS", "SUFFIX", "WHAT IT IS"), *_rows_with_suffix(signal)])


def _quantities(signal: "type[SignalModel]") -> list[tuple[str, str, str, str]]:
    """Name, unit, bounds and meaning of each parameter and derived quantity."""
    from pyroqmri.parameter import Parameter

    rows = []
    for p in (*signal.parameters, *signal.derived_parameters):
        bounds = f"{p.lower:.4g} to {p.upper:.4g}" if isinstance(p, Parameter) else ""
        derived = " (derived)" if p in signal.derived_parameters else ""
        rows.append((p.name, p.unit, bounds, p.doc + derived))
    return rows


def _rows_with_suffix(signal: "type[SignalModel]") -> list[tuple[str, ...]]:
    from pyroqmri.io.map_names import map_suffix

    return [
        (f"  {name}", unit, bounds, map_suffix(name, signal.suffix), doc)
        for name, unit, bounds, doc in _quantities(signal)
    ]


def _facts(signal: "type[SignalModel]") -> list[tuple[str, str]]:
    """What a signal needs, may use and is measured with by default."""
    return [
        ("needs", " ".join(f"--{name}" for name in signal.requires)),
        ("uses where found", " ".join(f"--{name}" for name in signal.optional)),
        ("takes per voxel", " ".join(f"--input {name}=FILE" for name in signal.inputs)),
        ("fixed unless freed", ", ".join(f"{name} {value:g}" for name, value in signal.held.items())),
        ("describes", "" if signal.reach is None else f"b up to {1000 * signal.reach:g} s/mm2"),
        ("data", "with their sign" if signal.signed else "magnitudes"),
        ("simulated scan", _protocol(signal.default_protocol)),
        ("source", signal.source),
    ]


_UNITS = {"bval": "ms/um2", "te": "ms", "ti": "ms", "tr": "ms", "flip": "degrees", "offset": "ppm"}


def _protocol(acq: "Acquisition | None") -> str:
    """Settings of a protocol in a line: how many measurements, and the values of each setting."""
    if acq is None:
        return ""
    parts = []
    for name, values in acq.settings().items():
        if name == "bvec":
            continue
        distinct = (values.double().rad2deg() if name == "flip" else values).unique()
        shown = [f"{float(v):.4g}" for v in distinct[:12]] + ["..."] * (len(distinct) > 12)
        parts.append(" ".join(word for word in (name, *shown, _UNITS.get(name)) if word))
    return f"{len(acq)} measurements: {', '.join(parts)}"
