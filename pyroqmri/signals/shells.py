"""Shells of gradient directions, as default protocols have them."""

import numpy as np
import torch

from pyroqmri.acquisition import Acquisition


def shells(n_b0: int, n_directions: int, *bvals: float) -> Acquisition:
    """``n_b0`` measurements without encoding, then ``n_directions`` at each b-value in ms/um2."""
    bvec = [np.zeros((n_b0, 3)), *(half_sphere(n_directions, i) for i in range(len(bvals)))]
    bval = np.repeat([0.0, *bvals], [n_b0, *[n_directions] * len(bvals)])
    return Acquisition(bval=torch.from_numpy(bval), bvec=torch.from_numpy(np.concatenate(bvec)))


def half_sphere(n: int, turn: int = 0) -> np.ndarray:
    """``n`` well spread axes ``(n, 3)`` along a Fibonacci spiral; ``turn`` rotates it, one step a shell."""
    z = (np.arange(n) + 0.5) / n
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(n) + turn
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(azimuth), ring * np.sin(azimuth), z], -1)
