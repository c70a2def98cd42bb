"""The usual fits that benchmarks are made beside find the truth of noiseless voxels, as the package does."""

import numpy as np
import pytest

import pyroqmri as pq
from benchmarks.relaxometry import simulated
from benchmarks.usual_fits import FITS, settings_of
from pyroqmri.signals import SIGNALS


@pytest.mark.parametrize("name", FITS)
def test_usual_fits_and_least_squares_agree_on_voxels_without_noise(name):
    truth, y, sigma, inputs = simulated(name, 1e5, 60, False, 0)
    key, fits = FITS[name]
    B1 = inputs["B1"].double().numpy() if inputs else np.ones(len(y))
    for words, fit in fits.items():
        off = np.abs(fit(settings_of(name), y, B1) / truth[key] - 1)
        assert np.median(off) < 1e-3, words  # the grid has steps of 1 ms
        assert np.mean(off < 5e-3) > 0.95, words
    call = {"signal": name, "recipe": "least_squares", "sigma": sigma, "causes": False, "inputs": inputs}
    own = pq.fit(y, SIGNALS[name].default_protocol, **call).posterior(y, inputs=inputs).mean[key].numpy()
    assert np.mean(np.abs(own / truth[key] - 1) < 5e-3) > 0.95
