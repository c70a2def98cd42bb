"""Checks of posteriors, and the road to ArviZ."""

from pyroqmri.diagnostics.arviz_adapter import from_groups, write_netcdf
from pyroqmri.diagnostics.bridge import posterior_to_arviz

__all__ = ["from_groups", "posterior_to_arviz", "write_netcdf"]
