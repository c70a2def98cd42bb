"""Distributions of a voxel's latent before its measurements are seen."""

from pyroqmri.priors.base import GaussianPrior, Population, Prior
from pyroqmri.priors.counted import Counted
from pyroqmri.priors.full_hierarchical import FullHierarchical
from pyroqmri.priors.hierarchical import Hierarchical
from pyroqmri.priors.mixture import Mixture
from pyroqmri.priors.relaxed import RelaxedMixture
from pyroqmri.priors.standard_normal import StandardNormal

PRIORS: dict[str, type[Prior]] = {
    "standard_normal": StandardNormal,
    "hierarchical": Hierarchical,
    "full_hierarchical": FullHierarchical,
    "mixture": Mixture,
    "relaxed_mixture": RelaxedMixture,
    "counted": Counted,
}

__all__ = [
    "PRIORS",
    "Counted",
    "FullHierarchical",
    "GaussianPrior",
    "Hierarchical",
    "Mixture",
    "Population",
    "Prior",
    "RelaxedMixture",
    "StandardNormal",
]
