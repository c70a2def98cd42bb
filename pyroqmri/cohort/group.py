"""The group level: what the maps of a cohort show over subjects."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyroqmri.cohort.data_set import CALL
from pyroqmri.cohort.learn import FIT
from pyroqmri.cohort.outliers import Outlier, find_outliers, outlier_row
from pyroqmri.cohort.random_effects import Effects, false_discovery, random_effects
from pyroqmri.cohort.record import DONE, STATE, Record, read_record
from pyroqmri.cohort.regions import RegionValue, region_values
from pyroqmri.cohort.status_table import write_table
from pyroqmri.cohort.subject_level import LEVELS
from pyroqmri.commands.output_folder import output_folder
from pyroqmri.errors import InputError
from pyroqmri.files import read_table
from pyroqmri.maps import write_json
from pyroqmri.posterior.voxel_sample import NORMAL_90

GROUP = "group"  # folder below the output folder
Key = tuple[str, str, str]  # region, parameter, unit


@dataclass(frozen=True)
class GroupTables:
    """What the group level found: one row per image, region and parameter; then over subjects.

    ``population`` to ``changes`` are rows under a header; ``problems`` are images that could not be used.
    """

    values: list[RegionValue]
    outliers: list[Outlier]
    population: list[tuple[str, ...]]
    comparison: list[tuple[str, ...]]
    sessions: list[tuple[str, ...]]
    changes: list[tuple[str, ...]]
    problems: list[str]
    n_images: int


def run_group(
    out_dir: str | Path, *, atlas: str | None = None, groups: Mapping[str, str] | None = None,
    sites: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write tables over subjects and a page into ``out_dir / "group"``.

    Parameters
    ----------
    out_dir
        That the participant level wrote.
    atlas
        As in :func:`pyroqmri.cohort.regions.region_values`; the whole mask is one region when None.
    groups, sites
        The group and the site of each subject, by label; sites enter as effects of their own.

    Returns
    -------
    Path
        The folder: ``regions.tsv``, ``population.tsv``, ``outliers.tsv``, ``comparison.tsv`` with groups,
        ``sessions.tsv`` and ``changes.tsv`` with several sessions, and ``report.html``.

    Raises
    ------
    InputError
        When no image is mapped, or none can be used.
    """
    out = Path(out_dir)
    records = _records(out)
    found = group_tables(out, [r for r in records if r.status == DONE], atlas, groups or {}, sites or {})
    with output_folder(out / GROUP, overwrite=True) as folder:
        write_table(folder / "regions.tsv", [RegionValue.header(), *(value.row() for value in found.values)])
        write_json(folder / "regions.json", _columns())
        write_table(folder / "outliers.tsv", [Outlier.header(), *(outlier_row(one) for one in found.outliers)])
        for name in ("population", "comparison", "sessions", "changes"):
            rows = getattr(found, name)
            if len(rows) > 1:
                write_table(folder / f"{name}.tsv", rows)
        from pyroqmri.report.cohort import write_cohort_page

        write_cohort_page(folder, found, records, groups or {})
    return out / GROUP


def shrunken(out: Path) -> list[str]:
    """A sentence where every image was mapped under the population of all, which hides differences of subjects."""
    path = out / STATE / CALL
    if not path.is_file():
        return []
    call: dict[str, Any] = read_table(path, "record of the call")
    training = call.get("training")
    level = call.get("subject level")
    level = (out / FIT / LEVELS).is_file() if isinstance(level, str) else bool(level)
    if level or (training is not None and "voxel_model" not in str(training.get("recipe"))):
        return []
    return [
        "the images were mapped without a level of subjects: where the fit has a population, voxels are drawn towards "
        "the mean of all subjects, and differences between subjects, groups and sessions come out too small; map them "
        "again by recipe hierarchical from three subjects on, without --no-subject-level"
    ]


def group_tables(
    out: Path, records: Sequence[Record], atlas: str | None, groups: Mapping[str, str], sites: Mapping[str, str]
) -> GroupTables:
    """What :func:`run_group` writes."""
    if not records:
        raise InputError(f"{out} has no image that is mapped; run the participant level first")
    values: list[RegionValue] = []
    problems = shrunken(out)
    for record in records:
        try:
            values += region_values(out, record, atlas)
        except (InputError, OSError, StopIteration) as error:
            problems.append(f"{record.label}: {error}")
    if not values:
        raise InputError(f"no image of {out} can be used: {problems[-1]}")
    return GroupTables(
        values,
        find_outliers(values, records, sites),
        [POPULATION, *_population(values, sites)],
        [COMPARISON, *_comparisons(values, groups, sites)],
        [SESSIONS, *_mean_changes(values)],
        [CHANGES, *_own_changes(values)],
        problems,
        len(records),
    )


POPULATION = ("region", "parameter", "unit", "n_subjects", "mean", "se", "low_90", "high_90", "sd_between_subjects")
COMPARISON = (
    "region", "parameter", "unit", "group", "than", "n_group", "n_than", "difference", "se", "low_90", "high_90", "p",
    "q_fdr",
)  # fmt: skip
SESSIONS = ("region", "parameter", "unit", "session", "than", "n_subjects", "change", "se", "low_90", "high_90", "p")
CHANGES = ("participant_id", "session", "than", "region", "parameter", "unit", "change", "se", "low_90", "high_90")


def _records(out: Path) -> list[Record]:
    labels = sorted(path.stem for path in (out / STATE / "records").glob("*.json"))
    return [record for label in labels if (record := read_record(out, label)) is not None]


@dataclass(frozen=True)
class Subjects:
    """One parameter in one region: subjects' labels, values ``(J,)`` and variances ``(J,)``, sessions averaged."""

    labels: list[str]
    values: NDArray
    variances: NDArray


def by_subject(values: Iterable[RegionValue]) -> dict[Key, Subjects]:
    """Values of each region and parameter over subjects."""
    gathered: dict[Key, dict[str, list[RegionValue]]] = defaultdict(lambda: defaultdict(list))
    for value in values:
        gathered[value.region, value.parameter, value.unit][value.subject].append(value)
    return {
        key: Subjects(
            list(found),
            np.array([np.mean([one.mean for one in own]) for own in found.values()]),
            np.array([sum(one.sd**2 for one in own) / len(own) ** 2 for own in found.values()]),
        )
        for key, found in gathered.items()
    }


def _population(values: Sequence[RegionValue], sites: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    for key, found in by_subject(values).items():
        site, _ = site_columns(found.labels, sites)
        effects = random_effects(found.values, found.variances, np.column_stack([np.ones(len(found.labels)), site]))
        if effects is not None:
            numbers = _numbers(effects, 0)
            yield (*key, str(len(found.labels)), *numbers, f"{effects.tau:.4g}")


def _comparisons(
    values: Sequence[RegionValue], groups: Mapping[str, str], sites: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """A row for each pair of groups, region and parameter."""
    rows, p_values = [], []
    for key, found in by_subject(values).items():
        mine = np.array([groups.get(label, "") for label in found.labels])
        for than, group in combinations(sorted(set(mine) - {""}), 2):
            used = np.isin(mine, [than, group])
            site, _ = site_columns([label for label, use in zip(found.labels, used, strict=True) if use], sites)
            design = np.column_stack([np.ones(used.sum()), mine[used] == group, site])
            effects = random_effects(found.values[used], found.variances[used], design)
            if effects is not None:
                counts = (str(int((mine == group).sum())), str(int((mine == than).sum())))
                rows.append((*key, group, than, *counts, *_numbers(effects, 1)))
                p_values.append(effects.p_value(1))
    rates = false_discovery(np.array(p_values))
    return [(*row, f"{p:.3g}", f"{q:.3g}") for row, p, q in zip(rows, p_values, rates, strict=True)]


Pairs = list[tuple[RegionValue, RegionValue]]


def _pairs(values: Sequence[RegionValue]) -> Iterator[tuple[Key, str, str, Pairs]]:
    """For each region, parameter and later session: the first one's name, and what subjects with both have there."""
    gathered: dict[Key, dict[str, dict[str, RegionValue]]] = defaultdict(lambda: defaultdict(dict))
    for value in values:
        gathered[value.region, value.parameter, value.unit][value.subject].setdefault(value.session, value)
    for key, people in gathered.items():
        names = sorted({session for own in people.values() for session in own} - {""})
        for session in names[1:]:
            pairs = [(own[names[0]], own[session]) for own in people.values() if names[0] in own and session in own]
            yield key, f"ses-{session}", f"ses-{names[0]}", pairs


def _mean_changes(values: Sequence[RegionValue]) -> Iterator[tuple[str, ...]]:
    """The change from the first session to each later one, over the subjects that have both."""
    for key, session, first, pairs in _pairs(values):
        change = np.array([last.mean - before.mean for before, last in pairs])
        variance = np.array([last.sd**2 + before.sd**2 for before, last in pairs])
        effects = random_effects(change, variance, np.ones((len(pairs), 1))) if pairs else None
        if effects is not None:
            yield (*key, session, first, str(len(pairs)), *_numbers(effects, 0), f"{effects.p_value(0):.3g}")


def _own_changes(values: Sequence[RegionValue]) -> Iterator[tuple[str, ...]]:
    """The change of each subject, with the uncertainty of its voxels in both sessions."""
    for key, session, first, pairs in _pairs(values):
        for before, last in pairs:
            change, se = last.mean - before.mean, float(np.hypot(last.sd, before.sd))
            ends = (f"{change + sign * NORMAL_90 * se:.5g}" for sign in (-1, 1))
            yield (f"sub-{last.subject}", session, first, *key, f"{change:.5g}", f"{se:.3g}", *ends)


def site_columns(labels: Sequence[str], sites: Mapping[str, str]) -> tuple[NDArray, list[str]]:
    """Columns ``(J, S - 1)`` that sum to zero over the S sites, so that a mean is one over sites, and their names."""
    mine = [sites.get(label, "") for label in labels]
    names = sorted(set(mine))
    columns = np.zeros((len(labels), len(names) - 1))
    for i, site in enumerate(mine):
        k = names.index(site)
        columns[i] = -1.0 if k == len(names) - 1 else 0.0
        if k < len(names) - 1:
            columns[i, k] = 1.0
    return columns, names


def _numbers(effects: Effects, k: int) -> tuple[str, str, str, str]:
    low, high = effects.interval(0.9)[k]
    return f"{effects.beta[k]:.5g}", f"{effects.se[k]:.3g}", f"{low:.5g}", f"{high:.5g}"


def _columns() -> dict[str, dict[str, str]]:
    """What the columns of ``regions.tsv`` mean, as BIDS has it for tables."""
    text = {
        "label": "Entities of the image", "region": "Label of the atlas, or mask", "parameter": "Name of the parameter",
        "unit": "Unit of mean, sd and spread", "n_voxels": "Voxels whose status is fine",
        "left_out": "Other voxels of the region", "mean": "Mean over the voxels of their posterior means",
        "sd": "Uncertainty of the mean, from the voxels' posterior standard deviations",
        "spread": "Standard deviation between the voxels, noise taken out",
    }  # fmt: skip
    return {name: {"Description": words} for name, words in text.items()}
