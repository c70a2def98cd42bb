"""Reports: one HTML page for each fit, and an index over several."""

from pyroqmri.report.page import write_index, write_report

__all__ = ["write_index", "write_report"]
