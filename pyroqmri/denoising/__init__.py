"""Denoisers: autoencoders trained on a scan's protocol, whose output is measurements and not parameters."""

from pyroqmri.denoising.autoencoders import AUTOENCODERS
from pyroqmri.denoising.fit import Denoised, DenoiserFit
from pyroqmri.denoising.residual import ResidualCheck, check_residual
from pyroqmri.denoising.tensors import TENSOR_ELEMENTS, tensor_quantities

__all__ = [
    "AUTOENCODERS",
    "TENSOR_ELEMENTS",
    "Denoised",
    "DenoiserFit",
    "ResidualCheck",
    "check_residual",
    "tensor_quantities",
]
