"""The diffusion tensor by regression."""

import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals.tensor import (
    elements_of,
    fastest_axis,
    fractional_anisotropy,
    log_linear_tensor,
    principal_axis,
    tensor_design,
)
from tests.helpers import shells


def tensors(n: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(n, 3, 3, generator=generator) * 0.4
    return root @ root.mT + 0.3 * torch.eye(3)


def test_a_tensor_without_noise_is_found():
    acq, tensor = shells(1, 12, 1.0), tensors()
    decay = torch.einsum("mi,nij,mj->nm", acq.bvec, tensor, acq.bvec) * acq.bval
    y = 1.7 * torch.exp(-decay)
    torch.testing.assert_close(log_linear_tensor(acq, y), tensor, rtol=2e-3, atol=2e-3)
    assert log_linear_tensor(acq, y).dtype == torch.float32
    axis = torch.linalg.eigh(tensor).eigenvectors[..., -1]
    assert ((principal_axis(acq, y) * axis).sum(-1).abs() > 0.999).all()


EIGENVALUES = {
    "three": (2.0, 1.0, 0.3),
    "a stick": (2.0, 0.3, 0.3),
    "a pancake": (1.0, 1.0, 0.3),
    "nearly a pancake": (1.0, 0.9999, 0.3),
    "nearly a ball": (1.0 + 1e-6, 1.0, 1.0),
    "a ball": (1.0, 1.0, 1.0),
    "negative ones": (-1.0, -2.0, -2.5),
    "none": (0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("kind", EIGENVALUES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fastest_axis_has_the_largest_eigenvalue(kind, dtype):
    turn = torch.linalg.qr(torch.randn(2000, 3, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    turn[:2] = torch.eye(3)
    turn[1, [0, 2]] = turn[1, [2, 0]]
    values = torch.tensor(EIGENVALUES[kind]).double()
    tensor = ((turn * values) @ turn.mT).to(dtype)
    axis = fastest_axis(*elements_of(tensor))
    assert axis.dtype == dtype
    torch.testing.assert_close(axis.norm(dim=-1), torch.ones(2000, dtype=dtype))
    found = torch.einsum("ni,nij,nj->n", axis.double(), tensor.double(), axis.double())
    assert float((torch.linalg.eigvalsh(tensor.double())[:, -1] - found).max()) < 20 * torch.finfo(dtype).eps
    if values[0] - values[1] > 0.1:
        assert ((axis.double() * turn[..., 0]).sum(-1).abs() > 1 - 1e-6).all()


def test_fractional_anisotropy_is_that_of_the_eigenvalues_in_any_frame():
    def fa(*values: float) -> float:
        return float(fractional_anisotropy(*torch.tensor(values, dtype=torch.float64)))

    assert fa(2.0, 0.0, 0.0) == pytest.approx(1, abs=1e-9)
    assert fa(1.0, 1.0, 0.0) == pytest.approx(0.5**0.5, abs=1e-9)
    # a stick of 1.7 and 0.3: (1.7 - 0.3) / sqrt(1.7^2 + 2 x 0.3^2)
    assert fa(1.7, 0.3, 0.3) == pytest.approx(1.4 / 3.07**0.5, abs=1e-9)
    assert fa(0.8, 0.8, 0.8) < 1e-5
    assert fa(0.0, 0.0, 0.0) == 0
    values, turn = torch.linalg.eigh(tensors().double())
    turned = fractional_anisotropy(*elements_of((turn * values.unsqueeze(-2)) @ turn.mT))
    torch.testing.assert_close(turned, fractional_anisotropy(*values.unbind(-1)))


def test_fractional_anisotropy_has_a_slope_where_it_is_least():
    values = torch.full((3,), 0.8, requires_grad=True)
    (slope,) = torch.autograd.grad(fractional_anisotropy(*values), values)
    assert torch.isfinite(slope).all()


def test_the_fastest_axis_of_a_voxel_without_numbers_is_none():
    tensor = torch.eye(3).repeat(2, 1, 1)
    tensor[0, 0, 1] = tensor[0, 1, 0] = torch.nan
    axis = fastest_axis(*elements_of(tensor))
    assert axis[0].isnan().any()
    assert axis[1].isfinite().all()


def test_zeros_and_too_few_measurements_give_numbers():
    assert torch.isfinite(principal_axis(shells(1, 12, 1.0), torch.zeros(2, 13))).all()
    assert torch.isfinite(principal_axis(shells(1, 2, 1.0), torch.rand(2, 3))).all()


def test_the_design_needs_directions():
    assert tensor_design(shells(1, 6, 1.0)).shape == (7, 7)
    with pytest.raises(InputError, match="bvec"):
        tensor_design(Acquisition(bval=[0.0, 1.0]))
