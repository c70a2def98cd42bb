"""A synthetic brain."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr, ndtri
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.parameter import Direction
from pyroqmri.signals.base import SignalModel
from pyroqmri.simulate.populations import CLASSES, GaussianClasses, tissue_classes


@dataclass(frozen=True)
class Phantom:
    """Parameter maps of a synthetic brain.

    Parameters
    ----------
    theta
        Each parameter's map ``(X, Y, Z)``, directions ``(X, Y, Z, 3)``; zero outside the head.
    labels
        ``(X, Y, Z)``: 0 outside, k + 1 for the tissue ``CLASSES[k]``.
    population
        What each voxel's parameters were drawn from, with this phantom's share of each tissue.
    """

    theta: dict[str, Tensor]
    labels: Tensor
    population: GaussianClasses

    @property
    def mask(self) -> Tensor:
        """Voxels of the head, ``(X, Y, Z)``."""
        return self.labels > 0

    def voxels(self) -> dict[str, Tensor]:
        """Parameters of the head's voxels, each ``(N,)``, directions ``(N, 3)``, in the order of the mask."""
        return {name: value[self.mask] for name, value in self.theta.items()}


def brain_phantom(signal: type[SignalModel], shape: tuple[int, int, int], seed: int) -> Phantom:
    """A synthetic brain of white matter, a folded cortex, ventricles and outer fluid.

    Inside a class each parameter varies half smoothly over space and half from voxel to voxel; at any one
    voxel it follows the class's truncated normal (``typical_tissue`` of the signal), independently of the other
    parameters. Directions form a smooth field that is uniform on the sphere at any one voxel. So the best
    estimator that looks at one voxel at a time is known: the posterior mean under ``population``.

    Raises
    ------
    InputError
        When the signal has no ``typical_tissue``, or the shape holds none of a tissue.
    """
    labels = _anatomy(shape)
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES) + 1)[1:]
    if (counts == 0).any():
        raise InputError(f"shape {tuple(shape)} is too small for a brain; give at least 16 voxels in two axes")
    classes = tissue_classes(signal)
    # a population's weights are those before truncation
    classes = replace(classes, weights=counts / _inside(classes).prod(-1))
    rng = np.random.default_rng(seed)
    head = labels > 0
    k = labels[head] - 1
    theta = {}
    for i, name in enumerate(classes.parameters):
        g = np.sqrt(0.5) * _smooth_field(rng, shape) + np.sqrt(0.5) * rng.standard_normal(shape)
        theta[name] = _fill(head, _truncated(ndtr(g[head]), classes, k, i))
    for name, value in signal.held.items():
        theta[name] = _fill(head, np.full(len(k), value))
    for p in signal.parameters:
        if isinstance(p, Direction):
            field = np.stack([_smooth_field(rng, shape) for _ in range(3)], -1)
            theta[p.name] = _fill(head, (field / np.linalg.norm(field, axis=-1, keepdims=True))[head])
    return Phantom(theta, torch.as_tensor(labels), classes)


def _inside(classes: GaussianClasses) -> np.ndarray:
    """Mass of each class's normals inside the bounds, ``(C, P)``."""
    low, high = ((edge - classes.means) / classes.sds for edge in (classes.lower, classes.upper))
    return ndtr(high) - ndtr(low)


def _truncated(u: np.ndarray, classes: GaussianClasses, k: np.ndarray, i: int) -> np.ndarray:
    """Quantiles ``u`` of parameter ``i`` of the classes ``k``."""
    mean, sd = classes.means[k, i], classes.sds[k, i]
    low, high = ndtr((classes.lower[i] - mean) / sd), ndtr((classes.upper[i] - mean) / sd)
    return mean + sd * ndtri(low + u * (high - low))


def _anatomy(shape: tuple[int, int, int]) -> np.ndarray:
    """Tissue labels of ellipsoids, the inner face of the cortex folded."""
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    angle = np.arctan2(y, x)
    fold = 0.06 * np.sin(11 * angle) * np.cos(3 * z) + 0.04 * np.sin(7 * z + 5 * angle)
    ventricle = np.minimum(*(((x - s * 0.16) / 0.10) ** 2 + (y / 0.32) ** 2 + (z / 0.35) ** 2 for s in (-1, 1))) < 1
    labels = np.zeros(shape, dtype=np.uint8)
    labels[radius < 0.97] = 3
    labels[radius < 0.88] = 2
    labels[radius < 0.70 + fold] = 1
    labels[ventricle] = 3
    return labels


def _smooth_field(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A Gaussian field, standard normal at every voxel, correlated over a twelfth of each axis."""
    widths = [n / 12 if n > 1 else 0 for n in shape]
    impulse = np.zeros(shape)
    impulse[0, 0, 0] = 1
    kernel = gaussian_filter(impulse, widths, mode="wrap")
    return gaussian_filter(rng.standard_normal(shape), widths, mode="wrap") / np.sqrt((kernel**2).sum())


def _fill(head: np.ndarray, values: np.ndarray) -> Tensor:
    volume = np.zeros((*head.shape, *values.shape[1:]), dtype=np.float32)
    volume[head] = values
    return torch.as_tensor(volume)
