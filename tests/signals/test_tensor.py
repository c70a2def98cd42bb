"""The diffusion tensor by regression."""

import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.signals.tensor import log_linear_tensor, principal_axis, tensor_design
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


def test_zeros_and_too_few_measurements_give_numbers():
    assert torch.isfinite(principal_axis(shells(1, 12, 1.0), torch.zeros(2, 13))).all()
    assert torch.isfinite(principal_axis(shells(1, 2, 1.0), torch.rand(2, 3))).all()


def test_the_design_needs_directions():
    assert tensor_design(shells(1, 6, 1.0)).shape == (7, 7)
    with pytest.raises(InputError, match="bvec"):
        tensor_design(Acquisition(bval=[0.0, 1.0]))
