"""`pyroqmri design`."""

from collections.abc import Callable
from typing import Any

import click

from pyroqmri.cli.common import (
    NumberOrWord,
    debug_option,
    example,
    options,
    out_option,
    overwrite_option,
    quiet_option,
    say_loading,
    seed_option,
    trust_option,
)
from pyroqmri.cli.files import SETTINGS

PREFIX = "candidates_"


def _candidate_option(name: str, doc: str) -> Callable[[Any], Any]:
    return click.option(
        f"--candidates-{name}", f"{PREFIX}{name}", metavar="N|FILE" if name == "averages" else "FILE",
        type=NumberOrWord() if name == "averages" else None, help=doc,
    )  # fmt: skip


@click.command(**example("pyroqmri design out/sub-01 --candidates-bval all.bval --n 30 --out out/design"))
@click.argument("fit_dir")
@options(*(_candidate_option(name, doc.replace("per volume", "per candidate")) for name, doc in SETTINGS.items()))
@click.option("--n", type=int, metavar="N", help="How many measurements to choose.")
@click.option("--minutes", type=float, metavar="T", help="Time to spend, in place of --n; needs --seconds.")
@click.option("--seconds", type=NumberOrWord(), metavar="X|FILE", help="How long each candidate takes.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME",
              help="A parameter that counts; may be repeated. [default: all]")  # fmt: skip
@click.option("--each", is_flag=True, help="Parameters count one by one; by default jointly, with correlations.")
@click.option("--snr", type=float, metavar="X", help="S0 over sigma; the fit's own by default.")
@click.option("--voxels", type=click.IntRange(0), default=1000, show_default=True, metavar="N",
              help="Voxels to simulate, on which the choice is tried; 0 for none.")  # fmt: skip
@seed_option
@trust_option
@out_option
@overwrite_option
@quiet_option
@debug_option
def design(
    fit_dir: str, n: int | None, minutes: float | None, seconds: str | float | None, parameters: tuple[str, ...],
    each: bool, snr: float | None, voxels: int, seed: int, trust: bool, out: str, overwrite: bool, quiet: bool,
    **files: Any,
) -> None:  # fmt: skip
    """Which measurements of a list are worth most under the population of the fit in FIT_DIR.

    Give the candidates' settings, one entry each, and --n or --minutes.
    """
    given = {name.removeprefix(PREFIX): value for name, value in files.items()}
    if all(value is None for name, value in given.items() if name != "averages"):
        raise click.UsageError("no candidates; give --candidates-bval, or --candidates-te, -ti, -flip for relaxometry")
    if (n is None) == (minutes is None):
        raise click.UsageError("give either --n, how many measurements, or --minutes, how long they may take")
    say_loading(quiet)
    from pyroqmri.commands.design import design_protocol
    from pyroqmri.commands.protocol_files import ProtocolFiles

    found = design_protocol(
        fit_dir, ProtocolFiles(**given), out=out, n=n, minutes=minutes, seconds=seconds,
        parameters=parameters or None, snr=snr, each=each, voxels=voxels, seed=seed, trust=trust, overwrite=overwrite,
    )  # fmt: skip
    for sentence in () if quiet else found.sentences:
        click.echo(sentence)
    click.echo(found.folder / "design.md")
