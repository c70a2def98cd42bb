"""Where sticks lie in a voxel: a search over a grid of axes, for one, two and three of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.signals.shells import half_sphere

DIFFUSIVITIES = (0.5, 0.8, 1.2, 1.7, 2.4, 3.2)  # um2/ms
N_AXES = 91
CLOSEST = 0.9  # cosine of the axes of two sticks that count as one
N_MISSING, APART = 3, 0.87  # axes on which one more stick is looked for, and the cosine that two of them may have
_CHUNK = 512  # voxels, whose scores of all pairs of axes are in memory at a time
_LEAST = 0.01  # fraction that a stick starts with


@dataclass(frozen=True)
class StickPeaks:
    """The best single stick, and the best pair with a third one, of each of N voxels.

    Attributes
    ----------
    d
        Diffusivity ``(N, 3)``, of the best fit with one, two and three sticks.
    f
        Fractions ``(N, 3, 3)`` with as many sticks, falling; zero for a stick that is not there.
    n
        Axes ``(N, 3, 3, 3)`` of them.
    s0
        Mean signal without encoding ``(N,)``, 1 where none was measured.
    """

    d: Tensor
    f: Tensor
    n: Tensor
    s0: Tensor

    def theta(self, k: int) -> dict[str, Tensor]:
        """Parameters of the best fit with ``k`` sticks, one to three; of the others a little is left."""
        f = self.f[:, k - 1].clamp(_LEAST, 1.0)
        f = f / f.sum(-1, keepdim=True).clamp_min(1.0)
        scalars = {"D": self.d[:, k - 1], "f1": f[:, 0], "f2": f[:, 1], "f3": f[:, 2], "S0": self.s0}
        return scalars | {f"n{i + 1}": self.n[:, k - 1, i] for i in range(3)}

    def by_number(self) -> list[dict[str, Tensor]]:
        """:meth:`theta` of one stick, of two and of three."""
        return [self.theta(k) for k in (1, 2, 3)]


def decay(b: Tensor, D: Tensor | float, D_std: Tensor | float) -> Tensor:
    """Mean of exp(-b d) over a gamma distribution of diffusivities d; ``D_std`` is above zero."""
    r = D_std / D * (D_std / D)
    return torch.exp(-torch.log1p(r * D * b) / r)


@torch.no_grad()
def stick_peaks(acq: Acquisition, y: Tensor, width: float = 0.0) -> StickPeaks:
    """Sticks of measurements ``(N, M)`` by least squares over pairs of axes of a grid, and several diffusivities.

    Fractions are not negative and the ball has the rest. All pairs are looked at: one stick after the other would put
    the first between two that cross. ``width`` is the sd of the diffusivity in a voxel over its mean.
    """
    assert acq.bval is not None and acq.bvec is not None
    plain = acq.bval < 1e-3
    s0 = y[:, plain].mean(-1).clamp_min(1e-6) if bool(plain.any()) else torch.ones_like(y[:, 0])
    axes = torch.as_tensor(half_sphere(N_AXES), dtype=y.dtype, device=y.device)
    tables = [_Table(acq, axes, d, width) for d in DIFFUSIVITIES]
    parts = [_search(tables, part) for part in (y / s0.unsqueeze(-1)).split(_CHUNK)]
    d, f, n = (torch.cat([part[i] for part in parts]) for i in range(3))
    return StickPeaks(d, f, n, s0)


@torch.no_grad()
def missing_sticks(
    acq: Acquisition, d: Tensor, residual: Tensor, tangent: Tensor, d_std: Tensor | None = None
) -> Tensor:
    """Axes ``(N, J, 3)`` of a grid along which one more stick explains residuals ``(N, M)`` best, in order.

    Parameters
    ----------
    d
        Diffusivity ``(N,)``.
    tangent
        Orthonormal columns ``(N, M, P)`` of what the parameters that are there can take up themselves.
    d_std
        Standard deviation of the diffusivity in each voxel ``(N,)``; one diffusivity when None.

    Returns
    -------
    Tensor
        ``N_MISSING`` axes, at least about 30 degrees apart.
    """
    assert acq.bval is not None and acq.bvec is not None
    axes = torch.as_tensor(half_sphere(N_AXES), dtype=residual.dtype, device=residual.device)
    d, along = d[:, None, None], acq.bval * (axes @ acq.bvec.mT).square()
    d_std = None if d_std is None else d_std[:, None, None]
    sticks = _attenuation(along, d, d_std) - _attenuation(acq.bval, d, d_std)
    free = sticks - (sticks @ tangent) @ tangent.mT
    gain = (free @ residual.unsqueeze(-1)).squeeze(-1).clamp_min(0).square() / free.square().sum(-1).clamp_min(1e-6)
    alike, best = (axes @ axes.mT).abs() > APART, []
    for _ in range(N_MISSING):
        best.append(gain.argmax(-1))
        gain = gain.masked_fill(alike[best[-1]], -1.0)
    return axes[torch.stack(best, -1)]


def _attenuation(b: Tensor, d: Tensor | float, d_std: Tensor | float | None) -> Tensor:
    return torch.exp(-b * d) if d_std is None else decay(b, d, d_std)


class _Table:
    """Signals of sticks along a grid of axes ``(G, 3)`` less that of a ball, at one diffusivity."""

    def __init__(self, acq: Acquisition, axes: Tensor, d: float, width: float) -> None:
        assert acq.bval is not None and acq.bvec is not None
        bval, bvec = acq.bval.to(axes), acq.bvec.to(axes)
        self.axes, self.d = axes, d
        d_std = width * d if width else None
        self.ball = _attenuation(bval, d, d_std)
        self.sticks = _attenuation(bval * (axes @ bvec.mT).square(), d, d_std) - self.ball
        self.gram = self.sticks @ self.sticks.mT
        i, j = torch.triu_indices(len(axes), len(axes), 1, device=axes.device)
        apart = (axes[i] * axes[j]).sum(-1).abs() < CLOSEST
        self.i, self.j = i[apart], j[apart]
        self.aa, self.bb, self.ab = (self.gram[p, q] for p, q in ((self.i, self.i), (self.j, self.j), (self.i, self.j)))
        self.det = (self.aa * self.bb - self.ab.square()).clamp_min(1e-9)

    def best(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Squared residuals ``(N, 3)``, fractions ``(N, 3, 3)`` and axes ``(N, 3, 3)`` as indices."""
        rest = y - self.ball
        c = rest @ self.sticks.mT
        single = (c.clamp_min(0).square() / self.gram.diagonal().clamp_min(1e-9)).argmax(-1)
        a, b = c[:, self.i], c[:, self.j]
        one, two = (a * self.bb - b * self.ab) / self.det, (b * self.aa - a * self.ab) / self.det
        gain = torch.where((one > 0) & (two > 0), one * a + two * b, 0.0)
        pair = gain.argmax(-1)
        first, second = self.i[pair], self.j[pair]
        row = torch.arange(len(y), device=y.device)
        left = (
            rest
            - one[row, pair].unsqueeze(-1) * self.sticks[first]
            - two[row, pair].unsqueeze(-1) * self.sticks[second]
        )
        near = torch.maximum((self.axes @ self.axes[first].mT).abs(), (self.axes @ self.axes[second].mT).abs()).mT
        third = (left @ self.sticks.mT).masked_fill(near > CLOSEST, -torch.inf).argmax(-1)
        index = torch.stack([torch.stack(triple, -1) for triple in (
            (single, first, third), (first, second, third), (first, second, third))], 1)  # fmt: skip
        fits = [self._fit(rest, index[:, k], k + 1) for k in range(3)]
        return torch.stack([s for s, _ in fits], 1), torch.stack([f for _, f in fits], 1), index

    def _fit(self, rest: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Squared residual ``(N,)`` and fractions ``(N, 3)``, not negative, of the first ``k`` sticks of each voxel."""
        sticks = self.sticks[index[:, :k]]
        gram = sticks @ sticks.mT + 1e-6 * torch.eye(k).to(rest)
        f = torch.linalg.solve(gram, (sticks @ rest.unsqueeze(-1))).squeeze(-1).clamp_min(0)
        f = f / f.sum(-1, keepdim=True).clamp_min(1.0)
        square = (rest - (f.unsqueeze(-1) * sticks).sum(1)).square().sum(-1)
        return square, torch.nn.functional.pad(f, (0, 3 - k))


def _search(tables: list[_Table], y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Diffusivity ``(N, 3)``, fractions ``(N, 3, 3)`` and axes ``(N, 3, 3, 3)`` of the best table for each number."""
    found = [table.best(y) for table in tables]
    best = torch.stack([square for square, _, _ in found]).argmin(0)
    row, column = torch.arange(len(y), device=y.device).unsqueeze(-1), torch.arange(3, device=y.device)
    f, index = (torch.stack([each[i] for each in found])[best, row, column] for i in (1, 2))
    order = f.argsort(-1, descending=True)
    d = torch.as_tensor(np.asarray(DIFFUSIVITIES), dtype=y.dtype, device=y.device)[best]
    return d, f.gather(-1, order), tables[0].axes[index.gather(-1, order)]
