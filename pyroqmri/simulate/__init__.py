"""Data whose truth is known: tissue parameters, brains, and noisy measurements of them."""

from pyroqmri.simulate.inputs import draw_inputs
from pyroqmri.simulate.measure import NOISES, add_noise, noise_level, simulate
from pyroqmri.simulate.phantom import Phantom, brain_phantom
from pyroqmri.simulate.populations import (
    CLASSES,
    GaussianClasses,
    cluster_classes,
    clusters,
    gaussian_classes,
    signal_classes,
    tissue,
    tissue_classes,
    uniform,
    uniform_axes,
    uniform_scalars,
)

__all__ = [
    "CLASSES",
    "NOISES",
    "GaussianClasses",
    "Phantom",
    "add_noise",
    "brain_phantom",
    "cluster_classes",
    "clusters",
    "draw_inputs",
    "gaussian_classes",
    "noise_level",
    "signal_classes",
    "simulate",
    "tissue",
    "tissue_classes",
    "uniform",
    "uniform_axes",
    "uniform_scalars",
]
