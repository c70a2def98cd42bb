"""The command line; everything heavy is imported inside the command that needs it."""

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

import click

from pyroqmri import __version__
from pyroqmri.cli import demo as showing
from pyroqmri.cli import denoise
from pyroqmri.cli import fit as fitting
from pyroqmri.cli.check import check
from pyroqmri.cli.cohort import cohort
from pyroqmri.cli.compare import compare
from pyroqmri.cli.design import design
from pyroqmri.cli.export import export
from pyroqmri.cli.fits import fits
from pyroqmri.cli.groups import Grouped
from pyroqmri.cli.join import join
from pyroqmri.cli.listing import list_group
from pyroqmri.cli.simulate import simulate
from pyroqmri.cli.stop import Stopped, stoppable
from pyroqmri.errors import InputError, TrainingError

DONE, CHECK_FAILED, WRONG, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130


@click.group(cls=Grouped, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pyroqmri")
def cli() -> None:
    """Probabilistic programming for quantitative MRI: parameter maps with honest uncertainty.

    Start with `pyroqmri demo`, then `pyroqmri fit IMAGE --signal S --recipe R --out DIR`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a check did not hold, 2 wrong input or call, 130 interrupted.

    Other signals that end it give 128 and their number: 143 SIGTERM, 129 SIGHUP.
    """
    # steps are small: a second thread waits more than it works, and many times so on a busy machine
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if not debug:
        warnings.simplefilter("ignore")
    try:
        with stoppable():
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
        cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        word, code = (cause.word, cause.code) if isinstance(cause, Stopped) else ("interrupted", INTERRUPTED)
        return _say(word, cause, code)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a command alone asks what there is
        click.echo(error.format_message())
        return DONE
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        where = f" (see {context.command_path} --help)" if context is not None else ""
        return _say(f"error: {error.format_message()}{where}", None, WRONG)
    if isinstance(error, InputError | TrainingError):
        return _say(f"error: {error}", error, WRONG)
    if isinstance(error, OSError):
        return _say(f"error: {_what_failed(error)}", error, WRONG)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return _say(f"error: {what}; this is a defect of pyroqmri, --debug shows where", error, DEFECT)


def _what_failed(error: OSError) -> str:
    what = f"{error.strerror}: {error.filename}" if error.filename else str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{what}; free some space, or give another --out" if full else what


def _say(line: str, error: BaseException | None, code: int) -> int:
    notes = getattr(error, "__notes__", [])
    click.echo("; ".join(" ".join(part.split()) for part in (line, *notes)), err=True)
    return code


reading = (fits, showing.report, list_group, export)
working = (showing.demo, fitting.fit, fitting.apply, compare, check, design, simulate, join, denoise.denoise, cohort)
for command in (*working, *reading):
    cli.add_command(command)
