"""From files to files: what the commands of the command line do."""

from pyroqmri.commands.apply import apply_image
from pyroqmri.commands.denoise import denoise_image
from pyroqmri.commands.export import export_bedpostx
from pyroqmri.commands.fit import fit_image
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.commands.report import rebuild_report

__all__ = ["ScanFiles", "apply_image", "denoise_image", "export_bedpostx", "fit_image", "rebuild_report"]
