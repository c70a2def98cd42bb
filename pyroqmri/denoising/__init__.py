"""Denoisers: networks trained on a scan's protocol, that answer measurements and not parameters."""

from pyroqmri.denoising.fit import Denoised, DenoiserFit, fit_denoiser
from pyroqmri.denoising.residual import ResidualCheck, check_residual
from pyroqmri.denoising.saved import is_denoiser, load_denoiser
from pyroqmri.denoising.tensors import TENSOR_ELEMENTS, tensor_quantities

__all__ = [
    "TENSOR_ELEMENTS",
    "Denoised",
    "DenoiserFit",
    "ResidualCheck",
    "check_residual",
    "fit_denoiser",
    "is_denoiser",
    "load_denoiser",
    "tensor_quantities",
]
