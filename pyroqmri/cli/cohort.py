"""`pyroqmri cohort`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyroqmri.cli.common import (
    coils_option,
    debug_option,
    example,
    held_options,
    likelihood_option,
    options,
    quiet_option,
    s0_option,
    say_loading,
    seed_option,
    set_option,
    sigma_option,
    table,
)  # fmt: skip

if TYPE_CHECKING:
    from pyroqmri.cohort import Cohort

_COMMAND = "pyroqmri cohort data derivatives/pyroqmri participant --signal msdki --recipe hierarchical"
_READING = ("sigma", "drop_volumes", "bmax", "averages", "weights", "grad_dev")
_selection = options(
    click.option("--participant-label", "participants", multiple=True, metavar="LABEL",
                 help="Participant, with or without sub-; several in one option, separated by blanks, or repeated."),
    click.option("--session-label", "sessions", multiple=True, metavar="LABEL", help="Session; likewise."),
    click.option("--bids-filter-file", "filters", metavar="FILE",
                 help="JSON table of entities that images must have, such as {\"desc\": \"preproc\"}."),
)  # fmt: skip
_engine = options(
    click.option("--n-workers", type=click.IntRange(1), metavar="N",
                 help="Processes, one thread each. [default: as cores and memory allow; 10 jobs with --slurm]"),
    click.option("--memory-gb", type=click.FloatRange(0, min_open=True), default=8.0, show_default=True, metavar="X",
                 help="Memory for the data of each worker; an image that needs more fails."),
    click.option("--scheduler", metavar="ADDRESS", help="Work on the Dask cluster of this scheduler."),
    click.option("--slurm", is_flag=True, help="Start workers as SLURM jobs, as dask-jobqueue is configured."),
)  # fmt: skip


def _labels(given: tuple[str, ...]) -> tuple[str, ...]:
    """Labels, also where one option has several."""
    return tuple(label for text in given for label in text.replace(",", " ").split())


@click.command(**example(_COMMAND))
@click.argument("bids_dir")
@click.argument("out_dir")
@click.argument("level", type=click.Choice(["participant", "group"]), metavar="participant|group")
@click.argument("more", nargs=-1, metavar="")
@_selection
@click.option("--signal", metavar="S", help="Physics; see `pyroqmri list signals`. Needed unless --fit is given.")
@click.option("--recipe", metavar="R",
              help="Estimator, a name or a .toml, trained on voxels of all images. "
                   "Needed unless --fit is given.")  # fmt: skip
@click.option("--fit", "fit_dir", metavar="DIR", help="Map with this fit; nothing is trained.")
@likelihood_option
@coils_option("N")
@sigma_option("X|estimate|field")
@s0_option
@set_option()
@held_options
@seed_option
@click.option("--averages", type=float, metavar="N", help="Magnitude images that each volume is the mean of.")
@click.option("--bmax", type=float, metavar="B", help="Leave out volumes with b above B s/mm2.")
@click.option("--drop-volumes", metavar="I,J-K,...",
              help="Volumes of every image to leave out, counted from 0; ranges such as 20-41 are "
                   "allowed.")  # fmt: skip
@click.option(
    "--weights",
    metavar="FILE",
    help="Each image's weights of its volumes in each voxel; {subject}, {session}, {label} are its own.",
)
@click.option("--grad-dev", metavar="FILE", help="Each image's deviation of the gradients, named likewise.")
@click.option("--voxels", type=click.IntRange(500), default=20_000, show_default=True, metavar="N",
              help="Voxels to train on, over all images.")  # fmt: skip
@click.option("--subject-level/--no-subject-level", default=None,
              help="Move each image's population to the mean of its own voxels, shrunk to the cohort's; by default "
                   "where the fit has learned how subjects differ (hierarchical, three subjects).")  # fmt: skip
@click.option("--site-column", metavar="NAME", help="Column of participants.tsv with each participant's site.")
@click.option("--relearn", is_flag=True, help="Train again and map every image again; else new images take the fit.")
@click.option("--pages/--no-pages", default=True, show_default=True,
              help="Write report.html and posterior.nc of each image, which take seconds each.")  # fmt: skip
@click.option("--atlas", metavar="FILE",
              help="group: image of labels; {subject}, {session}, {label} stand for each image's own.")  # fmt: skip
@click.option("--group-column", metavar="NAME", help="group: column of participants.tsv with groups to compare.")
@_engine
@click.option("--dry-run", is_flag=True, help="List the images and what would be done; write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace what another call of pyroqmri wrote into the output folder.")
@quiet_option
@debug_option
def cohort(bids_dir: str, out_dir: str, level: str, dry_run: bool, quiet: bool, **given: Any) -> int:
    """Map every image of a BIDS data set with one fit that learned from all of them; a BIDS App.

    participant: what is done stays done, and the same command again does what is missing or has changed.
    `participants_status.tsv` lists every image as done, skipped or failed and why. Exit code 0 when nothing failed,
    1 when some images did. group: tables over subjects, regions and groups, and a page with outliers first.
    """
    say_loading(quiet)
    if level == "group":
        return _group(bids_dir, out_dir, dry_run, given)
    plan = _cohort(bids_dir, out_dir, given)
    if dry_run:
        return _dry_run(plan)
    from pyroqmri.cohort import Workers, run_participants
    from pyroqmri.cohort.status_table import STATUS_TABLE, exit_code, failures, summary

    workers = Workers(given["n_workers"], given["memory_gb"], given["scheduler"], given["slurm"])
    records = run_participants(
        plan, workers, relearn=given["relearn"], overwrite=given["overwrite"], progress=not quiet
    )
    for record in failures(records):
        click.echo(f"failed: {record.label}: {record.why}", err=True)
    click.echo(summary(records), err=True)
    click.echo(Path(out_dir) / STATUS_TABLE)
    return exit_code(records)


def _group(bids_dir: str, out_dir: str, dry_run: bool, given: dict[str, Any]) -> int:
    if dry_run:
        raise click.UsageError("--dry-run is for the participant level")
    from pyroqmri.cohort.group import run_group, shrunken
    from pyroqmri.cohort.people import column_of

    groups, sites = (
        {} if given[name] is None else column_of(bids_dir, given[name]) for name in ("group_column", "site_column")
    )
    for line in shrunken(Path(out_dir)):
        click.echo(f"warning: {line}", err=True)
    click.echo(run_group(out_dir, atlas=given["atlas"], groups=groups, sites=sites) / "report.html")
    return 0


def _dry_run(plan: "Cohort") -> int:
    from pyroqmri.cohort import planned

    records = planned(plan)
    rows = [(record.label, record.image or "n/a", record.why or record.status) for record in records]
    table([("LABEL", "IMAGE", "WHAT"), *rows])
    return 0


def _cohort(bids_dir: str, out_dir: str, given: dict[str, Any]) -> "Cohort":
    fit_dir = given["fit_dir"]
    if (fit_dir is None) == (given["signal"] is None or given["recipe"] is None):
        raise click.UsageError("give both --signal and --recipe, or the folder of a fit with --fit")
    own = ("signal", "recipe", "likelihood", "coils", "settings")
    if fit_dir is not None and any(given[name] for name in own):
        raise click.UsageError(
            "a fit brings its signal and recipe; leave out --signal, --recipe, --likelihood, --coils, --set"
        )
    if given["scheduler"] and given["slurm"]:
        raise click.UsageError("give --scheduler or --slurm, not both")
    from pyroqmri.cohort import Cohort, Reading, Selection
    from pyroqmri.cohort.index import read_filters
    from pyroqmri.cohort.learn import Training
    from pyroqmri.cohort.people import column_of
    from pyroqmri.io.fit_folder import read_fit_folder

    signal = str(given["signal"] if fit_dir is None else read_fit_folder(fit_dir).record["signal"])
    coils = given["coils"]
    of_coils = {} if coils is None else {"likelihood.kind": "ncchi", "likelihood.coils": coils}
    training = None if fit_dir is not None else Training(
        signal, str(given["recipe"]), given["likelihood"], given["s0"], given["seed"],
        dict(given["settings"]) | of_coils, dict(given["fix"]), dict(given["tie"]),
    )  # fmt: skip
    if given["more"] and not given["participants"]:
        raise click.UsageError(f"{given['more'][0]} is no option; only --participant-label takes several words")
    chosen = Selection(
        _labels((*given["participants"], *given["more"])), _labels(given["sessions"]), read_filters(given["filters"])
    )
    if isinstance(given["sigma"], str) and given["sigma"] not in ("estimate", "field"):
        raise click.UsageError(f"--sigma of a cohort is a number, estimate or field, got {given['sigma']!r}")
    reading = Reading(signal, *(given[name] for name in _READING), coils=coils or 1.0)
    sites = {} if given["site_column"] is None else column_of(bids_dir, given["site_column"])
    return Cohort(
        Path(bids_dir), Path(out_dir), reading, training, None if fit_dir is None else Path(fit_dir), chosen,
        subject_level=given["subject_level"], sites=sites, n_voxels=given["voxels"], pages=given["pages"],
    )  # fmt: skip
