"""The diffusion tensor by linear regression: where directions start."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition


def tensor_design(acq: Acquisition) -> Tensor:
    """Design matrix ``(M, 7)`` of log S = -b g'Dg + log S0; columns xx, yy, zz, xy, xz, yz, log S0."""
    acq.require("bval", "bvec")
    assert acq.bval is not None and acq.bvec is not None
    x, y, z = acq.bvec.unbind(-1)
    quadratic = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], -1)
    return torch.cat([-acq.bval[:, None] * quadratic, torch.ones_like(acq.bval[:, None])], -1)


def log_linear_tensor(acq: Acquisition, y: Tensor) -> Tensor:
    """Weighted linear least squares tensors ``(N, 3, 3)`` of measurements ``(N, M)``, weighted by signal squared."""
    design = tensor_design(acq).double()
    signal = y.double().clamp_min(1e-3)
    weighted = design * signal.square().unsqueeze(-1)
    normal = design.mT @ weighted + 1e-8 * torch.eye(7, dtype=design.dtype, device=design.device)
    solution = torch.linalg.solve(normal, (weighted.mT @ signal.log().unsqueeze(-1))).squeeze(-1)
    xx, yy, zz, xy, xz, yz, _ = solution.unbind(-1)
    return tensor_of(xx, yy, zz, xy, xz, yz).to(y.dtype)


def tensor_of(xx: Tensor, yy: Tensor, zz: Tensor, xy: Tensor, xz: Tensor, yz: Tensor) -> Tensor:
    """Symmetric tensors ``(..., 3, 3)`` of their elements, each ``(...)``."""
    rows = [torch.stack(r, -1) for r in ([xx, xy, xz], [xy, yy, yz], [xz, yz, zz])]
    return torch.stack(rows, -2)


def principal_axis(acq: Acquisition, y: Tensor) -> Tensor:
    """Axis ``(N, 3)`` along which diffusion is fastest."""
    return torch.linalg.eigh(log_linear_tensor(acq, y)).eigenvectors[..., -1]
