"""What callers give: arrays of every kind, units of every size, seeds, S0 and noise levels."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import pyroqmri as pq
from pyroqmri.comparison.held_out import held_out_shell
from pyroqmri.errors import InputError
from pyroqmri.measurements.arguments import as_level, as_measurements, as_numbers, as_positions, as_tensor
from pyroqmri.signals import IVIM, MSDKI, BoundSignal
from pyroqmri.simulate import simulate
from tests.helpers import msdki_data, rician, shells

Y, ACQ = msdki_data(60, 0.05, s0=300.0)
ARRAY = Y.numpy()
QUICK = {"training.steps": 10, "training.check_every": 5}


def quick(y=Y, recipe="least_squares", **changes):
    settings = {} if recipe == "least_squares" else QUICK
    return pq.fit(y, ACQ, signal="msdki", recipe=recipe, **({"sigma": 15.0, "settings": settings} | changes))


STRUCTURED = np.zeros(60, dtype=[("y", "f4", 16), ("other", "i1")])
STRUCTURED["y"] = ARRAY
READ_ONLY = ARRAY.copy()
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "y",
    [
        ARRAY.astype(">f4"),
        ARRAY.astype(object),
        ARRAY.astype(np.longdouble),
        np.asfortranarray(ARRAY),
        ARRAY[::-1].copy()[::-1],
        np.repeat(ARRAY, 2, 1)[:, ::2],
        STRUCTURED["y"],
        READ_ONLY,
        ARRAY.tolist(),
        list(Y),
        Y.clone().requires_grad_(),
        Y.double().requires_grad_() * 1,
        Y.to_sparse(),
        pd.DataFrame(ARRAY),
        xr.DataArray(ARRAY, dims=("voxel", "volume")),
    ],
)
def test_arrays_of_the_same_numbers_are_the_same_measurements(y):
    found = as_measurements(y, ACQ)
    assert torch.equal(found, Y)
    assert found.dtype == torch.float32
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (ARRAY > 100, "true and false, a mask"),
        (Y > 100, "true and false, a mask"),
        (ARRAY * 1j, "must be real, got complex numbers; give their magnitude"),
        (Y * 1j, "must be real, got complex numbers"),
        (ARRAY.astype(str), "must be numbers, got an array of <U32"),
        (np.array([["1.0"] * 16], object), "must be numbers, got an array of object"),
        (ARRAY.astype("datetime64[s]"), "must be numbers"),
        (STRUCTURED, "must be numbers"),
        ([[1.0, 2.0], [3.0]], "one row per voxel"),
        (ARRAY[0], r"must be \(voxels, measurements\) = \(N, 16\), got \(16,\)"),
        (ARRAY[None], r"got \(1, 60, 16\)"),
        (ARRAY.T, r"got \(16, 60\)"),
        (None, "must be"),
        ({}, "must be numbers"),
        (ARRAY.astype(float) * 1e-42, "the measurements reach .*e-40, and 1e-33 to 1e.33 can be fitted; multiply them"),
    ],
)
def test_what_is_no_measurements_is_refused(y, said):
    fit = quick()
    for call in (quick, fit.posterior):
        with pytest.raises(InputError, match=said):
            call(y)


def test_masked_measurements_are_not_fitted():
    y = np.ma.array(ARRAY, mask=False)
    y[0], y[3, 2] = np.ma.masked, np.ma.masked
    plain = ARRAY.copy()
    plain[0], plain[3, 2] = np.nan, np.nan
    fit = quick(y)
    assert fit.n_voxels == 58
    for given in (y, [y[i] for i in range(60)], plain):
        status = fit.posterior(given).status
        assert status[[0, 3]].tolist() == [2, 2]
        assert (status == 2).sum() == 2
    assert y.data[0, 0] == ARRAY[0, 0]  # the caller's own array is left alone
    missing = pd.DataFrame(ARRAY.round()).astype("Int64")
    missing.iloc[5, 1] = pd.NA
    assert fit.posterior(missing).status[5] == 2
    none = ARRAY.astype(object)
    none[7, 7] = None
    assert fit.posterior(none).status[7] == 2


def test_one_absurd_value_does_not_outweigh_the_others():
    y = ARRAY.astype(np.float64)
    y[0, 0], y[1, 3], y[2] = 1e200, 1e30, y[2] * 1e33
    found = quick(y, "hierarchical", s0="inferred").posterior(y)
    assert found.status[:3].tolist() == [2, 2, 2]
    assert torch.isfinite(found.mean["D"][3:]).all()
    assert torch.isfinite(found.sd["S0"][3:]).all()


@pytest.mark.parametrize("recipe", ["least_squares", "maximum_likelihood", "hierarchical"])
@pytest.mark.parametrize(
    "s0", ["measured", pytest.param("inferred", marks=pytest.mark.slow), pytest.param(300.0, marks=pytest.mark.slow)]
)
def test_units_change_nothing_but_s0(recipe, s0):
    """In units a power of two apart, which lose nothing: the same numbers, S0 and sigma in the scan's units."""
    settings = QUICK if recipe == "hierarchical" else {}
    found = {}
    for unit in (1.0, 2.0**-100, 2.0**100):
        known = s0 if isinstance(s0, str) else s0 * unit
        fit = quick(ARRAY * np.float32(unit), recipe, sigma=None, s0=known, settings=settings)
        post = fit.posterior(ARRAY * np.float32(unit))
        found[unit] = [fit.sigma / unit, float(post.status.sum()), post.ppc.nanmean().item()]
        for name in post.names:
            size = unit if name == "S0" else 1.0
            for values in (post.mean[name], post.sd[name], post.quantile(0.95)[name]):
                found[unit].append((values.double() / size).nanmean().item())
    assert found[2.0**-100] == pytest.approx(found[1.0], rel=1e-6)
    assert found[2.0**100] == pytest.approx(found[1.0], rel=1e-6)


@pytest.mark.parametrize("unit", [1e-30, 1e-12, 1e12, 1e30])
def test_s0_is_returned_in_the_units_of_the_scan(unit):
    acq = shells(4, 8, 0.05, 0.2, 0.6, 1.0, bvec=False)
    theta = {"f": torch.full((40,), 0.2), "D_fast": torch.full((40,), 30.0), "D_slow": torch.full((40,), 1.0)}
    clean = BoundSignal(IVIM, acq)(theta)
    y = rician(clean, 0.01).double().numpy() * 500 * unit
    fit = pq.fit(y, acq, signal="ivim", recipe="least_squares", s0="inferred")
    post = fit.posterior(y)
    # 40 voxels: the standard error of the mean is some .2 %
    assert float(post.mean["S0"].mean()) / unit == pytest.approx(500, rel=0.02)
    assert fit.sigma / unit == pytest.approx(5.0, rel=0.1)
    assert 0 < float(post.sd["S0"].mean()) / unit < 20


@pytest.mark.parametrize("s0", [np.inf, np.nan, -1, 0, True, None, [300.0], np.full(60, 300.0), 10**400, "300", 1e300])
def test_s0_is_a_word_or_a_finite_number_above_zero(s0):
    with pytest.raises(InputError, match="s0 must be 'measured', 'inferred' or a value above zero"):
        quick(s0=s0)


def test_s0_may_be_any_number():
    assert {quick(s0=x).preparation.s0 for x in (300, np.float32(300), torch.tensor(300.0))} == {300.0}


@pytest.mark.parametrize("seed", [2**70, 2**63, -1, 1.5, "1", None, True, np.nan])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match=r"seed must be a whole number from 0 to 2\*\*63 - 1"):
        quick(seed=seed)
    with pytest.raises(InputError, match="seed must be a whole number"):
        pq.check(quick(recipe="hierarchical"), n=200, seed=seed)
    with pytest.raises(InputError, match="seed must be a whole number"):
        simulate(MSDKI, ACQ, {"D": torch.ones(2), "K": torch.ones(2)}, snr=20, seed=seed)


def test_large_and_foreign_seeds_are_seeds():
    assert quick(recipe="hierarchical", seed=2**63 - 1, settings={"training.steps": 1}).seed == 2**63 - 1
    assert quick(seed=np.int64(3)).seed == 3


@pytest.mark.parametrize(
    ("sigma", "said"),
    [
        (0, "finite and above zero"),
        (np.nan, "finite and above zero"),
        (np.inf, "finite and above zero"),
        (np.ma.array([15.0] * 60, mask=[1] * 60), "is not in any of the 60 voxels"),
        (15j, "must be real"),
        (True, "must be one number"),
        ([15.0] * 59, "has 59 entries for 60 voxels"),
        (np.full((60, 16), 15.0), "one number or one per voxel"),
    ],
)
def test_a_noise_level_is_finite_and_above_zero(sigma, said):
    fit = quick()
    for call in (lambda: quick(sigma=sigma), lambda: fit.posterior(Y, sigma=sigma)):
        with pytest.raises(InputError, match=said):
            call()


def test_a_noise_level_without_its_gradient():
    level = torch.full((60,), 15.0, requires_grad=True)
    assert not as_level(level, 60).requires_grad
    assert quick(sigma=level).sigma == 15.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"fixed": 3}, "fixed must be a table"),
        ({"fixed": {"K": "a"}}, "fixed must have one number for each name"),
        ({"fixed": {"K": None}}, "K is fixed at nan"),
        ({"tied": [1]}, "tied must be a table"),
        ({"inputs": 3}, "inputs must be a table"),
        ({"covariates": {"age": "old"}}, "covariate age must be numbers"),
        ({"settings": 3}, "settings must be a table"),
        ({"settings": {3: 4}}, "setting 3 must read TABLE.KEY"),
        ({"given": {"water": {"D": "x"}}}, "given must have mean and sd"),
        ({"signal": ["msdki"]}, "there is no signal"),
        ({"recipe": "a\0.toml"}, "is no possible file name"),
        ({"voxels": "a"}, "voxels must be integer indices"),
        ({"voxels": np.ma.array(np.zeros((60, 3), int), mask=True)}, "voxels must be integer indices"),
    ],
)
def test_what_stands_in_no_place_is_said(call, said):
    with pytest.raises(InputError, match=said):
        pq.fit(Y, ACQ, **({"signal": "msdki", "recipe": "least_squares", "sigma": 15.0} | call))
    with pytest.raises(InputError, match=r"acquisition must be a pyroqmri\.Acquisition, got 'Tensor'"):
        pq.fit(Y, Y, signal="msdki", recipe="least_squares")


@pytest.mark.parametrize("n_draws", [0, -1, 1.5, "a", 10**12, True])
def test_a_number_of_draws_is_one(n_draws):
    fit = quick(recipe="hierarchical", settings={"training.steps": 1})
    with pytest.raises(InputError, match="draws must be"):
        fit.posterior(Y, n_draws=n_draws)


def test_numbers_of_other_packages_are_settings():
    settings = {"training.steps": np.int64(2), "training.lr": np.float32(0.01)}
    assert quick(recipe="hierarchical", settings=settings).recipe.table("training")["steps"] == 2
    assert as_numbers({"K": torch.tensor(0.5)}, "fixed") == {"K": 0.5}
    assert as_tensor([True, False]).tolist() == [1, 0]
    assert as_positions(torch.zeros(2, 3, dtype=torch.int32), None, 2).dtype == torch.int64


@pytest.mark.parametrize("recipe", ["hierarchical", "vae_gmm"])
def test_a_fit_answers_under_another_default_dtype(recipe):
    fit = quick(recipe=recipe, settings=QUICK)
    post = fit.posterior(Y)
    mean, sd = post.mean["D"], post.sd["D"]
    torch.set_default_dtype(torch.float64)
    after = fit.posterior(Y).mean["D"]
    assert after.dtype == torch.float64
    # few steps of training leave modes that float32 finds to a hundredth of an sd
    assert float(((after - mean) / sd).abs().max()) < 0.05
    assert fit.model.sigma.dtype == torch.float32
    torch.set_default_dtype(torch.float32)
    assert torch.equal(fit.posterior(Y).mean["D"], mean)


@pytest.mark.parametrize("n", [True, 0, -1, 1.5, "a", None])
def test_a_model_simulates_a_number_of_voxels(n):
    model = quick(recipe="hierarchical", settings={"training.steps": 1}).model
    with pytest.raises(InputError, match="how many voxels to simulate, 1 or more"):
        model(n)
    assert model(np.int64(5)).shape[0] == 5


def test_a_shell_is_a_b_value():
    for shell in ("none", "lowest", float("nan")):
        with pytest.raises(InputError, match="shell must be 'highest', a b-value"):
            held_out_shell(ACQ, shell)
