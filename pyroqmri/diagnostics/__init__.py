"""The road to ArviZ, and what an estimator's bias and variance are."""

from pyroqmri.diagnostics.arviz_adapter import from_groups, read_netcdf, write_netcdf
from pyroqmri.diagnostics.pyro_svi import from_pyro_svi
from pyroqmri.diagnostics.to_arviz import posterior_to_arviz

__all__ = ["from_groups", "from_pyro_svi", "posterior_to_arviz", "read_netcdf", "write_netcdf"]
