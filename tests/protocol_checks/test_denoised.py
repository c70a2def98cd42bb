"""Denoised data, made with numpy and dipy, are named, and no other."""

import numpy as np
import pytest
from scipy import ndimage

import pyroqmri as pq
from pyroqmri.protocol_checks.denoised import denoised_warnings

SHAPE = (12, 12, 6)
PLACE = np.argwhere(np.ones(SHAPE))


def protocol():
    rng = np.random.default_rng(0)
    g = rng.normal(size=(60, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    return pq.Acquisition(bval=np.r_[np.zeros(6), np.ones(60)], bvec=np.r_[np.zeros((6, 3)), g])


def volume(sigma, seed=0, smooth=2.0):
    """Magnitudes ``(*SHAPE, 66)`` of ball and stick whose parameters vary smoothly, or from voxel to voxel."""
    rng = np.random.default_rng(seed)
    f, x, y, z = (ndimage.gaussian_filter(rng.normal(size=SHAPE), smooth).ravel() for _ in range(4))
    axis = np.stack([x, y, z], 1) / np.linalg.norm([x, y, z], axis=0)[:, None]
    f = 0.5 + 0.1 * f[:, None] / f.std()
    acq = protocol()
    b, g = acq.bval.numpy(), acq.bvec.numpy()
    clean = f * np.exp(-1.7 * b * (axis @ g.T) ** 2) + (1 - f) * np.exp(-b)
    noise = sigma * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))
    return np.abs(clean + noise).reshape(*SHAPE, 66)


def said(values, place=PLACE):
    return " ".join(denoised_warnings(values.reshape(-1, 66), protocol(), place))


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_untouched_noise_is_left_alone(sigma, smooth):
    values = volume(sigma, 1, smooth)
    assert said(values) == ""
    assert said(values, None) == ""


@pytest.mark.parametrize(
    "touched",
    [
        lambda v: ndimage.shift(v, (0.5, 0.3, 0, 0), order=1, mode="nearest"),
        lambda v: ndimage.shift(v, (0.5, 0.4, 0.2, 0), order=3, mode="nearest"),
        lambda v: ndimage.gaussian_filter(v, (0.6, 0.6, 0.6, 0)),
    ],
    ids=["linear", "cubic", "smoothed"],
)
def test_interpolation_and_smoothing_are_something_else(touched):
    values = touched(volume(0.05))
    assert said(values) == ""
    assert said(values, None) == ""


def test_denoised_data_are_named_with_and_without_places():
    from dipy.denoise.localpca import mppca

    values = mppca(volume(0.05), patch_radius=2)
    for place in (PLACE, None):
        assert "as after denoising by principal components" in said(values, place)


@pytest.mark.parametrize("kind", ["denoised", "interpolated"])
def test_the_fit_warns_once_of_either(kind):
    from dipy.denoise.localpca import mppca

    values = volume(0.05)
    values = mppca(values, patch_radius=2) if kind == "denoised" else ndimage.shift(values, (0.5, 0, 0, 0), order=1)
    values = values[1:].reshape(-1, 66)
    place = PLACE[PLACE[:, 0] > 0]
    fit = pq.fit(values, protocol(), signal="dti", recipe="least_squares", voxels=place)
    assert sum("as after denoising" in warning for warning in fit.warnings) == (kind == "denoised")
    assert kind == "denoised" or sum("neighbouring voxels correlate" in warning for warning in fit.warnings) == 1


def test_scans_that_cannot_show_it_are_left_alone():
    values = volume(0.05).reshape(-1, 66)
    assert denoised_warnings(values, pq.Acquisition(bval=protocol().bval)) == []
    assert denoised_warnings(values[:50], protocol()) == []
    mixed = protocol().averaged(np.r_[np.ones(6), np.full(30, 2.0), np.full(30, 4.0)])
    assert denoised_warnings(values, mixed, PLACE) == []
