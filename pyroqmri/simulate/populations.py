"""Tissue parameters to simulate: uniform, the three clusters of a paper, classes of any signal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.parameter import Direction, Parameter
from pyroqmri.signals.base import SignalModel

Theta = dict[str, Tensor]

CLASSES = ("white matter", "grey matter", "csf")

# Mean and sd of each tissue class, by the name of the signal model; order of CLASSES. Chosen inside the range of
# healthy adults at 3 T, not fitted to anything.
TISSUE: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {
    "MSDKI": {"D": ((1.0, 0.10), (1.2, 0.10), (3.0, 0.1)), "K": ((1.1, 0.15), (0.7, 0.12), (0.05, 0.05))},
    "BallStick": {
        "f": ((0.60, 0.10), (0.20, 0.08), (0.04, 0.03)),
        "D_par": ((1.9, 0.20), (1.5, 0.25), (2.8, 0.2)),
        "D_iso": ((0.9, 0.15), (1.0, 0.12), (3.0, 0.1)),
    },
    "IVIM": {
        "f": ((0.06, 0.02), (0.10, 0.03), (0.04, 0.02)),
        "D_fast": ((12.0, 3.0), (15.0, 4.0), (20.0, 6.0)),
        "D_slow": ((0.75, 0.08), (0.85, 0.08), (3.0, 0.1)),
    },
}


def uniform(
    signal: type[SignalModel], n: int, seed: int, ranges: Mapping[str, tuple[float, float]] | None = None
) -> Theta:
    """Parameters of ``n`` voxels, uniform inside their bounds, or ``ranges``; directions uniform on the sphere.

    Bounds that depend on other parameters are kept to by those without a range.
    ``ranges`` may name S0 as well. Raises InputError when it names something else that the signal lacks.
    """
    ranges = dict(ranges or {})
    unknown = set(ranges) - {p.name for p in signal.parameters} - {"S0"}
    if unknown:
        raise InputError(f"ranges names {', '.join(sorted(unknown))}, which {signal.__name__} does not have")
    rng = np.random.default_rng(seed)
    theta = {}
    for p in signal.parameters:
        if isinstance(p, Direction):
            theta[p.name] = _directions(rng, n)
        else:
            box = None if p.name in ranges else signal.box(p.name, theta)
            lower, upper = ranges.get(p.name, (p.lower, p.upper)) if box is None else (b.numpy() for b in box)
            theta[p.name] = _float(rng.uniform(lower, upper, n))
    if "S0" in ranges:
        theta["S0"] = _float(rng.uniform(*ranges["S0"], n))
    return theta


@dataclass(frozen=True)
class GaussianClasses:
    """A mixture of tissue classes, each independent normals, truncated to one region.

    Class and parameters are redrawn together until the parameters fall into the region, so a class that
    reaches beyond it ends up with a smaller share than its weight.

    Parameters
    ----------
    classes, parameters
        Names, C and P of them.
    means, sds
        ``(C, P)``, before truncation.
    weights
        ``(C,)``, before truncation; any positive numbers.
    lower, upper
        The region, ``(P,)``.
    max_product
        Largest product of the first two parameters inside the region.
    """

    classes: tuple[str, ...]
    parameters: tuple[str, ...]
    means: np.ndarray
    sds: np.ndarray
    weights: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    max_product: float = np.inf

    def __post_init__(self) -> None:
        for name in ("means", "sds", "weights", "lower", "upper"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))
        shape = (len(self.classes), len(self.parameters))
        if self.means.shape != shape or self.sds.shape != shape or self.weights.shape != shape[:1]:
            raise InputError(f"means and sds must be {shape} and weights {shape[:1]}, for classes x parameters")
        if (self.sds <= 0).any() or (self.weights < 0).any() or self.weights.sum() <= 0:
            raise InputError("sds must be positive, weights not negative and not all zero")
        object.__setattr__(self, "weights", self.weights / self.weights.sum())

    def contains(self, values: np.ndarray) -> np.ndarray:
        """Whether values ``(..., P)`` lie in the region."""
        inside = ((values > self.lower) & (values < self.upper)).all(-1)
        if values.shape[-1] > 1:
            inside = inside & (values[..., 0] * values[..., 1] <= self.max_product)
        return np.asarray(inside)

    def sample(self, n: int, seed: int) -> tuple[Theta, Tensor]:
        """Parameters, each ``(n,)``, and class indices ``(n,)`` of ``n`` voxels."""
        rng = np.random.default_rng(seed)
        labels = np.zeros(n, dtype=np.int64)
        values = np.full((n, len(self.parameters)), np.nan)
        left = np.arange(n)
        for _ in range(10_000):
            k = labels[left] = rng.choice(len(self.classes), len(left), p=self.weights)
            values[left] = self.means[k] + self.sds[k] * rng.standard_normal((len(left), values.shape[1]))
            left = left[~self.contains(values[left])]
            if not len(left):
                break
        else:
            raise InputError("the classes have almost no mass inside their region; widen it or move their means")
        return {name: _float(values[:, i]) for i, name in enumerate(self.parameters)}, torch.as_tensor(labels)


def cluster_classes(
    variant: str = "physical", weights: Sequence[float] = (0.5, 0.4, 1.0), classes: Sequence[str] = CLASSES
) -> GaussianClasses:
    """The three tissue clusters (D, K) that Xu et al. simulate for MS-DKI, arXiv:2411.10772.

    ``"literal"`` takes the printed numbers as they are, which gives signals above S0 at b = 3 ms/um2 in about a
    fifth of white and grey matter, and some negative diffusivities. ``"physical"`` keeps D > 0.05 and D K <= 2,
    which leaves shares of about .24, .19, .58 of the printed weights. The printed third weight, 1, may be a
    misprint for 0.1. ``classes`` picks some of CLASSES; ``weights`` are those of all three.
    """
    if variant not in ("physical", "literal"):
        raise InputError(f"variant is {variant!r}; choose physical or literal")
    unknown = set(classes) - set(CLASSES)
    if unknown or not classes or len(weights) != len(CLASSES):
        raise InputError(f"classes must be some of {', '.join(CLASSES)}, with one weight for each of these three")
    pick = [CLASSES.index(c) for c in classes]
    sds = np.sqrt([[0.1, 0.1], [0.1, 0.1], [0.01, 0.01]])
    return GaussianClasses(
        classes=tuple(classes),
        parameters=("D", "K"),
        means=np.array([[1.0, 1.5], [1.5, 1.0], [3.0, 0.0]])[pick],
        sds=sds[pick],
        weights=np.asarray(weights, dtype=float)[pick],
        lower=np.array([0.05 if variant == "physical" else -np.inf, -np.inf]),
        upper=np.array([np.inf, np.inf]),
        max_product=2.0 if variant == "physical" else np.inf,
    )


def clusters(
    n: int,
    seed: int,
    variant: str = "physical",
    weights: Sequence[float] = (0.5, 0.4, 1.0),
    classes: Sequence[str] = CLASSES,
) -> tuple[Theta, Tensor]:
    """Parameters D, K, each ``(n,)``, and class indices ``(n,)`` drawn from :func:`cluster_classes`."""
    return cluster_classes(variant, weights, classes).sample(n, seed)


def signal_classes(
    signal: type[SignalModel],
    means: Sequence[Mapping[str, float]],
    sds: Sequence[Mapping[str, float]],
    weights: Sequence[float],
    names: Sequence[str] | None = None,
) -> GaussianClasses:
    """Classes of any signal's scalar parameters, one mapping a class, truncated to the signal's bounds."""
    table = [p for p in signal.parameters if isinstance(p, Parameter)]
    for row in (*means, *sds):
        if set(row) != {p.name for p in table}:
            raise InputError(f"each class needs {', '.join(p.name for p in table)}, got {', '.join(row)}")
    return GaussianClasses(
        classes=tuple(names) if names is not None else tuple(f"class {i + 1}" for i in range(len(means))),
        parameters=tuple(p.name for p in table),
        means=np.array([[row[p.name] for p in table] for row in means]),
        sds=np.array([[row[p.name] for p in table] for row in sds]),
        weights=np.asarray(weights, dtype=float),
        lower=np.array([p.lower for p in table]),
        upper=np.array([p.upper for p in table]),
    )


def gaussian_classes(
    signal: type[SignalModel],
    n: int,
    means: Sequence[Mapping[str, float]],
    sds: Sequence[Mapping[str, float]],
    weights: Sequence[float],
    seed: int,
) -> tuple[Theta, Tensor]:
    """Parameters of ``n`` voxels drawn from :func:`signal_classes`, directions uniform; and class indices ``(n,)``."""
    theta, labels = signal_classes(signal, means, sds, weights).sample(n, seed)
    rng = np.random.default_rng([seed, 1])
    directions = {p.name: _directions(rng, n) for p in signal.parameters if isinstance(p, Direction)}
    return {**theta, **directions}, labels


def tissue_classes(signal: type[SignalModel], weights: Sequence[float] = (1, 1, 1)) -> GaussianClasses:
    """The classes of TISSUE for a signal, truncated to its bounds; weights in the order of CLASSES."""
    if signal.__name__ not in TISSUE:
        raise InputError(f"no tissue values are known for {signal.__name__}; simulate.TISSUE has {', '.join(TISSUE)}")
    table = TISSUE[signal.__name__]
    means, sds = ([{name: values[k][j] for name, values in table.items()} for k in range(len(CLASSES))] for j in (0, 1))
    return signal_classes(signal, means, sds, weights, CLASSES)


def _directions(rng: np.random.Generator, n: int) -> Tensor:
    normal = rng.standard_normal((n, 3))
    return _float(normal / np.linalg.norm(normal, axis=-1, keepdims=True))


def _float(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
