"""What tests ask ArviZ itself, of 0.x and of 1.x alike."""

import warnings

import numpy as np

from pyroqmri.diagnostics.arviz_adapter import arviz_major, import_arviz

# 1.x fits the tail by another rule, so that its shapes and weights are near and not the same
PSIS_TOLERANCE = 1e-6 if arviz_major() == 0 else 0.1


def psislw(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pareto-smoothed log weights ``(..., S)`` and shapes ``(...,)``."""
    if arviz_major() == 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_arviz().psislw(log_weights.copy())
    from arviz_stats.base import array_stats

    return array_stats.psislw(-log_weights)  # a log-likelihood, whose negative is the weight of a draw left out


def loo(data, var_name: str = "y") -> float:
    """Expected log predictive density by leave-one-out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = import_arviz().loo(data, var_name=var_name)
    return float(found.iloc[0] if arviz_major() == 0 else found.elpd)
