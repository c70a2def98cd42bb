"""The diffusion tensor by linear regression: where directions start."""

import torch
from torch import Tensor

from pyroqmri.acquisition import Acquisition
from pyroqmri.parameter import frame_around

ELEMENTS = ("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz")


def tensor_design(acq: Acquisition) -> Tensor:
    """Design ``(M, 7)``, or ``(N, M, 7)``, of log S = -b g'Dg + log S0; columns xx, yy, zz, xy, xz, yz, log S0."""
    acq.require("bval", "bvec")
    assert acq.bval is not None and acq.bvec is not None
    x, y, z = acq.bvec.unbind(-1)
    quadratic = torch.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], -1)
    return torch.cat([-acq.bval.unsqueeze(-1) * quadratic, torch.ones_like(acq.bval.unsqueeze(-1))], -1)


def exponents(coefficients: Tensor, design: Tensor) -> Tensor:
    """Products ``(..., N, M)`` of coefficients ``(..., N, C)`` with a design ``(M, C)`` or ``(N, M, C)``."""
    if design.dim() == 2:
        return coefficients @ design.mT
    return (coefficients.unsqueeze(-2) @ design.mT).squeeze(-2)


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
    return fastest_axis(*elements_of(log_linear_tensor(acq, y)))


def elements_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """Elements xx, yy, zz, xy, xz, yz of symmetric tensors ``(..., 3, 3)``."""
    return tuple(tensor[..., i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)))


def fractional_anisotropy(
    xx: Tensor, yy: Tensor, zz: Tensor, xy: Tensor | float = 0.0, xz: Tensor | float = 0.0, yz: Tensor | float = 0.0
) -> Tensor:
    r"""FA ``(...)`` of tensors by their elements, or by their three eigenvalues, which are elements too.

    .. math:: FA^2 = \frac{3}{2} \frac{|D - \bar D I|^2}{|D|^2}

    It is 0 for a tensor of zeros.

    Source: Basser and Pierpaoli 1996, doi:10.1006/jmrb.1996.0086.
    """
    mean = (xx + yy + zz) / 3
    across = xy * xy + xz * xz + yz * yz
    spread = (xx - mean).square() + (yy - mean).square() + (zz - mean).square() + 2 * across
    square = spread + 3 * mean.square()
    # the root of zero has no slope
    return (1.5 * (spread + 1e-12 * square) / square.clamp_min(1e-12)).sqrt()


def fastest_axis(xx: Tensor, yy: Tensor, zz: Tensor, xy: Tensor, xz: Tensor, yz: Tensor) -> Tensor:
    """Eigenvectors ``(..., 3)`` of the largest eigenvalues of symmetric tensors; their sign means nothing."""
    last, first, u, w, angle = _axes(xx, yy, zz, xy, xz, yz)
    return torch.where(last, torch.cos(angle) * u + torch.sin(angle) * w, first)


def eigensystem(xx: Tensor, yy: Tensor, zz: Tensor, xy: Tensor, xz: Tensor, yz: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(..., 3)`` of symmetric tensors, the largest first, and their vectors, rows of ``(..., 3, 3)``.

    The vectors are without slopes, of which those of equal eigenvalues have none.
    """
    with torch.no_grad():
        last, first, u, w, angle = _axes(xx, yy, zz, xy, xz, yz)
        large = torch.cos(angle) * u + torch.sin(angle) * w
        small = torch.cos(angle) * w - torch.sin(angle) * u
        rows = torch.where(last, large, first), torch.where(last, small, large), torch.where(last, first, small)
    values = [_form(n, n, xx, yy, zz, xy, xz, yz) for n in rows]
    return torch.stack(values, -1), torch.stack(rows, -2)


def _axes(
    xx: Tensor, yy: Tensor, zz: Tensor, xy: Tensor, xz: Tensor, yz: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The eigenvector of the eigenvalue furthest from the others, and the two across as an angle in their plane.

    In closed form, since LAPACK takes five times as long for very many small matrices: that vector is the one which
    rounding cannot turn (Eberly, A robust eigensolver for 3 x 3 symmetric matrices, 2014).

    Returns
    -------
    tuple
        Whether its eigenvalue is the smallest ``(..., 1)``, else it is the largest; the vector and two vectors across
        ``(..., 3)``; the angle ``(..., 1)`` from the first of these to the eigenvector of the larger eigenvalue there.
    """
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    square = a.square() + b.square() + c.square() + 2 * (xy.square() + xz.square() + yz.square())
    number = torch.finfo(xx.dtype)
    size = torch.maximum((square / 6).sqrt(), 16 * number.eps * mean.abs()).clamp_min(number.tiny)  # less is rounding
    a, b, c, d, e, f = (element / size for element in (a, b, c, xy, xz, yz))
    half = (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2
    far = 2 * torch.cos(torch.acos(half.abs().clamp_max(1)) / 3) * torch.where(half < 0, -1.0, 1.0)
    first, u, w = frame_around(_column(a - far, b - far, c - far, d, e, f)).unbind(-2)
    one, other, both = (_form(m, n, a, b, c, d, e, f) for m, n in ((u, u), (w, w), (u, w)))
    angle = torch.atan2(2 * both, one - other) / 2
    return (half < 0).unsqueeze(-1), first, u, w, angle.unsqueeze(-1)


def _column(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """Unit vector ``(..., 3)`` that singular matrices of these elements take to zero: a column of their adjugate."""
    xx, yy, zz = b * c - f * f, a * c - e * e, a * b - d * d
    xy, xz, yz = e * f - d * c, d * f - e * b, d * e - a * f
    columns = [torch.stack(column, -1) for column in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
    rest = torch.where((yy > zz).unsqueeze(-1), columns[1], columns[2])
    found = torch.where(((xx >= yy) & (xx >= zz)).unsqueeze(-1), columns[0], rest)
    return found / found.norm(dim=-1, keepdim=True)


def _form(m: Tensor, n: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """``m' D n`` of vectors ``(..., 3)``."""
    (x, y, z), (p, q, r) = m.unbind(-1), n.unbind(-1)
    return a * x * p + b * y * q + c * z * r + d * (x * q + y * p) + e * (x * r + z * p) + f * (y * r + z * q)
