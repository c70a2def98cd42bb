"""The kurtosis tensor: its bounds, derived maps against dipy's and integrals over the sphere, its fits."""

import itertools

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.measurements.status import FINE
from pyroqmri.signals import DKI, BoundSignal
from pyroqmri.signals.kurtosis import QUARTIC
from pyroqmri.signals.tensor import ELEMENTS
from tests.helpers import rician, shells

ACQ = shells(4, 40, 1.0, 2.0)
PLACE = {"x": 0, "y": 1, "z": 2}
# the order of dipy's fifteen
DIPY = (*QUARTIC[:3], *QUARTIC[6:12], *QUARTIC[3:6], *QUARTIC[12:])


def compartments(n: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """D and W of three Gaussian compartments a voxel along random axes, W by the definition; eigenvalues of D."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet([3, 3, 2], n)
    turn = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    values = np.stack([rng.uniform(low, high, (n, 3)) for low, high in ((1.2, 2.2), (0.3, 0.9), (0.5, 1.2))], 1)
    values[:, 0, 1:] *= 0.15
    each = np.einsum("nij,ncj,nkj->ncik", turn, values, turn)
    D = np.einsum("nc,ncij->nij", share, each)
    off = each - D[:, None]
    fourth = np.einsum("nc,ncij,nckl->nijkl", share, off, off)
    W = sum(np.transpose(fourth, (0, *(1 + p for p in order))) for order in itertools.permutations(range(4))) / 24
    W = 3 * W / (np.trace(D, axis1=1, axis2=2) / 3)[:, None, None, None, None] ** 2
    theta = {name: D[:, PLACE[name[1]], PLACE[name[2]]] for name in ELEMENTS}
    theta |= {f"W{name}": W[(slice(None), *(PLACE[i] for i in name))] for name in QUARTIC}
    return {k: torch.from_numpy(v.copy()) for k, v in theta.items()}, torch.from_numpy(
        np.linalg.eigvalsh(D)[:, ::-1].copy()
    )


def along(theta: dict[str, torch.Tensor], axes: np.ndarray) -> torch.Tensor:
    """Apparent kurtosis ``(N, K)`` along axes, by its definition."""
    n = np.asarray(axes)
    D = sum(
        theta[f"D{''.join(sorted('xyz'[i] for i in at))}"][:, None] * np.prod(n[:, at], -1) for at in np.ndindex(3, 3)
    )
    W = sum(theta[f"W{''.join(sorted('xyz'[i] for i in at))}"][:, None] * np.prod(n[:, at], -1)
            for at in np.ndindex(3, 3, 3, 3))  # fmt: skip
    mean = (theta["Dxx"] + theta["Dyy"] + theta["Dzz"]) / 3
    return mean[:, None] ** 2 * W / D**2


def dipy_parameters(theta: dict[str, torch.Tensor]) -> np.ndarray:
    D = np.stack([theta[f"D{''.join(sorted(i + j))}"] for i in "xyz" for j in "xyz"], -1).reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(D)
    elements = np.stack([theta[f"W{name}"] for name in DIPY], -1)
    return np.concatenate([values[:, ::-1], vectors[:, :, ::-1].reshape(-1, 9), elements], -1)


def test_its_signal_is_dipys():
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dki import dki_prediction

    theta, _ = compartments(30)
    table = gradient_table(1000 * ACQ.bval.numpy(), bvecs=ACQ.bvec.numpy(), b0_threshold=0)
    parameters = dipy_parameters(theta)
    parameters[:, :3] /= 1000
    np.testing.assert_allclose(BoundSignal(DKI, ACQ).double()(theta), dki_prediction(parameters, table), rtol=1e-6)


def test_derived_maps_are_dipys():
    from dipy.reconst import dki

    theta, values = compartments(400)
    apart = (values[:, :2] / values[:, 1:] > 1.1).all(-1).numpy()  # where they are equal dipy takes limits
    found, cut = DKI.derived(theta), {"min_kurtosis": -3 / 7, "max_kurtosis": 10}
    parameters = dipy_parameters(theta)
    expected = {
        "AK": dki.axial_kurtosis(parameters, **cut), "RK": dki.radial_kurtosis(parameters, **cut),
        "KFA": dki.kurtosis_fractional_anisotropy(parameters),
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy()[apart], value[apart], atol=1e-6)
    # dipy's elliptic integrals cancel where two eigenvalues come near; the next test has the integral itself
    off = np.abs(found["MK"].numpy() - dki.mean_kurtosis(parameters, **cut))[apart]
    assert off.max() < 3e-3
    assert np.median(off) < 5e-6


def test_mean_and_radial_kurtosis_are_integrals_over_axes():
    theta, _ = compartments(40)
    t, weights = np.polynomial.legendre.leggauss(64)
    azimuth = 2 * np.pi * np.arange(128) / 128
    ring = np.sqrt(1 - t**2)[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)])[:, None]
    axes = np.stack([*ring, np.repeat(t[:, None], 128, 1)], -1).reshape(-1, 3)
    mean = along(theta, axes) @ torch.from_numpy(np.repeat(weights, 128) / 256)
    found = DKI.derived(theta)
    torch.testing.assert_close(found["MK"], mean, rtol=1e-6, atol=1e-6)
    for i in range(5):
        plane = np.linalg.svd(found["V1"][i : i + 1].numpy())[2][1:]
        circle = np.stack([np.cos(azimuth), np.sin(azimuth)], -1) @ plane
        one = {k: v[i : i + 1] for k, v in theta.items()}
        torch.testing.assert_close(found["RK"][i], along(one, circle).mean(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            found["AK"][i], along(one, found["V1"][i : i + 1].numpy())[0, 0], rtol=1e-6, atol=1e-6
        )


def test_equal_eigenvalues_leave_the_mean_as_it_is():
    theta = {f"D{i}{j}": torch.full((1,), 0.8 * (i == j)).double() for i, j in ("xx", "yy", "zz", "xy", "xz", "yz")}
    theta |= {f"W{name}": torch.zeros(1).double() for name in QUARTIC} | {"Wxxxx": torch.ones(1).double()}
    found = DKI.derived(theta)
    torch.testing.assert_close(found["MK"], torch.tensor([0.2]).double())  # the mean of x^4 over the sphere
    torch.testing.assert_close(found["KFA"], torch.tensor([0.8**0.5]).double())


def test_every_kurtosis_tensor_above_the_bound_is_inside():
    rng = np.random.default_rng(1)
    forms = rng.normal(size=(500, 3, 3, 3))
    forms = (forms + forms.transpose(0, 1, 3, 2)) * rng.uniform(0.05, 0.35, (500, 3, 1, 1))
    fourth = np.einsum("ncij,nckl->nijkl", forms, forms)  # a sum of three squares is any form above zero
    W = sum(np.transpose(fourth, (0, *(1 + p for p in order))) for order in itertools.permutations(range(4))) / 24
    isotropic = {"xxxx": 1.0, "yyyy": 1.0, "zzzz": 1.0, "xxyy": 1 / 3, "xxzz": 1 / 3, "yyzz": 1 / 3}
    theta = {f"W{k}": torch.from_numpy(W[(slice(None), *(PLACE[i] for i in k))] - isotropic.get(k, 0)) for k in QUARTIC}
    theta |= {name: torch.full((500,), 0.4 * (name[1] == name[2])).double() for name in ELEMENTS}
    signal = BoundSignal(DKI, ACQ).double()
    low = torch.stack([theta[f"W{4 * i}"] for i in "xyz"]).amax(0) < 4.5  # the upper bound is 2 D / MD^2, here 5
    assert low.sum() > 300
    back = signal.constrain(signal.unconstrain(theta))
    for name in theta:
        torch.testing.assert_close(back[name][low], theta[name][low], atol=1e-4, rtol=0)


def test_kurtosis_along_the_axes_is_bounded_all_over_the_box():
    signal = BoundSignal(DKI, ACQ).double()
    theta = signal.constrain(2 * torch.randn(5000, 21).double())
    for i in "xyz":
        K = theta[f"W{4 * i}"] * ((theta["Dxx"] + theta["Dyy"] + theta["Dzz"]) / 3 / theta[f"D{2 * i}"]).square()
        D = theta[f"D{2 * i}"]
        assert (K * D <= 2 + 1e-9).all()
        assert (theta[f"W{4 * i}"] >= -1).all()


@pytest.mark.parametrize("recipe", ["least_squares", pytest.param("hierarchical", marks=pytest.mark.slow)])
def test_fits_find_kurtosis_and_its_errors(recipe):
    theta, _ = compartments(400, seed=3)
    acq = shells(6, 60, 1.0, 2.0)
    y = 500 * rician(BoundSignal(DKI, acq).double()(theta).float(), 0.01)
    settings = {"training.steps": 80} if recipe == "hierarchical" else None
    post = pq.fit(y, acq, signal="dki", recipe=recipe, sigma=5.0, s0="inferred", settings=settings).posterior(y)
    truth = DKI.derived(theta)
    for name, typical in {"MD": 0.01, "FA": 0.01, "MK": 0.05, "AK": 0.06, "RK": 0.12}.items():
        off = post.mean[name] - truth[name]
        assert off.abs().median() < typical
        # over 400 voxels a right sd leaves 0.85 to 1.15 in the middle two thirds less than 1 time in 1,000
        assert 0.75 < float((off / post.sd[name]).abs().quantile(0.683)) < 1.3


def test_weighted_least_squares_is_dipys():
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dki import DiffusionKurtosisModel

    theta, _ = compartments(60, seed=4)
    y = rician(BoundSignal(DKI, ACQ).double()(theta).float(), 0.01)
    table = gradient_table(1000 * ACQ.bval.numpy(), bvecs=ACQ.bvec.numpy(), b0_threshold=0)
    expected = DiffusionKurtosisModel(table, fit_method="WLS").fit(y.double().numpy())
    fit = pq.fit(y, ACQ, signal="dki", recipe="least_squares", sigma=0.01, s0="inferred",
                 settings={"search.method": "closed_form"})  # fmt: skip
    inside = fit.posterior(y)
    for name, value in {"MD": 1000 * expected.md, "FA": expected.fa, "KFA": expected.kfa}.items():
        # those that noise put outside the bounds are moved to them
        assert float((inside.mean[name] - torch.from_numpy(value)).abs().quantile(0.5)) < 2e-4
    assert float((inside.mean["MK"] - torch.from_numpy(expected.mk(-3 / 7, 10))).abs().quantile(0.5)) < 2e-3


def test_a_kurtosis_that_is_cut_is_not_certain():
    # noise leaves radial kurtosis far below its bound, where it moves with no element of the tensors
    theta, _ = compartments(300, seed=3)
    y = rician(BoundSignal(DKI, ACQ)({k: v.float() for k, v in theta.items()}), 0.08, seed=1)
    post = pq.fit(y, ACQ, signal="dki", recipe="least_squares", sigma=0.08).posterior(y)
    cut = post.mean["RK"] <= -3 / 7
    assert cut.sum() > 5
    assert (post.sd["RK"][cut] > 10).all()
    assert (post.status[cut] != FINE).all()
    assert (post.sd["RK"] > 0).all()
