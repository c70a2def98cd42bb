"""The diffusion tensor: positive definite, equal to dipy's, its derived quantities, its fits."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.measurements.status import AT_BOUND
from pyroqmri.signals import DTI, BoundSignal
from pyroqmri.signals.tensor import tensor_of
from pyroqmri.simulate import uniform
from tests.helpers import rician, shells

ACQ = shells(3, 15, 1.0, 2.0)
ELEMENTS = ("Dxx", "Dyy", "Dzz", "Dxy", "Dxz", "Dyz")


def fibres(n: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """White-matter-like tensors along random axes, eigenvalues 1.5, 0.5, 0.4, and the axes ``(n, 3)``."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator))[0]
    tensor = turn @ torch.diag(torch.tensor([1.5, 0.5, 0.4])) @ turn.mT
    pairs = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    return {name: tensor[:, i, j] for name, (i, j) in zip(ELEMENTS, pairs, strict=True)}, turn[:, :, 0]


def test_every_point_of_the_box_is_positive_definite():
    signal = BoundSignal(DTI, ACQ).double()
    for scale, least in ((1, 1e-12), (4, -1e-9)):  # at the far end of a bound the determinant rounds to zero
        theta = signal.constrain(scale * torch.randn(20_000, 6).double())
        assert torch.linalg.eigvalsh(tensor_of(*(theta[k] for k in ELEMENTS))).min() > least


def test_any_positive_definite_tensor_is_reached():
    theta, _ = fibres(500)
    signal = BoundSignal(DTI, ACQ)
    back = signal.constrain(signal.unconstrain(theta))
    for name in ELEMENTS:
        torch.testing.assert_close(back[name], theta[name], atol=1e-5, rtol=0)


def test_uniform_parameters_are_tensors_too():
    theta = uniform(DTI, 5_000, seed=0)
    assert torch.linalg.eigvalsh(tensor_of(*(theta[k].double() for k in ELEMENTS))).min() > -1e-6
    assert BoundSignal(DTI, ACQ)(theta).max() <= 1 + 1e-6


def test_held_elements_narrow_the_bounds_of_others():
    signal = BoundSignal(DTI, ACQ, fixed={"Dxy": 0.0, "Dxz": 0.0, "Dyz": 0.0})
    theta = signal.constrain(torch.randn(100, 3))
    assert (theta["Dxy"] == 0).all()
    tied = BoundSignal(DTI, ACQ, tied={"Dzz": "Dyy"})
    theta = tied.constrain(torch.randn(100, 5))
    assert torch.equal(theta["Dzz"], theta["Dyy"])
    assert torch.linalg.eigvalsh(tensor_of(*(theta[k] for k in ELEMENTS))).min() > 0


def test_signal_and_derived_quantities_are_dipys():
    from dipy.core.gradients import gradient_table
    from dipy.reconst import dti

    theta, axis = fibres(50)
    table = gradient_table(ACQ.bval.numpy(), bvecs=ACQ.bvec.numpy(), b0_threshold=0)
    tensor = tensor_of(*(theta[k].double() for k in ELEMENTS)).numpy()
    values, vectors = np.linalg.eigh(tensor)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    expected = [dti.design_matrix(table) @ np.r_[dti.lower_triangular(t), 0] for t in tensor]
    np.testing.assert_allclose(BoundSignal(DTI, ACQ)(theta), np.exp(expected), rtol=1e-5)
    derived = DTI.derived(theta)
    np.testing.assert_allclose(derived["MD"], dti.mean_diffusivity(values), rtol=1e-5)
    np.testing.assert_allclose(derived["FA"], dti.fractional_anisotropy(values), rtol=1e-5)
    np.testing.assert_allclose(derived["AD"], dti.axial_diffusivity(values), rtol=1e-5)
    np.testing.assert_allclose(derived["RD"], dti.radial_diffusivity(values), rtol=1e-5)
    assert ((derived["V1"] * axis).sum(-1).abs() > 0.9999).all()


def test_slopes_of_derived_quantities_are_those_of_finite_differences():
    theta = {k: v.double()[:20] for k, v in fibres(20)[0].items()}
    for element in ELEMENTS:
        step = {k: torch.full_like(v, 1e-5 * (k == element)) for k, v in theta.items()}
        up, down = (DTI.derived({k: v + sign * step[k] for k, v in theta.items()}) for sign in (1, -1))
        tangents = {k: torch.full_like(v, float(k == element)) for k, v in theta.items()}
        slopes = torch.func.jvp(DTI.derived, (theta,), (tangents,))[1]
        for name in ("MD", "FA", "AD", "RD"):
            torch.testing.assert_close(slopes[name], (up[name] - down[name]) / 2e-5, rtol=1e-3, atol=1e-6)


def test_an_isotropic_tensor_has_no_anisotropy_and_finite_slopes():
    theta = {k: torch.full((2,), 1.0 if k in ELEMENTS[:3] else 0.0, requires_grad=True) for k in ELEMENTS}
    derived = DTI.derived(theta)
    assert (derived["FA"] < 1e-3).all()
    for name in ("FA", "AD", "RD"):
        for slope in torch.autograd.grad(derived[name].sum(), list(theta.values()), retain_graph=True):
            assert torch.isfinite(slope).all()


@pytest.mark.parametrize("recipe", ["least_squares", "hierarchical"])
def test_fits_find_tensors_axes_and_their_errors(recipe):
    theta, axis = fibres(300)
    y = 500 * rician(BoundSignal(DTI, ACQ)(theta), 0.02)
    settings = {"training.steps": 80} if recipe == "hierarchical" else None
    # a measured S0 would be taken for exact, and three b0s make MD's sd too small by a third
    fit = pq.fit(y, ACQ, signal="dti", recipe=recipe, sigma=10.0, s0="inferred", settings=settings)
    post = fit.posterior(y)
    truth = DTI.derived(theta)
    for name in ("MD", "FA", "AD", "RD"):
        off = post.mean[name] - truth[name]
        assert off.abs().median() < 0.03
        # sd of off / sd over 300 voxels: a right one leaves 0.8 to 1.25 less than 1 time in 10,000
        assert 0.7 < float((off / post.sd[name]).std()) < 1.35
    angle = torch.rad2deg(torch.acos((post.direction * axis).sum(-1).abs().clamp(max=1)))
    assert angle.quantile(0.9) < 5
    if recipe == "hierarchical":
        assert 0.8 < float((angle < post.cone(0.9)).float().mean()) < 0.98
        draws = post.draws(50)
        assert (draws["V1"] * post.direction).sum(-1).min() >= 0


def test_a_tensor_that_noise_makes_flat_is_said_to_be_at_a_bound():
    stick = {k: torch.full((30,), v) for k, v in zip(ELEMENTS, (1.7, 0.6, 0.6, 1.008, 1.008, 0.599), strict=True)}
    y = rician(BoundSignal(DTI, ACQ)(stick), 0.03)
    post = pq.fit(y, ACQ, signal="dti", recipe="least_squares", sigma=0.03).posterior(y)
    assert (post.status == AT_BOUND).any()
