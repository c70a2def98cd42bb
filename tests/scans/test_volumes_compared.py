"""Volumes of one setting against one another: what sets some of them apart is named, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands.s0_volumes import volume_warnings
from pyroqmri.io import ImageRef, Scan
from tests.helpers import sphere

pytestmark = pytest.mark.usefixtures("no_pages")

SHAPE = (20, 20, 8)
NOISE = 0.04  # over S0


class Head:
    """Smooth anatomy of white matter, grey matter and csf, with the physics of a spin-echo diffusion scan."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2)
        field /= field.std()
        csf, white = field > 1.2, field < -0.3
        self.t2 = np.where(csf, 1500.0, np.where(white, 70.0, 90.0))
        self.density = 1000 * np.where(csf, 1.0, np.where(white, 0.7, 0.85))
        self.f = np.where(csf, 0.0, np.where(white, 0.6, 0.15))
        self.d = np.where(csf, 3.0, np.where(white, 0.8, 0.9))
        self.fa = np.where(white, 0.7, 0.15)
        axis = rng.standard_normal((*SHAPE, 3))
        self.axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)

    def measured(self, b, g, te: float = 80.0, seed: int = 1, noise: float = NOISE) -> np.ndarray:
        """Magnitude volumes ``(X, Y, Z, M)`` at b (ms/um2) and directions; sigma is ``noise`` of the median S0."""
        s0 = self.density * np.exp(-te / self.t2)
        cosine = np.einsum("xyzi,mi->xyzm", self.axis, g)
        f, d = self.f[..., None], self.d[..., None]
        clean = s0[..., None] * (f * np.exp(-1.9 * b * cosine**2) + (1 - f) * np.exp(-b * d))
        real, imaginary = np.random.default_rng(seed).normal(size=(2, *clean.shape), scale=noise * np.median(s0))
        return np.hypot(clean + real, imaginary)


def table(*runs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """b (ms/um2) and directions of runs of some b0s and then some volumes at b = 1."""
    b = np.concatenate([np.r_[np.zeros(n0), np.ones(n)] for n0, n in runs])
    g = np.concatenate([np.r_[np.zeros((n0, 3)), sphere(n)] for n0, n in runs])
    return b, g


def scan(y: np.ndarray, **settings: np.ndarray) -> Scan:
    ref = ImageRef(Path("a_dwi.nii.gz"), y.shape[:3], np.eye(4), (1.0, 1.0, 1.0), "a")
    acq = Acquisition(**{name: torch.as_tensor(value) for name, value in settings.items()})
    return Scan(y.reshape(-1, y.shape[-1]).astype(np.float32), np.ones(y.shape[:3], bool), acq, ref, [], None)


def with_volume(head: Head, extra: np.ndarray, n_b0: int = 1) -> list[str]:
    """What is said where another volume is labelled b = 0 at the end of a scan."""
    b, g = table((n_b0, 20))
    y = np.concatenate([head.measured(b, g), extra[..., None]], -1)
    return volume_warnings(scan(y, bval=np.r_[b, 0.0], bvec=np.r_[g, np.zeros((1, 3))]))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n_b0", [1, 4])
def test_derived_maps_among_the_b0s_are_named(seed, n_b0):
    head = Head(seed)
    m, noise = n_b0 + 20, np.random.default_rng(5).standard_normal(SHAPE)
    b, g = table((n_b0, 20))
    members = {
        "ADC": (1000 * np.where(head.t2 > 1000, 3.0, 0.8) + 50 * noise, "derived map"),
        "FA": (head.fa + 0.03 * noise, "derived map"),
        "FA x 1000": (1000 * head.fa + 30 * noise, "derived map"),
        "noise": (np.hypot(*np.random.default_rng(2).normal(size=(2, *SHAPE), scale=10.0)), "derived map"),
        "trace": (head.measured(b, g)[..., n_b0:].mean(-1), "trace image"),
        "mask": (np.ones(SHAPE), "a mask"),
        "empty": (np.zeros(SHAPE), "no measurement"),
    }
    for name, (extra, words) in members.items():
        (said,) = with_volume(head, extra, n_b0)
        assert said.startswith(f"volume {m} is "), name
        assert words in said, name
        assert said.endswith(f"--drop-volumes {m}"), name


def test_a_derived_map_before_the_b0_is_the_one_that_is_named():
    head = Head(0)
    b, g = table((1, 20))
    y = np.concatenate([(1000 * head.fa + 0.1)[..., None], head.measured(b, g)], -1)
    (said,) = volume_warnings(scan(y, bval=np.r_[0.0, b], bvec=np.r_[np.zeros((1, 3)), g]))
    assert said.startswith("volume 0 is unlike")


@pytest.mark.parametrize(("scale", "n_b0"), [(0.5, 2), (0.5, 1), (3.0, 2), (0.8, 1), (2.2, 3)])
def test_two_scalings_are_told_from_outliers(scale, n_b0):
    head = Head(2)
    b, g = table((n_b0, 15))
    y = np.concatenate([head.measured(b, g), scale * head.measured(b, g, seed=2)], -1)
    (said,) = volume_warnings(scan(y, bval=np.r_[b, b], bvec=np.r_[g, g]))
    m = n_b0 + 15
    runs = f"volumes {m}-{2 * m - 1}", f"volumes 0-{m - 1}"
    assert "two scalings" in said
    assert "scale them to one S0 level" in said
    assert "--drop" not in said
    # of two runs alike in length either may be the reference
    assert said.startswith(f"{runs[0]} are {scale:.2f} times as bright as {runs[1]}:") or said.startswith(
        f"{runs[1]} are {1 / scale:.2f} times as bright as {runs[0]}:"
    )


def test_the_middle_one_of_three_runs_is_named():
    head = Head(0)
    b, g = table((1, 12))
    y = np.concatenate([head.measured(b, g), 0.5 * head.measured(b, g, seed=2), head.measured(b, g, seed=3)], -1)
    (said,) = volume_warnings(scan(y, bval=np.r_[b, b, b], bvec=np.r_[g, g, g]))
    assert said.startswith("volumes 13-25 are 0.50 times as bright as volumes 0-12, 26-38")


@pytest.mark.parametrize("te", [60.0, 110.0])
def test_another_echo_time_is_among_the_causes(te):
    head = Head(3)
    b, g = table((2, 15))
    y = np.concatenate([head.measured(b, g), head.measured(b, g, te, seed=2)], -1)
    (said,) = volume_warnings(scan(y, bval=np.r_[b, b], bvec=np.r_[g, g]))
    assert "another echo or repetition time" in said
    assert "fit the runs apart" in said
    assert "--drop" not in said


def warped(values: np.ndarray, axis: int, size: float) -> np.ndarray:
    """Volumes displaced along one axis in a part of the head, as a susceptibility gradient does it."""
    place = np.indices(SHAPE).astype(float)
    place[axis] += size * np.exp(-((place[0] - 8) ** 2 + (place[1] - 9) ** 2) / 60)
    moved = [ndimage.map_coordinates(v, place, order=1, mode="nearest") for v in np.moveaxis(values, -1, 0)]
    return np.stack(moved, -1)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n_b0", [1, 3])
def test_opposite_phase_encodings_are_seen_in_the_b0s(axis, n_b0):
    head = Head(0)
    b, g = table((n_b0, 15))
    settings = {"bval": np.r_[b, b], "bvec": np.r_[g, g]}
    first, second = head.measured(b, g), head.measured(b, g, seed=2)
    pairs = {
        "warped": (warped(first, axis, 2.0), warped(second, axis, -2.0)),
        "one voxel": (first, np.roll(second, 1, axis)),
        "two voxels": (first, np.roll(second, -2, axis)),
    }
    for name, pair in pairs.items():
        (said,) = volume_warnings(scan(np.concatenate(pair, -1), **settings))
        assert said.startswith(f"two groups of S0 volumes are shifted along axis {axis} "), name
        assert "opposite phase encodings" in said, name
        assert "topup" in said, name
        assert "--drop" not in said, name


def test_one_displaced_b0_may_be_left_out():
    (said,) = with_volume(head := Head(1), np.roll(head.measured(*table((1, 0)), seed=9)[..., 0], 2, 1))
    assert said.startswith("volume 21 is shifted along axis 1 by about 2.0 voxels against volume 0")
    assert said.endswith("--drop-volumes 21")


def test_a_run_without_b0s_is_compared_at_its_own_settings():
    head = Head(0)
    b, g = table((1, 20))
    y = np.concatenate([head.measured(b, g), 0.5 * head.measured(b, g, seed=2)[..., 1:]], -1)
    (said,) = volume_warnings(scan(y, bval=np.r_[b, b[1:]], bvec=np.r_[g, g[1:]]))
    assert said.startswith("volumes 21-40 are 0.5")
    assert "at the same settings" in said


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.5])
def test_repeated_echoes_and_reference_images_are_compared_too(scale):
    rng = np.random.default_rng(0)
    s0, t2 = rng.uniform(800, 1200, SHAPE), rng.uniform(60, 100, SHAPE)
    te = np.arange(10.0, 90.0, 10.0)
    echoes = s0[..., None] * np.exp(-te / t2[..., None])
    y = np.concatenate([echoes, scale * echoes], -1) + rng.normal(scale=10, size=(*SHAPE, 16))
    said = volume_warnings(scan(y, te=np.r_[te, te]))
    assert [s.startswith(f"volumes 8-15 are {scale:.2f} times") for s in said] == [True] * (scale != 1)
    offset = np.r_[300.0, np.linspace(-5, 5, 11)]
    spectrum = s0[..., None] * np.where(np.abs(offset) > 20, 1, 0.4 + 0.1 * np.abs(offset))
    y = np.concatenate([spectrum, scale * spectrum], -1) + rng.normal(scale=10, size=(*SHAPE, 24))
    assert len(volume_warnings(scan(y, offset=np.r_[offset, offset]))) == (scale != 1)


def test_drift_and_a_first_volume_out_of_the_steady_state():
    head = Head(0)
    b, g = table((1, 8), (1, 8), (1, 8), (1, 0))
    y = head.measured(b, g)
    (said,) = volume_warnings(scan(y * np.linspace(1, 0.75, len(b)), bval=b, bvec=g))
    assert "signal drift" in said
    first = y.copy()
    first[..., 0] *= 1.4
    (said,) = volume_warnings(scan(first, bval=b, bvec=g))
    assert said.startswith("volume 0 is 1.40 times as bright")
    assert "steady state" in said


@pytest.mark.parametrize("slices", [(2,), (1, 3, 5)])
def test_a_b0_with_lost_slices_is_no_derived_map(slices):
    head = Head(1)
    b, g = table((4, 20))
    y = head.measured(b, g)
    y[:, :, list(slices), 2] *= 0.02
    (said,) = volume_warnings(scan(y, bval=b, bvec=g))
    assert said.startswith("volume 2 is without signal in ")
    assert said.endswith("dropout? leave it out with --drop-volumes 2")


def test_b0s_at_echo_times_of_their_own_are_not_compared_across_them():
    head, te = Head(2), np.repeat([60.0, 90.0, 120.0], 8)
    b, g = table((2, 6), (2, 6), (2, 6))
    y = np.concatenate([head.measured(b[te == t], g[te == t], t, seed=int(t)) for t in (60.0, 90.0, 120.0)], -1)
    assert volume_warnings(scan(y, bval=b, te=te)) == []
    y[..., 9] *= 0.6
    (said,) = volume_warnings(scan(y, bval=b, te=te))
    assert "9" in said
    assert "0.6" in said or "1.6" in said


@pytest.mark.parametrize("noise", [0.01, 0.04, 0.3])
def test_nothing_is_said_of_clean_scans(noise):
    # none in 300 scans of these kinds when this was written
    for seed in range(2):
        head = Head(10 + seed)
        for runs in (((1, 20),), ((6, 30),), ((1, 10), (1, 10), (1, 10), (1, 0)), ((2, 15), (2, 15))):
            b, g = table(*runs)
            y = head.measured(b, g, seed=seed, noise=noise)
            settings = {"bval": b, "bvec": g}
            rng = np.random.default_rng(seed)
            pulsation = 1 + 0.8 * noise * rng.standard_normal(y.shape) * (b == 0)  # b0s scatter 1.3 times as much
            moved = y.copy()
            for m in range(len(b) // 2, len(b)):
                moved[..., m] = ndimage.shift(y[..., m], (0.3, 0.15, 0), order=1, mode="nearest")
            for values in (y, y * pulsation, y * np.linspace(1, 0.95, len(b)), moved):
                assert volume_warnings(scan(values, **settings)) == []


def test_b0s_that_overflowed_to_negative_numbers_can_be_compared():
    b, g = table((3, 30))
    rng = np.random.default_rng(0)
    y = 40_000 * np.exp(-b) * np.ones((*SHAPE, 1)) + rng.normal(scale=800, size=(*SHAPE, len(b)))
    wrapped = np.round(y).astype(np.int64).astype(np.int16).astype(float)
    assert (wrapped[..., :3] < 0).all()
    assert all(isinstance(text, str) for text in volume_warnings(scan(wrapped, bval=b, bvec=g)))


def test_nothing_is_said_of_a_phantom_without_contrast():
    b, g = table((3, 20))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        clean = 1000 * np.exp(-b) * np.ones((*SHAPE, 1))
        y = np.hypot(clean + rng.normal(scale=50, size=clean.shape), rng.normal(scale=50, size=clean.shape))
        assert volume_warnings(scan(y, bval=b, bvec=g)) == []
