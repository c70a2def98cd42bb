"""Autoencoders that denoise the measurements of a voxel."""

from pyroqmri.estimators.denoise.base import Autoencoder
from pyroqmri.estimators.denoise.dae import DAE
from pyroqmri.estimators.denoise.latents import Latents, describe_latents
from pyroqmri.estimators.denoise.pairs import NoiseRange, Pairs, ScanPairs, SimulatedPairs, Source, Targets
from pyroqmri.estimators.denoise.training import DenoiserTrace, Schedule, train
from pyroqmri.estimators.denoise.vae import VAE

AUTOENCODERS: dict[str, type[Autoencoder]] = {"vae": VAE, "dae": DAE}

__all__ = [
    "AUTOENCODERS",
    "DAE",
    "VAE",
    "Autoencoder",
    "DenoiserTrace",
    "Latents",
    "NoiseRange",
    "Pairs",
    "ScanPairs",
    "Schedule",
    "SimulatedPairs",
    "Source",
    "Targets",
    "describe_latents",
    "train",
]
