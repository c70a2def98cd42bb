"""Options that commands share, and what they print."""

import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class Setting(click.ParamType):
    """``NAME=VALUE``; ``parse`` reads the value."""

    name = "name=value"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self.parse = parse

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, Any]:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.strip() or not text.strip():
            self.fail(f"{value!r} must read NAME=VALUE", param, ctx)
        try:
            return key.strip(), self.parse(text.strip())
        except ValueError:
            self.fail(f"{value!r}: {text!r} is not a number", param, ctx)


def toml_value(text: str) -> Any:
    """A value as TOML reads it; what it cannot read is a word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def number_or_word(text: str) -> str | float:
    """A number where the text is one."""
    try:
        return float(text)
    except ValueError:
        return text


class NumberOrWord(click.ParamType):
    """A number where the text is one; anything else stays as it is."""

    name = "number or word"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | float:
        """A number, or the text."""
        return number_or_word(value) if isinstance(value, str) else value


def options(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """One decorator of several, in the order in which help shows them."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


SECTIONS = {
    "Signal and estimator": (
        "signal",
        "signals",
        "recipe",
        "recipes",
        "likelihood",
        "coils",
        "sigma",
        "s0",
        "settings",
        "fix",
        "tie",
    ),
    "Files": (
        "bval",
        "bvec",
        "te",
        "ti",
        "tr",
        "flip",
        "offset",
        "mt",
        "averages",
        "json",
        "mask",
        "inputs",
        "weights",
        "grad_dev",
        "resample",
    ),
    "Volumes to leave out": ("drop_volumes", "drop_outliers", "bmax"),
    "Output": ("out", "overwrite", "quiet", "debug", "help"),
}


class Sectioned(click.Command):
    """A command whose help shows its options in groups; those of no group come before the output's."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section a group."""
        place = {name: title for title, names in SECTIONS.items() for name in names}
        *first, last = SECTIONS
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in (*first, "Run", last)}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                name = "help" if "--help" in parameter.opts else parameter.name or ""
                rows[place.get(name, "Run")].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def example(line: str) -> dict[str, Any]:
    """The settings of a command with sections in its help and an example under it."""
    return {"cls": Sectioned, "epilog": f"\b\nExample:\n  {line}"}


likelihood_option = click.option(
    "--likelihood",
    metavar="gaussian|rician|ncchi",
    help="In place of the recipe's; ncchi is a sum of squares over --coils N coils.",
)


def coils_option(words: str) -> Callable[[Command], Command]:
    """``--coils``, a number, and the word that a command knows."""
    return click.option(
        "--coils", type=float if words == "N" else NumberOrWord(), metavar=words,
        help="Coils whose sum of squares the magnitudes are roots of; their likelihood is ncchi.",
    )  # fmt: skip


s0_option = click.option(
    "--s0", type=NumberOrWord(), metavar="measured|inferred|VALUE", default="measured", show_default=True,
    help="Signal without encoding: each voxel's own b0 volumes, a parameter, or a known value.",
)  # fmt: skip


def set_option(entry: str = "training.steps=2000") -> Callable[[Command], Command]:
    """``--set`` with an entry that the command's recipes have as the example."""
    return click.option(
        "--set", "settings", type=Setting(toml_value), multiple=True, metavar="TABLE.KEY=VALUE",
        help=f"Change an entry of the recipe, such as {entry}; may be repeated.",
    )  # fmt: skip


held_options = options(
    click.option("--fix", type=Setting(float), multiple=True, metavar="NAME=VALUE", help="Fix a parameter at a value."),
    click.option("--tie", type=Setting(str), multiple=True, metavar="NAME=OTHER",
                 help="Set a parameter equal to another."),
)  # fmt: skip
model_options = options(likelihood_option, s0_option, set_option(), held_options)


def sigma_option(words: str, default: str | None = "estimate", more: str = "") -> Callable[[Command], Command]:
    """``--sigma`` with the words that a command knows."""
    shown = default is not None
    return click.option(
        "--sigma", type=NumberOrWord(), metavar=words, default=default, show_default=shown, help=f"Noise level{more}."
    )


out_option = click.option("--out", metavar="DIR", required=True, help="Folder to write; must be new or empty.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an output folder that pyroqmri wrote.")
quiet_option = click.option(
    "--quiet", is_flag=True, help="No progress and no notes; warnings and results are still shown."
)
run_options = options(
    out_option,
    click.option("--device", metavar="auto|cpu|cuda", default="auto", show_default=True,
                 help="Where to compute; auto is a GPU where there is one."),
    overwrite_option,
    quiet_option,
)  # fmt: skip
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
    help="Of the random numbers: the same seed gives the same result.",
)  # fmt: skip
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="Processes that share the maps, each with one thread; starting one takes some seconds.",
)  # fmt: skip
trust_option = click.option(
    "--trust", is_flag=True, help="Import classes that the fit names from outside pyroqmri; runs their code."
)
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error came from.")


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say_loading(quiet: bool) -> None:
    """Say on a terminal that something is going on."""
    # importing torch and Pyro takes seconds, and silence looks like a fault
    if not quiet and sys.stderr.isatty():
        click.echo("loading pyroqmri ...", err=True)


def say(notes: Sequence[str], warnings: Sequence[str], quiet: bool) -> None:
    """Notes, unless quiet, and warnings on standard error, a line each."""
    for note in () if quiet else notes:
        click.echo(f"note: {note}", err=True)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def finish(folder: Path, quiet: bool) -> None:
    """Say what the fit's own record warns of, and where to look."""
    record = json.loads((folder / "fit" / "fit.json").read_text())
    say((*record["notes"], record["sigma"]["note"]), record["warnings"], quiet)
    click.echo(folder / "report.html")
