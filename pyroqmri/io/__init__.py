"""Reading scans: images, masks, gradient tables and settings; units are converted at this door and nowhere else."""

from pyroqmri.io.gradients import Gradients, read_gradients
from pyroqmri.io.images import ImageRef, Scan, read_scan
from pyroqmri.io.masks import read_map, read_mask
from pyroqmri.io.names import prefix
from pyroqmri.io.settings import Settings, read_settings

__all__ = [
    "Gradients",
    "ImageRef",
    "Scan",
    "Settings",
    "prefix",
    "read_gradients",
    "read_map",
    "read_mask",
    "read_scan",
    "read_settings",
]
