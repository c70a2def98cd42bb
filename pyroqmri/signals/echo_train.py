"""Echoes of a train of equal refocusing pulses, with the stimulated ones, and how they move with T2 and the angle."""

import math

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition, shortest_step

_T1 = 1000.0  # ms
Cubic = tuple[Tensor, Tensor, Tensor, Tensor]  # coefficients of a polynomial, from the constant one on


def numbered(acq: Acquisition) -> tuple[float, Tensor]:
    """Echo spacing in ms, the shortest echo time or step unless it is stated, and which echo each time ``(M,)`` is."""
    assert acq.te is not None
    spacing = shortest_step(acq.te) if acq.echo_spacing is None else float(acq.echo_spacing[0])
    return spacing, torch.round(acq.te / spacing).long()


def train(n: int, spacing: float, T2: Tensor, angle: Tensor) -> Tensor:
    """The first ``n`` echoes ``(..., n)`` after an excitation by 90 degrees, over S0.

    Coefficients of the generating function 1/2 + y/2 of Lukzen and Savelov 2007, J Magn Reson 185:71-76,
    where y is the root of P/Q, two cubic polynomials. As 2 P Q y' = (P' Q - P Q') y, each one follows from six others.

    Parameters
    ----------
    n, spacing
        Number of echoes, and the time between two in ms.
    T2, angle
        Relaxation times in ms and refocusing angles in rad, each ``(..., 1)``. T1 is taken as 1000 ms.
    """
    E1, E2, cosine = _decays(spacing, T2, angle)
    plain, counted = _product(*_polynomials(E1, E2, cosine))
    echoes = [torch.ones_like(plain[0])]
    for k in range(1, n + 1):
        echoes.append(_next(counted / k - plain, echoes))
    return (torch.cat(echoes[1:], -1) / 2).to(T2.dtype)


def train_slopes(n: int, spacing: float, T2: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The echoes of :func:`train`, and their derivatives by T2 (1/ms) and by the angle (1/rad), each ``(..., n)``.

    For either derivative 2 P Q dy = (dP Q - P dQ) y.
    """
    E1, E2, cosine = _decays(spacing, T2, angle)
    P, Q = _polynomials(E1, E2, cosine)
    plain, counted = _product(P, Q)
    pull = torch.stack([_product(dP, Q)[0] - _product(P, dQ)[0] for dP, dQ in _moves(E1, E2, cosine)], 1) / 2
    echoes, slopes = [torch.ones_like(plain[0])], [torch.zeros_like(pull[0])]
    back = -plain
    for k in range(1, n + 1):
        slopes.append(_next(pull, echoes, _next(back, slopes)))
        echoes.append(_next(counted / k - plain, echoes))
    found, (by_E2, by_cosine) = torch.cat(echoes[1:], -1) / 2, torch.cat(slopes[1:], -1) / 2
    by = by_E2 * E2 * spacing / T2.square(), by_cosine * -torch.sin(angle)
    return found.to(T2.dtype), by[0].to(T2.dtype), by[1].to(T2.dtype)


def _decays(spacing: float, T2: Tensor, angle: Tensor) -> tuple[float, Tensor, Tensor]:
    """What is left after a spacing, and the cosine, in float64: roots that nearly meet cost half of the digits."""
    return math.exp(-spacing / _T1), torch.exp(-spacing / T2.double()), torch.cos(angle.double())


def _polynomials(E1: float, E2: Tensor, c: Tensor) -> tuple[Cubic, Cubic]:
    """(1 + E2 z)(1 - (E1 + E2) c z + E1 E2 z^2) and (1 - E2 z)(1 - (E1 - E2) c z - E1 E2 z^2)."""
    more, less, both = (E1 + E2) * c, (E1 - E2) * c, E1 * E2
    last = E2 * both
    return (torch.ones_like(more), E2 - more, both - E2 * more, last), (
        torch.ones_like(more), -E2 - less, E2 * less - both, last,
    )  # fmt: skip


def _moves(E1: float, E2: Tensor, c: Tensor) -> tuple[tuple[Cubic, Cubic], tuple[Cubic, Cubic]]:
    """Slopes of both polynomials by E2, and by c."""
    none, last = torch.zeros_like(E2 * c), 2 * E1 * E2
    above = (none, 1 - c + none, E1 - (E1 + 2 * E2) * c, last)
    below = (none, c - 1 + none, (E1 - 2 * E2) * c - E1, last)
    turned = (none, none - E1 - E2, none - E2 * (E1 + E2), none), (none, none + E2 - E1, none + E2 * (E1 - E2), none)
    return (above, below), turned


def _product(P: Cubic, Q: Cubic) -> tuple[Tensor, Tensor]:
    """Coefficients 1 to 6 of P Q ``(6, ...)``, and the same with each term P_i Q_j counted (3 i + j) / 2 times."""
    plain, counted = ([torch.zeros_like(P[0])] * 6 for _ in range(2))
    for i, p in enumerate(P):
        for j, q in enumerate(Q):
            if i + j:
                plain[i + j - 1] = plain[i + j - 1] + p * q
                counted[i + j - 1] = counted[i + j - 1] + (p * q) * ((3 * i + j) / 2)
    return torch.stack(plain), torch.stack(counted)


def _next(weights: Tensor, past: list[Tensor], more: Tensor | None = None) -> Tensor:
    """Sum of the last six of a sequence, or as many as there are, with weights ``(6, ...)``, and of what is added."""
    found = weights[0] * past[-1] if more is None else torch.addcmul(more, weights[0], past[-1])
    for weight, value in zip(weights[1:], reversed(past[-6:-1]), strict=False):
        found = torch.addcmul(found, weight, value)
    return found
