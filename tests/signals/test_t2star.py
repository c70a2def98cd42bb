"""Gradient echoes: the rate, starts in closed form, and decays that end in the noise floor."""

import nibabel as nib
import numpy as np

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import fit_image
from tests.relaxation_scan import write_relaxation_scan

LIVER = np.arange(1.0, 13)  # ms


def magnitudes(T2star: np.ndarray, te: np.ndarray, sigma: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    clean = 1000 * np.exp(-te / T2star[:, None])
    return np.hypot(clean + sigma * rng.standard_normal(clean.shape), sigma * rng.standard_normal(clean.shape))


def test_without_noise_every_search_finds_t2star_and_its_rate():
    T2star = np.geomspace(0.3, 200, 60)
    y = 1000 * np.exp(-LIVER / T2star[:, None])
    for method in ("auto", "closed_form"):
        fit = pq.fit(y, Acquisition(te=LIVER), signal="t2star_decay", recipe="least_squares", sigma=1.0,
                     settings={"search.method": method})  # fmt: skip
        mean = fit.posterior(y).mean
        seen = T2star > 2  # logarithms below 1e-4 of S0 are cut off
        np.testing.assert_allclose(mean["T2star"][seen], T2star[seen], rtol=2e-3)
        np.testing.assert_allclose(mean["R2star"], 1000 / mean["T2star"], rtol=1e-5)


def test_iron_is_not_taken_for_the_noise_floor():
    T2star = np.random.default_rng(1).uniform(1.6, 2.4, 2000)
    y = magnitudes(T2star, LIVER, 25.0)
    off = {}
    for recipe, settings in (("maximum_likelihood", {}), ("least_squares", {}),
                             ("least_squares", {"search.method": "closed_form"})):  # fmt: skip
        fit = pq.fit(y, Acquisition(te=LIVER), signal="t2star_decay", recipe=recipe, sigma=25.0, settings=settings)
        off[recipe, *settings] = float(np.median(fit.posterior(y).mean["T2star"].numpy() / T2star - 1))
    # single voxels scatter by 7 %, so a median of 2,000 does by 0.2 %
    assert abs(off["maximum_likelihood",]) < 0.01
    # logarithms of the floor bias a linear fit, so that it only starts the search
    assert 0.01 < off["least_squares",] < 0.75 * off["least_squares", "search.method"]


def test_maps_are_in_seconds_and_per_second(tmp_path):
    te = [3.0, 8, 13, 18, 28, 38, 48]
    scan = write_relaxation_scan(
        tmp_path / "in", "sub-01_MEGRE", "t2star_decay", {"T2star": (30, 70)}, Acquisition(te=te),
        {"EchoTime": [t / 1000 for t in te]},
    )  # fmt: skip
    out = fit_image(scan.files, signal="t2star_decay", recipe="maximum_likelihood", out=tmp_path / "out")
    volumes = {}
    for name in ("T2star", "R2star"):
        (path,) = out.glob(f"sub-01_model-t2star_decay_param-{name}_stat-mean_{name}map.nii.gz")
        volumes[name] = np.asarray(nib.load(path).dataobj)[scan.inside]
    assert abs(np.median(1000 * volumes["T2star"] / scan.theta["T2star"]) - 1) < 0.02
    np.testing.assert_allclose(volumes["R2star"], 1 / volumes["T2star"], rtol=1e-4)
