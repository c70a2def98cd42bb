"""Tissue parameters to simulate: uniform, the three clusters of a paper, classes of any signal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.parameter import Box, Direction, Parameter
from pyroqmri.signals.base import SignalModel

Theta = dict[str, Tensor]

CLASSES = ("white matter", "grey matter", "csf")  # as in `typical_tissue` of the signals


def uniform(
    signal: type[SignalModel], n: int, seed: int, ranges: Mapping[str, tuple[float, float]] | None = None
) -> Theta:
    """Parameters of ``n`` voxels, uniform inside their bounds, or ``ranges``; directions uniform on the sphere.

    Uniform in the logarithm where the bounds span decades. Bounds that depend on other parameters are kept to by
    those without a range. ``ranges`` may name S0 as well. Raises InputError when it names something else that the
    signal lacks.
    """
    ranges = dict(ranges or {})
    unknown = set(ranges) - {p.name for p in signal.parameters} - {"S0"}
    if unknown:
        raise InputError(f"ranges names {', '.join(sorted(unknown))}, which {signal.__name__} does not have")
    rng = np.random.default_rng(seed)
    held = {name: value for name, value in signal.held.items() if name not in ranges}
    table = [p for p in signal.parameters if isinstance(p, Parameter) and p.name not in held]
    every = {p.name: (p.lower, p.upper) for p in table} | ranges
    draws = (torch.from_numpy(rng.random(n)) for _ in table)
    theta = constant(held, n) | uniform_scalars(
        table, every, draws, lambda p, t: None if p.name in ranges else signal.box(p.name, t)
    )
    theta |= {p.name: uniform_axes(n, rng) for p in signal.parameters if isinstance(p, Direction)}
    if "S0" in ranges:
        theta["S0"] = _float(rng.uniform(*ranges["S0"], n))
    return theta


def uniform_scalars(
    table: Iterable[Parameter],
    ranges: Mapping[str, tuple[float, float]],
    draws: Iterable[Tensor],
    box: Callable[[Parameter, Theta], Box | None],
) -> Theta:
    """Parameters, each ``(N,)``, uniform in their ranges, or in bounds that follow from the parameters before them.

    On a log scale where the parameter has one (:meth:`pyroqmri.parameter.Parameter.within`).

    Parameters
    ----------
    table
        The parameters, those that the bounds of others depend on first.
    ranges
        Lower and upper end of each.
    draws
        Numbers ``(N,)`` uniform between 0 and 1, for one parameter after the other.
    box
        Bounds of a parameter given those before it, as :meth:`pyroqmri.signals.SignalModel.box`; None is its range.
    """
    theta: Theta = {}
    for p, u in zip(table, draws, strict=True):
        bounds = box(p, theta)
        if bounds is None:
            value = (p.within(*ranges[p.name]) if p.log else p).at(u, ranges[p.name])
        else:
            value = p.at(u, (bounds[0].to(u), bounds[1].to(u)))
        theta[p.name] = value.float()
    return theta


def uniform_axes(n: int, rng: np.random.Generator) -> Tensor:
    """Axes ``(n, 3)``, uniform on the sphere."""
    normal = rng.standard_normal((n, 3))
    return _float(normal / np.linalg.norm(normal, axis=-1, keepdims=True))


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
    """Classes of any signal's scalar parameters that are not held, one mapping a class, truncated to its bounds."""
    table = [p for p in signal.parameters if isinstance(p, Parameter) and p.name not in signal.held]
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
    return _sample(signal, signal_classes(signal, means, sds, weights), n, seed)


def tissue_classes(signal: type[SignalModel], weights: Sequence[float] = (1, 1, 1)) -> GaussianClasses:
    """The ``typical_tissue`` of a signal, truncated to its bounds; weights in the order of CLASSES.

    Raises
    ------
    InputError
        When the signal has none, or not of every class.
    """
    table = signal.typical_tissue
    if missing := [name for name in CLASSES if name not in table]:
        raise InputError(
            f"no tissue values are known for {signal.__name__}: its typical_tissue lacks {', '.join(missing)}; "
            "simulate uniform parameters (--phantom uniform), or add them to the signal's file"
        )
    means, sds = ([{p: values[j] for p, values in table[name].items()} for name in CLASSES] for j in (0, 1))
    return signal_classes(signal, means, sds, weights, CLASSES)


def tissue(signal: type[SignalModel], n: int, seed: int) -> tuple[Theta, Tensor]:
    """Parameters of ``n`` voxels drawn from :func:`tissue_classes`, directions uniform; and class indices ``(n,)``."""
    return _sample(signal, tissue_classes(signal), n, seed)


def _sample(signal: type[SignalModel], classes: GaussianClasses, n: int, seed: int) -> tuple[Theta, Tensor]:
    theta, labels = classes.sample(n, seed)
    rng = np.random.default_rng([seed, 1])
    theta |= constant(signal.held, n)
    return theta | {p.name: uniform_axes(n, rng) for p in signal.parameters if isinstance(p, Direction)}, labels


def constant(values: Mapping[str, float], n: int) -> Theta:
    """Parameters, each ``(n,)``, that all voxels have in common."""
    return {name: torch.full((n,), float(value)) for name, value in values.items()}


def _float(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
