"""Repeated measurements carried by a few weighted ones."""

from dataclasses import replace

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.measurements.voxels import Voxels

N_NODES = 4  # a Gauss rule of 4 nodes carries the first 8 moments of the repeats


def repeats(acq: Acquisition) -> list[Tensor]:
    """Indices of the measurements at each distinct setting, in the order they first appear; bvec does not count."""
    table = torch.stack([v for k, v in acq.settings().items() if k != "bvec"], -1)
    _, which = torch.unique(table, dim=0, return_inverse=True)
    groups = [torch.nonzero(which == i).squeeze(-1) for i in range(int(which.max()) + 1)]
    return sorted(groups, key=lambda g: int(g[0]))


def worth_it(groups: list[Tensor]) -> bool:
    """Whether nodes are much fewer than measurements."""
    return sum(len(g) for g in groups) > 2 * sum(min(len(g), N_NODES) for g in groups)


def compress(voxels: Voxels, groups: list[Tensor]) -> Voxels:
    """Voxels whose ``y`` are Gauss nodes of the repeats at each setting and whose ``weights`` count them.

    A sum over repeats of any smooth function of the measurement is the weighted
    sum over the nodes: exactly so for polynomials up to degree 7, hence for the
    Gaussian log-likelihood, and to about a tenth of a nat for the Rician one once
    the logarithm of the measurement itself is left out.
    Repeats that count in part, by the voxels' own ``weights``, do so in the rule.
    """
    nodes, weights = [], []
    for group in groups:
        x = voxels.y[:, group]
        own = None if voxels.weights is None else voxels.weights[:, group]
        if len(group) <= N_NODES:
            nodes.append(x)
            weights.append(torch.ones_like(x) if own is None else own)
        else:
            node, weight = gauss_nodes(x, own)
            nodes.append(node)
            weights.append(weight)
    return replace(voxels, y=torch.cat(nodes, -1), weights=torch.cat(weights, -1))


def columns(groups: list[Tensor]) -> Tensor:
    """Index of one measurement at the setting of each compressed entry ``(M',)``."""
    return torch.cat([g[:1].expand(min(len(g), N_NODES)) for g in groups])


def gauss_nodes(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Nodes and weights ``(N, 4)`` of the Gauss rule of the points ``(N, n)``, by Lanczos on their Jacobi matrix.

    With ``weights`` ``(N, n)`` of the points; a voxel without any has nodes of weight zero.

    Source: Golub and Welsch 1969, doi:10.1090/S0025-5718-69-99647-1.
    """
    points = x.double()
    n: int | Tensor = points.shape[-1]
    centre, spread = points.mean(-1, keepdim=True), points.std(-1, keepdim=True).clamp_min(1e-12)
    points = (points - centre) / spread
    vector, before = torch.full_like(points, points.shape[-1] ** -0.5), torch.zeros_like(points)
    if weights is not None:
        n = weights.double().sum(-1, keepdim=True)
        vector = (weights.double() / n.clamp_min(1e-12)).sqrt()
    off = points.new_zeros(len(points), 1)
    jacobi = points.new_zeros(len(points), N_NODES, N_NODES)
    for i in range(N_NODES):
        image = points * vector - off * before
        diagonal = (image * vector).sum(-1, keepdim=True)
        jacobi[:, i, i] = diagonal.squeeze(-1)
        image = image - diagonal * vector
        off = image.norm(dim=-1, keepdim=True)
        if i + 1 < N_NODES:
            jacobi[:, i, i + 1] = jacobi[:, i + 1, i] = off.squeeze(-1)
        before, vector = vector, image / off.clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(jacobi)
    return (centre + spread * values).to(x.dtype), (n * vectors[:, 0].square()).to(x.dtype)
