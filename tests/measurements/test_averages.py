"""Measurements that are means of several magnitudes, against noise that numpy made."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.errors import InputError
from pyroqmri.measurements.noise import estimate_sigma
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.signals import SIGNALS

pytestmark = pytest.mark.usefixtures("no_pages")

B = np.r_[np.zeros(6), np.repeat([0.5, 1.0, 2.0], 8)]
NEX = np.r_[np.ones(6), np.repeat([2.0, 4.0, 8.0], 8)]  # as body protocols have it


def averaged(clean, sigma, averages, seed):
    """Means of ``averages`` (M,) magnitudes of complex measurements."""
    rng = np.random.default_rng(seed)
    most = int(np.max(averages))
    each = np.abs(clean + sigma * (rng.normal(size=(most, *clean.shape)) + 1j * rng.normal(size=(most, *clean.shape))))
    counted = np.arange(most)[:, None] < np.broadcast_to(averages, clean.shape[-1])
    return (each * counted[:, None]).sum(0) / averages


def decay(d, s0=1.0):
    return s0 * np.exp(-B * d[:, None])


def test_the_noise_is_that_of_one_magnitude():
    y = averaged(decay(np.linspace(0.5, 1.5, 2000), 100.0), 8.0, NEX, 0)
    acq = pq.Acquisition(bval=B)
    assert estimate_sigma(y, acq.averaged(NEX)).sigma == pytest.approx(8.0, rel=0.03)
    assert estimate_sigma(y, acq).sigma < 5.0  # what is taken for single has less noise
    four = averaged(np.full((2000, 20), 30.0), 10.0, np.full(20, 4), 1)  # SNR 3, where the scatter is below sigma
    b0 = pq.Acquisition(bval=np.zeros(20), averages=np.full(20, 4))
    assert estimate_sigma(four, b0).sigma == pytest.approx(10.0, rel=0.03)


def test_a_measured_s0_is_weighted_and_freed_of_its_bias():
    n, acq = np.array([1.0, 1.0, 9.0, 1.0]), pq.Acquisition(bval=[0, 0, 0, 1.0])
    y = averaged(np.tile([50.0, 50.0, 50.0, 20.0], (20_000, 1)), 10.0, n, 2)
    sigma, signal = torch.tensor(10.0), SIGNALS["msdki"]
    found = {}
    for k, given in enumerate((acq, acq.averaged(n))):
        prepared = prepare_for(signal, given, torch.tensor(y), s0="measured", average="auto", magnitude=True)
        assert prepared.seen(given).n_s0 == (3, 11)[k]
        found[k] = prepared(torch.tensor(y), sigma, given).reference
    assert found[1].mean() == pytest.approx(50.0, abs=0.15)
    assert found[1].std() == pytest.approx(10 / 11**0.5, rel=0.05)
    assert found[1].std() < 0.9 * found[0].std()


def test_shells_of_other_averages_stay_apart_and_count_them():
    g = np.random.default_rng(0).normal(size=(8, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    b, n = np.r_[0.0, np.ones(7)], np.r_[1, 2, 2, 2, 2, 4, 4, 4]
    acq = pq.Acquisition(bval=b, bvec=np.where(b[:, None] > 0, g, 0), averages=n)
    seen = prepare_for(
        SIGNALS["msdki"], acq, torch.ones(1, 8), s0="measured", average="shells", magnitude=True
    ).seen(acq)  # fmt: skip
    assert seen.n_average.tolist() == [8.0, 12.0]


def test_intervals_of_means_hold_and_need_to_know():
    """1,500 voxels: a coverage of .90 is off by .023 once in 300; what is taken for single covers far less."""
    rng = np.random.default_rng(3)
    d = rng.uniform(0.6, 1.6, 1500)
    y = averaged(decay(d), 0.1, NEX, 4)
    acq = pq.Acquisition(bval=B)
    how = {"signal": "msdki", "recipe": "maximum_likelihood", "fixed": {"K": 0.0}, "sigma": 0.1}

    def coverage(post):
        z = (post.mean["D"].numpy() - d) / post.sd["D"].numpy()
        return np.mean(np.abs(z) < 1.645)

    fit = pq.fit(y, acq, averages=NEX, **how)
    assert coverage(fit.posterior(y)) == pytest.approx(0.9, abs=0.03)
    plain = pq.fit(y, acq, **how)
    assert coverage(plain.posterior(y)) > 0.96  # with the noise of one, means are better than they say
    assert torch.equal(plain.posterior(y, averages=NEX).mean["D"], fit.posterior(y).mean["D"])


def test_a_saved_fit_knows_its_averages(tmp_path):
    y = averaged(decay(np.linspace(0.6, 1.6, 30)), 0.1, NEX, 5)
    how = {"signal": "msdki", "recipe": "maximum_likelihood", "sigma": 0.1}
    fit = pq.fit(y, pq.Acquisition(bval=B), averages=NEX, **how)
    fit.save(tmp_path / "fit")
    again = pq.load_fit(tmp_path / "fit")
    assert again.acquisition.averages.tolist() == NEX.tolist()
    assert torch.equal(again.posterior(y).sd["D"], fit.posterior(y).sd["D"])


@pytest.mark.parametrize("n", [0, -1, np.nan, [1, 2], True])
def test_impossible_averages_are_refused(n):
    with pytest.raises(InputError, match="averages"):
        pq.Acquisition(bval=B).averaged(n)
    with pytest.raises(InputError, match="a setting that signals depend on"):
        pq.Acquisition(averages=[1, 2])
