"""Images that are unlike the others of their cohort."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyroqmri.cohort.record import Record
from pyroqmri.cohort.regions import RegionValue

FAR = 3.5  # robust standard deviations; Iglewicz and Hoaglin 1993
FEWEST = 5  # values from which a spread is worth something
_FINE = "share of voxels with status fine"


@dataclass(frozen=True)
class Outlier:
    """A value of an image that is ``z`` robust standard deviations from the median of the cohort."""

    subject: str
    session: str
    label: str
    region: str
    quantity: str
    value: float
    median: float
    z: float

    @classmethod
    def header(cls) -> tuple[str, ...]:
        """Columns of the table."""
        return ("participant_id", "session_id", "label", "region", "quantity", "value", "median", "z")


def outlier_row(one: Outlier) -> tuple[str, ...]:
    """Cells of the table."""
    session = f"ses-{one.session}" if one.session else ""
    numbers = (f"{one.value:.4g}", f"{one.median:.4g}", f"{one.z:+.1f}")
    return (f"sub-{one.subject}", session, one.label, one.region, one.quantity, *numbers)


def find_outliers(values: Sequence[RegionValue], records: Sequence[Record], sites: Mapping[str, str]) -> list[Outlier]:
    """Values that are far from the cohort's, the farthest first; each is compared within its site.

    Looked at are the mean and the spread of each parameter in each region, and the share of voxels whose status is
    fine.
    """
    series: dict[tuple[str, str], list[tuple[Record | RegionValue, float]]] = defaultdict(list)
    for value in values:
        series[value.region, value.parameter].append((value, value.mean))
        series[value.region, f"spread of {value.parameter}"].append((value, value.spread))
    for record in records:
        series["", _FINE].append((record, record.n_fine / max(record.n_voxels, 1)))
    found = []
    for (region, quantity), members in series.items():
        numbers = np.array([number for _, number in members])
        home = np.array([sites.get(one.subject, "") for one, _ in members])
        z, median = _robust(numbers, home)
        # more fine voxels than others have is no fault
        far = -z if quantity == _FINE else np.abs(z)
        for i in np.flatnonzero(far > FAR):
            who = members[i][0]
            found.append(
                Outlier(who.subject, who.session, who.label, region, quantity, numbers[i], median[i], float(z[i]))
            )
    return sorted(found, key=lambda one: -abs(one.z))


def _robust(numbers: NDArray, home: NDArray) -> tuple[NDArray, NDArray]:
    """Distance from the median of the own site, in units of the spread of all, and that median ``(J,)``.

    A site of few images has no median worth the name; that of all stands in.
    """
    few = {site for site in set(home) if (home == site).sum() < FEWEST}
    median = np.array([np.median(numbers if site in few else numbers[home == site]) for site in home])
    off = numbers - median
    if len(numbers) < FEWEST:
        return np.zeros(len(numbers)), median
    spread = 1.4826 * np.median(np.abs(off))
    # where most are equal, as shares of 1 are, the mean deviation stands in
    spread = spread if spread > 0 else 1.2533 * np.abs(off).mean()
    return (off / spread if spread > 0 else np.zeros(len(numbers))), median
