"""From files to files: what the commands of the command line do."""

from pyroqmri.pipeline.applying import apply_image
from pyroqmri.pipeline.demo import run_demo
from pyroqmri.pipeline.denoising import denoise_image
from pyroqmri.pipeline.index import demo_table, read_demo
from pyroqmri.pipeline.reports import rebuild_report
from pyroqmri.pipeline.training import fit_image

__all__ = ["apply_image", "demo_table", "denoise_image", "fit_image", "read_demo", "rebuild_report", "run_demo"]
