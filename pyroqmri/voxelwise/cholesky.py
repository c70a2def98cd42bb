"""Positive definite systems of a few unknowns, very many at once."""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn.functional import threshold

from pyroqmri.laplace.mode import safe_cholesky

_STUCK = 1e18
_MANY = 12  # unknowns from which LAPACK's routine is faster than a call for each entry


def factorise(matrix: Tensor | Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Rows of the lower Cholesky factors of matrices ``(L, L, N)``, or of their rows up to the diagonal.

    Written out entry by entry: each operation runs over all voxels, where a batched
    routine of LAPACK spends more on calling than on computing. A pivot that rounding
    left at or below zero becomes a very large one, so that its unknown stays put.
    """
    rows: list[list[Tensor]] = []
    for i in range(len(matrix)):
        row: list[Tensor] = []
        for j in range(i + 1):
            entry = _minus(matrix[i][j], row[:j], row[:j] if i == j else rows[j][:j])
            if i == j:
                row.append(threshold(entry, 0.0, _STUCK**2).sqrt_())
            else:
                row.append(entry / rows[j][j])
        rows.append(row)
    return rows


def solve(matrix: Tensor | Sequence[Sequence[Tensor]], right: Tensor) -> Tensor:
    """Solutions ``(L, N)`` of the systems ``matrix`` ``(L, L, N)`` with right-hand sides ``(L, N)``."""
    if _are_many(matrix):
        return torch.cholesky_solve(right.mT.unsqueeze(-1), safe_cholesky(matrix.permute(2, 0, 1))).squeeze(-1).mT
    factor, n = factorise(matrix), len(matrix)
    forward: list[Tensor] = []
    for i in range(n):
        forward.append(_minus(right[i], factor[i][:i], forward) / factor[i][i])
    back: list[Tensor] = [right[0]] * n
    for i in reversed(range(n)):
        back[i] = _minus(forward[i], [factor[k][i] for k in range(i + 1, n)], back[i + 1 :]) / factor[i][i]
    return torch.stack(back)


def _are_many(matrix: Tensor | Sequence[Sequence[Tensor]]) -> TypeGuard[Tensor]:
    return isinstance(matrix, Tensor) and len(matrix) > _MANY


def _minus(entry: Tensor, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The entry less the products of two rows, a fused operation each."""
    for k, (a, b) in enumerate(zip(one, other, strict=True)):
        entry = entry.addcmul_(a, b, value=-1) if k else torch.addcmul(entry, a, b, value=-1)
    return entry


def positive_definite(matrix: Tensor) -> Tensor:
    """Whether each matrix ``(L, L, N)`` is positive definite, ``(N,)``."""
    if _are_many(matrix):
        return torch.linalg.cholesky_ex(matrix.permute(2, 0, 1)).info == 0
    factor = factorise(matrix)
    return torch.stack([row[-1] < _STUCK / 2 for row in factor]).all(0)


def quadratic_form(matrix: Tensor, vector: Tensor) -> Tensor:
    """``v' A^-1 v`` ``(..., N)`` of vectors ``(L, ..., N)`` and matrices ``(L, L, N)``."""
    if _are_many(matrix):
        factor = safe_cholesky(matrix.permute(2, 0, 1))
        columns = vector.reshape(len(vector), -1, vector.shape[-1]).permute(2, 0, 1)
        total = torch.linalg.solve_triangular(factor, columns, upper=False).square().sum(1)
        return total.mT.reshape(vector.shape[1:])
    factor, total = factorise(matrix), torch.zeros_like(vector[0])
    forward: list[Tensor] = []
    for i in range(len(matrix)):
        forward.append(_minus(vector[i], factor[i][:i], forward) / factor[i][i])
        total = total + forward[i].square()
    return total
