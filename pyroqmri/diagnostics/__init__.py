"""Checks of posteriors, comparisons of models, and the road to ArviZ."""

from pyroqmri.diagnostics.arviz_adapter import from_groups, read_netcdf, write_netcdf
from pyroqmri.diagnostics.bridge import posterior_to_arviz
from pyroqmri.diagnostics.pyro_svi import from_pyro_svi
from pyroqmri.diagnostics.regions import Region, region

__all__ = ["Region", "from_groups", "from_pyro_svi", "posterior_to_arviz", "read_netcdf", "region", "write_netcdf"]
