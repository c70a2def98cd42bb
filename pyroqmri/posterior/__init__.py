"""Posteriors of voxels: moments, intervals, draws, goodness of fit, regions."""

from pyroqmri.posterior.posterior import Posterior
from pyroqmri.posterior.region import Region, region

__all__ = ["Posterior", "Region", "region"]
