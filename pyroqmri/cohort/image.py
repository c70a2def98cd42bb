"""One image of a cohort, or one series of images: the unit of work."""

from dataclasses import dataclass
from pathlib import Path

from pyroqmri.errors import InputError

_SERIES = ("echo", "inv", "flip", "mt", "part")  # entities that number the images of one series


@dataclass(frozen=True)
class CohortImage:
    """What is mapped as one: a 4-D image, or a series of images with one setting each.

    Attributes
    ----------
    subject, session
        BIDS labels without ``sub-`` and ``ses-``; the session is empty where there is none.
    datatype
        The folder of the images: ``dwi`` or ``anat`` ...
    label
        Entities in common, such as ``sub-01_ses-1_run-2``, with the suffix where one label has several.
    paths
        The image, or the images of the series, in the order of their names.
    mask
        The brain mask of the same space, or None.
    weights, grad_dev
        Weights of its measurements and deviations of its gradients, where they were asked for.
    """

    subject: str
    session: str
    datatype: str
    label: str
    paths: tuple[Path, ...]
    mask: Path | None = None
    weights: Path | None = None
    grad_dev: Path | None = None

    @property
    def folder(self) -> Path:
        """Where its maps go below the output folder: ``sub-01/ses-1/dwi``."""
        session = (f"ses-{self.session}",) if self.session else ()
        return Path(f"sub-{self.subject}", *session, self.datatype)


def label_of(name: str) -> str:
    """Entities of an image's name that all images of its series have: ``sub-01_echo-2_MESE`` gives ``sub-01_MESE``."""
    parts = name.split("_")
    return "_".join(part for part in parts if part.partition("-")[0] not in _SERIES)


def path_of(template: str, option: str, subject: str, session: str, label: str) -> Path:
    """The file of one image that an option of the cohort names for all.

    Parameters
    ----------
    template
        A path in which ``{subject}``, ``{session}`` and ``{label}`` stand for the image's.
    option
        Its name, for the error.
    subject, session, label
        BIDS labels without ``sub-`` and ``ses-``, and the image's own label.

    Raises
    ------
    InputError
        When anything else stands in braces.
    """
    try:
        return Path(template.format(subject=f"sub-{subject}", session=f"ses-{session}" if session else "", label=label))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(
            f"{option} {template}: only {{subject}}, {{session}} and {{label}} stand for something"
        ) from error
