"""What a worker is handed: one image, and what is to be done with it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroqmri.cohort.image import CohortImage

if TYPE_CHECKING:
    from pyroqmri.commands.inputs import ScanFiles


@dataclass(frozen=True)
class Reading:
    """How each image is read; as the options of `pyroqmri fit` of these names."""

    signal: str
    sigma: str | float = "estimate"
    drop: str | None = None
    bmax: float | None = None
    averages: float | None = None
    coils: float = 1.0

    def files(self, image: Path, mask: Path | None) -> "ScanFiles":
        """The files of one image."""
        from pyroqmri.commands.inputs import ScanFiles

        return ScanFiles(image, mask=mask, drop=self.drop, bmax=self.bmax, averages=self.averages)

    def record(self) -> dict[str, Any]:
        """As plain values; the coils only where there are several, so that records of before them stay valid."""
        return {name: value for name, value in asdict(self).items() if name != "coils" or value != 1}


@dataclass(frozen=True)
class Task:
    """One image to sample or to map.

    Attributes
    ----------
    image, out, reading
        Which, into which output folder, and how it is read.
    key
        What determines the result beside the inputs, see :class:`pyroqmri.cohort.record.Record`.
    fit
        The folder of the fit to map with; None where voxels are sampled for one.
    n_voxels
        To sample.
    subject_level
        Move the population to where this subject's own voxels put it, from the mean of the ``site``.
    pages
        Write each image's report and sample of the posterior.
    """

    image: CohortImage
    out: Path
    reading: Reading
    key: str
    fit: Path | None = None
    n_voxels: int = 0
    subject_level: bool = False
    site: str = ""
    pages: bool = True
