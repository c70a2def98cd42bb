"""Reports: one HTML page for each fit, and an index over several."""

from pyroqmri.report.index import write_index
from pyroqmri.report.page import write_report

__all__ = ["write_index", "write_report"]
