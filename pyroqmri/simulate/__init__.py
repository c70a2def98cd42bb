"""Data whose truth is known: tissue parameters, brains, and noisy measurements of them."""

from pyroqmri.simulate.measure import NOISES, noise_level, simulate
from pyroqmri.simulate.phantom import Phantom, brain_phantom
from pyroqmri.simulate.populations import (
    CLASSES,
    TISSUE,
    GaussianClasses,
    cluster_classes,
    clusters,
    gaussian_classes,
    signal_classes,
    tissue_classes,
    uniform,
)

__all__ = [
    "CLASSES",
    "NOISES",
    "TISSUE",
    "GaussianClasses",
    "Phantom",
    "brain_phantom",
    "cluster_classes",
    "clusters",
    "gaussian_classes",
    "noise_level",
    "signal_classes",
    "simulate",
    "tissue_classes",
    "uniform",
]
