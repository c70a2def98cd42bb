"""From files to files: what the commands of the command line do."""

from pyroqmri.pipeline.applying import apply_image
from pyroqmri.pipeline.training import fit_image

__all__ = ["apply_image", "fit_image"]
