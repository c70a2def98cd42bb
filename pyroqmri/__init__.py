"""Probabilistic programming for quantitative MRI: parameter maps with honest uncertainty."""

import importlib
from typing import Any

__version__ = "0.1.0"

# torch and Pyro take seconds to import, and `pyroqmri --help` must not
_LAZY = {
    "Acquisition": "pyroqmri.acquisition",
    "Fit": "pyroqmri.fitting.fit",
    "InputError": "pyroqmri.errors",
    "Parameter": "pyroqmri.parameter",
    "Posterior": "pyroqmri.posterior",
    "check": "pyroqmri.calibration.check",
    "compare": "pyroqmri.comparison",
    "design": "pyroqmri.planning.plan",
    "fit": "pyroqmri.fitting.train",
    "fit_denoiser": "pyroqmri.fitting.denoiser",
    "fit_protocol": "pyroqmri.calibration.check",
    "load_denoiser": "pyroqmri.fitting.load_denoiser",
    "load_fit": "pyroqmri.fitting.load",
    "population_draws": "pyroqmri.fitting.save",
    "register": "pyroqmri.fitting.parts",
    "recalibrate": "pyroqmri.calibration.check",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pyroqmri' has no attribute {name!r}")
