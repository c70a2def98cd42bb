r"""Means and differences over subjects whose own values are uncertain.

.. math:: y_j \sim \mathcal N(x_j' \beta,\; \tau^2 + s_j^2)

with the known variance :math:`s_j^2` of each subject's value and a scatter :math:`\tau` between subjects, by restricted
maximum likelihood (Viechtbauer 2005, doi:10.3102/10769986030003261), and the standard errors and t intervals of Knapp
and Hartung 2003, doi:10.1002/sim.1482.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GRID, _BEYOND = 60, 10.0


@dataclass(frozen=True)
class Effects:
    """Coefficients ``beta`` and their errors ``se`` ``(K,)``, the scatter ``tau``, and degrees of freedom."""

    beta: NDArray
    se: NDArray
    tau: float
    freedom: int

    def interval(self, p: float = 0.9) -> NDArray:
        """Ends of the interval of each coefficient ``(K, 2)``."""
        from scipy.stats import t

        wide = float(t.ppf((1 + p) / 2, self.freedom)) * self.se
        return np.stack([self.beta - wide, self.beta + wide], 1)

    def p_value(self, k: int) -> float:
        """Two-sided probability of a coefficient this far from zero, if it is zero."""
        from scipy.stats import t

        return float(2 * t.sf(abs(self.beta[k]) / self.se[k], self.freedom)) if self.se[k] > 0 else float("nan")


def random_effects(values: NDArray, variances: NDArray, design: NDArray) -> Effects | None:
    """Coefficients of subjects' values ``(J,)``; None where there are no more subjects than coefficients.

    Parameters
    ----------
    values, variances
        Each subject's value and the variance of it ``(J,)``.
    design
        ``(J, K)``, such as a column of ones for a mean.
    """
    n, k = design.shape
    if n <= k or np.linalg.matrix_rank(design) < k:
        return None
    total = float(_residual(values, design).var() * n / (n - k))
    taus = np.concatenate([[0.0], np.geomspace(1e-6, _BEYOND, _GRID) * max(total, 1e-300)])
    scores = [_restricted(values, variances + tau, design) for tau in taus]
    best = int(np.argmax(scores))
    tau2 = _refined(values, variances, design, taus, best)
    weights = 1 / np.maximum(variances + tau2, 1e-300)
    information = design.T @ (weights[:, None] * design)
    beta = np.linalg.solve(information, design.T @ (weights * values))
    inflation = float((weights * (values - design @ beta) ** 2).sum()) / (n - k)
    se = np.sqrt(np.maximum(inflation * np.linalg.inv(information).diagonal(), 0))
    return Effects(beta, se, float(np.sqrt(tau2)), n - k)


def false_discovery(p_values: NDArray) -> NDArray:
    """The false discovery rate at which each of several tests is the last to count ``(K,)``; NaN is no test.

    Source: Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    q = np.full(len(p_values), np.nan)
    tests = np.flatnonzero(np.isfinite(p_values))
    order = tests[np.argsort(p_values[tests])]
    ranked = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum.accumulate(ranked[::-1])[::-1].clip(0, 1)
    return q


def _refined(values: NDArray, variances: NDArray, design: NDArray, taus: NDArray, best: int) -> float:
    """The variance between subjects, between the neighbours of the best one of a grid."""
    from scipy.optimize import minimize_scalar

    low, high = taus[max(best - 1, 0)], taus[min(best + 1, len(taus) - 1)]
    found = minimize_scalar(
        lambda tau: -_restricted(values, variances + tau, design), bounds=(low, high), method="bounded",
        options={"xatol": 1e-6 * max(high, 1e-300)},
    )  # fmt: skip
    at_zero = _restricted(values, variances, design) >= -found.fun
    return 0.0 if at_zero else float(found.x)


def _restricted(values: NDArray, total: NDArray, design: NDArray) -> float:
    """Restricted log-likelihood at total variances ``(J,)``, but for a constant."""
    if not (total > 0).all():
        return -np.inf
    weights = 1 / total
    information = design.T @ (weights[:, None] * design)
    beta = np.linalg.solve(information, design.T @ (weights * values))
    squares = (weights * (values - design @ beta) ** 2).sum()
    return float(-0.5 * (np.log(total).sum() + np.linalg.slogdet(information)[1] + squares))


def _residual(values: NDArray, design: NDArray) -> NDArray:
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
