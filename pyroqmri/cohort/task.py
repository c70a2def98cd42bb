"""What a worker is handed: one image, and what is to be done with it."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroqmri.cohort.image import CohortImage, path_of
from pyroqmri.measurements.own_protocol import OWN

if TYPE_CHECKING:
    from pyroqmri.commands.inputs import ScanFiles


@dataclass(frozen=True)
class Reading:
    """How each image is read; as the options of `pyroqmri fit` of these names.

    In ``weights`` and ``grad_dev`` ``{subject}``, ``{session}`` and ``{label}`` stand for each image's own.
    """

    signal: str
    sigma: str | float = "estimate"
    drop: str | None = None
    bmax: float | None = None
    averages: float | None = None
    weights: str | None = None
    grad_dev: str | None = None
    coils: float = 1.0

    def record(self) -> dict[str, Any]:
        """As plain values; per-voxel files and coils only where there are any, so that older records stay valid."""
        left_out = {name for name in OWN if getattr(self, name) is None} | ({"coils"} if self.coils == 1 else set())
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def with_own(self, image: CohortImage) -> CohortImage:
        """The image with the files of its own weights and gradients.

        Raises
        ------
        InputError
            When a name has something else in braces.
        """
        named = {name: getattr(self, name) for name in OWN if getattr(self, name) is not None}
        who = (image.subject, image.session, image.label)
        return replace(image, **{key: path_of(text, f"--{key.replace('_', '-')}", *who) for key, text in named.items()})

    def files(self, path: Path, image: CohortImage) -> "ScanFiles":
        """The files of one image, whose volumes lie in ``path``."""
        from pyroqmri.commands.inputs import ScanFiles

        return ScanFiles(
            path, mask=image.mask, drop=self.drop, bmax=self.bmax, averages=self.averages, weights=image.weights,
            grad_dev=image.grad_dev,
        )  # fmt: skip


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
