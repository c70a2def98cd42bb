"""Probabilistic programming for quantitative MRI: parameter maps with honest uncertainty."""

import importlib
from typing import Any

__version__ = "0.1.0"

# torch and Pyro take seconds to import, and `pyroqmri --help` must not
_LAZY = {
    "Acquisition": "pyroqmri.acquisition",
    "Fit": "pyroqmri.trained",
    "InputError": "pyroqmri.errors",
    "Parameter": "pyroqmri.parameter",
    "Posterior": "pyroqmri.posterior",
    "check": "pyroqmri.checking",
    "compare": "pyroqmri.comparison",
    "fit": "pyroqmri.trained",
    "fit_denoiser": "pyroqmri.denoising",
    "fit_protocol": "pyroqmri.checking",
    "load_denoiser": "pyroqmri.denoising",
    "load_fit": "pyroqmri.trained",
    "population_draws": "pyroqmri.saved",
    "recalibrate": "pyroqmri.checking",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pyroqmri' has no attribute {name!r}")
