"""The command line; everything heavy is imported inside the command that needs it."""

import os
import sys
import tomllib
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pyroqmri import __version__
from pyroqmri.errors import InputError, TrainingError

DONE, CHECK_FAILED, WRONG, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130
Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pyroqmri")
def cli() -> None:
    """Probabilistic programming for quantitative MRI: parameter maps with honest uncertainty.

    Start with `pyroqmri demo`, then `pyroqmri fit IMAGE --signal S --recipe R --out DIR`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check did not hold, 2 wrong input or call, 130 interrupted."""
    # steps are small: a second thread waits more than it works, and many times so on a busy machine
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if not debug:
        warnings.simplefilter("ignore")
    try:
        code = cli.main(args=words, prog_name="pyroqmri", standalone_mode=False)
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            traceback.print_exc()
        code = _explain(error)
    sys.exit(code if isinstance(code, int) else DONE)


def _explain(error: BaseException) -> int:
    """Say in a line what went wrong; the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else WRONG
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return _say("interrupted", error if isinstance(error, KeyboardInterrupt) else error.__cause__, INTERRUPTED)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        where = f" (see {context.command_path} --help)" if context is not None else ""
        return _say(f"error: {error.format_message()}{where}", None, WRONG)
    if isinstance(error, InputError | TrainingError):
        return _say(f"error: {error}", error, WRONG)
    if isinstance(error, OSError):
        return _say(f"error: {error.strerror}: {error.filename}" if error.filename else f"error: {error}", error, WRONG)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return _say(f"error: {what}; this is a defect of pyroqmri, --debug shows where", error, DEFECT)


def _say(line: str, error: BaseException | None, code: int) -> int:
    notes = getattr(error, "__notes__", [])
    click.echo("; ".join(" ".join(part.split()) for part in (line, *notes)), err=True)
    return code


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


def number_or_word(text: str | None) -> str | float | None:
    """A number where the text is one."""
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def options(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """One decorator of several, in the order in which help shows them."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


scan_options = options(
    click.option("--bval", metavar="FILE", help="b-values; s/mm2 and ms/um2 are recognised."),
    click.option("--bvec", metavar="FILE", help="Gradient directions, 3 x M or M x 3."),
    click.option("--te", metavar="FILE", help="Echo times, one a volume."),
    click.option("--ti", metavar="FILE", help="Inversion times, one a volume."),
    click.option("--tr", metavar="FILE", help="Repetition times, one a volume."),
    click.option("--flip", metavar="FILE", help="Flip angles, one a volume."),
    click.option("--json", metavar="FILE", help="BIDS sidecar of the image."),
    click.option("--mask", metavar="FILE", help="Voxels to fit; without one a mask is made."),
)
run_options = options(
    click.option("--out", metavar="DIR", required=True, help="Folder to write; must be new or empty."),
    click.option("--device", metavar="auto|cpu|cuda", default="auto", show_default=True),
    click.option("--overwrite", is_flag=True, help="Replace an output folder that pyroqmri wrote."),
    click.option("--quiet", is_flag=True, help="No progress; warnings are still shown."),
)
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error came from.")


@cli.command()
@click.argument("image")
@click.option("--signal", metavar="S", required=True, help="Physics; see `pyroqmri list signals`.")
@click.option("--recipe", metavar="R", required=True, help="Estimator, a name or a .toml; see `pyroqmri list recipes`.")
@scan_options
@click.option("--likelihood", metavar="gaussian|rician", help="In place of the recipe's.")
@click.option("--sigma", metavar="X|FILE|estimate|learn", default="estimate", show_default=True, help="Noise level.")
@click.option("--s0", metavar="measured|inferred|VALUE", default="measured", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--set", "settings", type=Setting(toml_value), multiple=True, metavar="TABLE.KEY=VALUE",
              help="Change an entry of the recipe; may be repeated.")  # fmt: skip
@click.option("--fix", type=Setting(float), multiple=True, metavar="NAME=VALUE", help="Hold a parameter at a value.")
@click.option("--tie", type=Setting(str), multiple=True, metavar="NAME=OTHER", help="Make a parameter equal another.")
@click.option("--resume", is_flag=True, help="Go on from where the same command was interrupted.")
@run_options
@debug_option
def fit(
    image: str, signal: str, recipe: str, out: str, sigma: str, s0: str, settings: Any, fix: Any, tie: Any,
    quiet: bool, bval: str | None, bvec: str | None, te: str | None, ti: str | None, tr: str | None,
    flip: str | None, json: str | None, mask: str | None, likelihood: str | None, seed: int, device: str,
    resume: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Train RECIPE on IMAGE; write posterior maps, the fit and a report."""
    _progress("loading pyroqmri", quiet)
    from pyroqmri.pipeline import fit_image

    level, reference = number_or_word(sigma), number_or_word(s0)
    assert level is not None and reference is not None
    folder = fit_image(
        image, signal=signal, recipe=recipe, out=out, bval=bval, bvec=bvec, te=te, ti=ti, tr=tr, flip=flip, json=json,
        mask=mask, likelihood=likelihood, sigma=level, s0=reference, seed=seed, device=device, settings=dict(settings),
        fixed=dict(fix), tied=dict(tie), resume=resume, overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    _finish(folder, quiet)


@cli.command()
@click.argument("fit_dir")
@click.argument("image")
@scan_options
@click.option("--sigma", metavar="X|FILE|estimate", help="Noise level; by default as in the training.")
@run_options
@debug_option
def apply(
    fit_dir: str, image: str, out: str, sigma: str | None, quiet: bool, bval: str | None, bvec: str | None,
    te: str | None, ti: str | None, tr: str | None, flip: str | None, json: str | None, mask: str | None,
    device: str, overwrite: bool,
) -> None:  # fmt: skip
    """Map IMAGE with the saved fit in FIT_DIR; nothing is trained."""
    _progress("loading pyroqmri", quiet)
    from pyroqmri.pipeline import apply_image

    folder = apply_image(
        fit_dir, image, out=out, bval=bval, bvec=bvec, te=te, ti=ti, tr=tr, flip=flip, json=json, mask=mask,
        sigma=number_or_word(sigma), device=device, overwrite=overwrite, progress=not quiet,
    )  # fmt: skip
    _finish(folder, quiet)


@cli.command()
@click.option("--out", metavar="DIR", default="out/demo", show_default=True)
@click.option("--dataset", metavar="b1k_b2k|small", default="b1k_b2k", show_default=True)
@click.option("--quiet", is_flag=True, help="No progress.")
@debug_option
def demo(out: str, dataset: str, quiet: bool) -> None:
    """Fit a real brain that the package gets by itself, and show what it found."""
    _progress("loading pyroqmri", quiet)
    from pyroqmri.pipeline import demo_table, read_demo, run_demo

    folder = run_demo(out, dataset, progress=not quiet)
    record = read_demo(folder)
    kept, every = len(record["volumes"]["kept"]), record["volumes"]["all"]
    click.echo(f"estimates from {kept} of {every} volumes, against least squares (LS) on all of them:")
    _table(demo_table(record))
    click.echo(f"look at {folder / 'report.html'} and {folder / 'headline.png'}")


@cli.command()
@click.argument("folder", metavar="DIR")
@debug_option
def report(folder: str) -> None:
    """Rebuild the HTML report of an output folder from the files in it."""
    from pyroqmri.pipeline import rebuild_report

    click.echo(rebuild_report(folder))


@cli.group(name="list")
def list_group() -> None:
    """What there is: recipes and signals."""


@list_group.command()
@debug_option
def recipes() -> None:
    """Declared estimators, one a line."""
    from pyroqmri.recipe import list_recipes

    _table([("RECIPE", "ESTIMATOR", "WHAT IT IS"), *((r.name, r.estimator, r.doc) for r in list_recipes())])


@list_group.command()
@debug_option
def signals() -> None:
    """Physics: each signal's parameters with units and bounds."""
    from pyroqmri.signals import SIGNALS

    rows: list[tuple[str, ...]] = [("SIGNAL", "NEEDS", "PARAMETER", "UNIT", "BOUNDS", "WHAT IT IS")]
    for name, signal in SIGNALS.items():
        first = (name, " ".join(signal.requires))
        for p in (*signal.parameters, *signal.derived_parameters):
            bounds = "" if p.is_direction else f"{p.lower:.3g} to {p.upper:.3g}"
            derived = " (derived)" if p in signal.derived_parameters else ""
            rows.append((*first, p.name, p.unit, bounds, p.doc + derived))
            first = ("", "")
    _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _progress(line: str, quiet: bool) -> None:
    # importing torch and Pyro takes seconds, and silence looks like a fault
    if not quiet and sys.stderr.isatty():
        click.echo(f"{line} ...", err=True)


def _finish(folder: Path, quiet: bool) -> None:
    """Say what the fit's own record warns of, and where to look."""
    import json

    record = json.loads((folder / "fit" / "fit.json").read_text())
    if not quiet:
        for note in (*record["notes"], record["sigma"]["note"]):
            click.echo(f"note: {note}", err=True)
    for warning in record["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    click.echo(folder / "report.html")
