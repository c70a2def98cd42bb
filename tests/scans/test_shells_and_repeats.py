"""What a shell is and what a repeat is: one definition, from reading to held-out volumes."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.commands.outlier_volumes import outlier_volumes
from pyroqmri.comparison.held_out import held_out_shell, volume_folds
from pyroqmri.denoising.tensors import tensor_volumes
from pyroqmri.io import ImageRef, Scan
from pyroqmri.measurements.directions import direction_warnings
from pyroqmri.measurements.noise import estimate_sigma
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.measurements.repeats import repeats
from pyroqmri.measurements.shells import alike, describe, gather_shells, shells_of
from pyroqmri.measurements.thinning import thin
from pyroqmri.signals import SIGNALS

pytestmark = pytest.mark.usefixtures("no_pages")


def spread(n: int) -> np.ndarray:
    """Directions ``(n, 3)`` evenly over the half sphere."""
    i = np.arange(n) + 0.5
    z, azimuth = i / n, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(azimuth), r * np.sin(azimuth), z], 1)


def grid(bmax: float, radius: int) -> np.ndarray:
    """b-values of all points of a grid in q-space inside a sphere."""
    axis = np.arange(-radius, radius + 1)
    square = sum(np.square(c) for c in np.meshgrid(axis, axis, axis)).ravel()
    square = square[square <= radius**2]
    return np.sort(np.round(bmax * square / radius**2)).astype(float)


def noisy(s: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.hypot(s + sigma * rng.normal(size=s.shape), sigma * rng.normal(size=s.shape)).astype(np.float32)


def sticks(bval: np.ndarray, g: np.ndarray, n: int = 300, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=(n, 3))
    along = np.square(axis / np.linalg.norm(axis, axis=1, keepdims=True) @ g.T)
    f = rng.uniform(0.2, 0.7, (n, 1))
    return 1000 * (f * np.exp(-bval * 1.8 * along) + (1 - f) * np.exp(-bval * 0.9))


def prepared(signal: str, acq: pq.Acquisition):
    y = torch.ones(3, len(acq))
    return prepare_for(SIGNALS[signal], acq, y, s0="measured", average="auto", magnitude=True)


@pytest.mark.parametrize(
    "b",
    [
        np.arange(40.0, 1601, 40),
        np.arange(500.0, 3001, 50),
        np.r_[0.0, 950, 1000, 1050],
        np.r_[0.0, np.arange(2000.0, 2401, 20)],
        np.unique(grid(4000, 5)),
        np.unique(grid(8000, 5)),
        np.unique(grid(5000, 4)),
        np.r_[0.0, 10, 20, 30, 40, 60, 80, 100, 120, 140, 160, 180, 200, 300, 400, 500, 600, 700, 800, 900, 1000],
    ],
)
def test_ladders_and_grids_are_no_shells(b):
    repeated = np.repeat(b, 6)
    assert len(shells_of(repeated)) == len(b)
    np.testing.assert_array_equal(gather_shells(repeated)[0], repeated)
    acq = pq.Acquisition(bval=repeated / 1000, bvec=np.tile(spread(6), (len(b), 1)))
    seen = prepared("msdki", acq).seen(acq)
    assert len(seen.acquisition) == len(b) - (b[0] == 0)


@pytest.mark.parametrize(
    ("centres", "jitter"),
    [((1000, 2000, 3000), (-10, -5, 0, 5, 10)), ((700, 2800), (-20, -7, 0, 12)), ((500, 1200), (-15, 0, 15))],
)
def test_jittered_shells_are_shells_everywhere(centres, jitter):
    rng = np.random.default_rng(0)
    b = np.r_[[0.0] * 6, np.concatenate([c + rng.choice(jitter, 40) for c in centres])]
    g = np.r_[np.zeros((6, 3)), np.tile(spread(40), (len(centres), 1))]
    acq = pq.Acquisition(bval=b / 1000, bvec=g)
    n = len(centres) + 1
    assert [len(shell) for shell in shells_of(b)] == [6, *[40] * len(centres)]
    assert len(alike(acq)) == n
    assert len(prepared("msdki", acq).seen(acq).acquisition) == n - 1
    assert len(held_out_shell(acq, "highest")) == 40
    assert thin(acq, 0.25).size == 2 + 10 * len(centres)
    assert all(np.isin(fold.numpy(), np.arange(6)).sum() == 0 for fold in volume_folds(acq, 4))
    # b-values that keep their jitter do not pass for noise: standard error 1 %
    found = estimate_sigma(noisy(sticks(b / 1000, g), 15), acq)
    assert found.method == "shells"
    assert found.sigma == pytest.approx(15, rel=0.06)


def test_reading_rounds_what_scanners_round_and_no_more():
    b = np.r_[[0.0] * 3, 990, 1000, 1010, 960, 2000, 2080, 2040]
    rounded, notes = gather_shells(np.r_[[0.0] * 3, 995, 1000, 1005])
    assert rounded.tolist() == [0, 0, 0, 1000, 1000, 1000]
    assert "995-1005 -> 1000 (3 volumes)" in notes[0]
    kept, notes = gather_shells(b)
    np.testing.assert_array_equal(kept[3:7], b[3:7])
    assert any("960-1010" in note and "keep" in note for note in notes)


@pytest.mark.parametrize(
    ("b", "words"),
    [
        (np.repeat(np.arange(40.0, 1601, 40), 6), "a ladder in steps of 40, no shells"),
        (grid(4000, 5), "a grid in q-space (DSI, multiples of 160), no shells"),
        (grid(9000, 3), "a grid in q-space (DSI, multiples of 1000), no shells"),
        (np.r_[0.0, 10, 20, 40, 70, 110, 160, 220, 290, 370, 460, 560, 670, 800], "a ladder, no shells"),
        (np.repeat([0.0, 1000, 2000], [3, 30, 60]), "3 x b 0, 30 x b 1000, 60 x b 2000 s/mm2"),
        (np.repeat([5.0, 995, 3000], [2, 30, 60]), "2 x b 5, 30 x b 995, 60 x b 3000 s/mm2"),
    ],
)
def test_the_protocol_is_named(b, words):
    assert words in describe(b)


def test_a_repeat_has_equal_settings_even_those_that_the_signal_ignores():
    acq = pq.Acquisition(bval=[0.0, 0.0, 1.0, 1.0, 1.0, 1.0], te=[60.0, 60, 60, 60, 90, 90])
    assert [g.tolist() for g in repeats(acq)] == [[0, 1], [2, 3], [4, 5]]
    assert [g.tolist() for g in alike(acq)] == [[0, 1], [2, 3], [4, 5]]
    echoes = pq.Acquisition(te=np.tile([2.3, 4.6, 6.9, 9.2], 8), flip=np.repeat([0.1, 0.35], 16))
    te, flip = echoes.te.double().numpy(), echoes.flip.double().numpy()
    y = noisy(np.random.default_rng(0).uniform(500, 900, (400, 1)) * np.exp(-te / 30) * flip / 0.35, 5)
    assert estimate_sigma(y, echoes).sigma == pytest.approx(5, rel=0.06)
    shells = pq.Acquisition(
        bval=np.repeat([0.0, 1.0, 2.0], [4, 30, 30]),
        bvec=np.r_[np.zeros((4, 3)), spread(30), spread(30)],
        te=np.r_[[60.0] * 4, np.tile([60.0, 90.0], 30)],
    )
    assert prepared("msdki", shells).seen(shells).n_average.tolist() == [15.0] * 4


@pytest.mark.parametrize(
    "b",
    [
        [0, 10, 20, 30, 40, 60, 80, 100, 120, 140, 160, 180, 200, 300, 400, 500, 600, 700, 800, 900, 1000],
        [5, 10, 20, 30, 50, 75, 150, 250, 600, 700, 800],
        [0, 10, 20, 30, 50, 80, 100, 200, 400, 800] * 2,
        [0, 1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 200, 400, 600, 800] * 4,
        [0, 50, 100, 400, 800],
    ],
)
@pytest.mark.parametrize("sigma", [10, 40])
def test_perfusion_is_no_noise(b, sigma):
    rng = np.random.default_rng(3)
    bval, n = np.array(b) / 1000, 500
    f, fast, slow = (rng.uniform(*span, (n, 1)) for span in ((0.05, 0.3), (10, 100), (0.7, 1.6)))
    y = noisy(
        rng.uniform(700, 1300, (n, 1)) * (f * np.exp(-bval * (fast + slow)) + (1 - f) * np.exp(-bval * slow)), sigma
    )
    fit = pq.fit(y, pq.Acquisition(bval=bval), signal="ivim", recipe="least_squares")
    # 2 of 20 draws further than 6 %, none further than 8 %
    assert fit.sigma == pytest.approx(sigma, rel=0.1)
    assert not [text for text in fit.warnings if "noise level" in text]  # few b-values may leave D_fast undetermined


@pytest.mark.parametrize(
    ("n", "b", "said"),
    [(6, 1600, True), (12, 3000, True), (8, 2500, True), (30, 3000, False), (20, 2000, False), (6, 700, False)],
)
def test_few_directions_are_no_powder_average(n, b, said):
    acq = pq.Acquisition(bval=np.repeat([0.0, b / 1000], [3, n]), bvec=np.r_[np.zeros((3, 3)), spread(n)])
    found = direction_warnings(SIGNALS["msdki"], acq, prepared("msdki", acq))
    assert bool(found) == said
    assert not said or f"b {b} s/mm2 with {n} directions" in found[0]
    assert not direction_warnings(SIGNALS["ball_stick"], acq, prepared("ball_stick", acq))


def test_a_ladder_makes_maps():
    """40 b-values 40 s/mm2 apart were one mean; ball and stick of f 0.6 has D near 0.8 and K near 0.7."""
    b = np.r_[[0.0] * 3, np.repeat(np.arange(40.0, 1601, 40), 6)]
    g = np.r_[np.zeros((3, 3)), np.tile(spread(6), (40, 1))]
    fit = pq.fit(
        noisy(sticks(b / 1000, g), 10), pq.Acquisition(bval=b / 1000, bvec=g), signal="msdki", recipe="least_squares"
    )
    K = fit.posterior(noisy(sticks(b / 1000, g), 10)).mean["K"]
    assert 0 < float(K.quantile(0.1)) < float(K.median()) < float(K.quantile(0.9)) < 1.5
    assert any("no powder average" in warning for warning in fit.warnings)


def scan_of(y: np.ndarray, acq: pq.Acquisition) -> Scan:
    ref = ImageRef("dwi.nii.gz", (len(y), 1, 1), np.eye(4), (1.0, 1.0, 1.0), "dwi")
    return Scan(y, np.ones((len(y), 1, 1), bool), acq, ref, [], None)


@pytest.mark.parametrize("spoiled", [[], [7], [3, 30]])
def test_outlier_volumes_among_many_b_values(spoiled):
    rng = np.random.default_rng(5)
    bval = np.tile([0, 10, 20, 30, 50, 75, 100, 150, 200, 400, 600, 800], 3) / 1000
    f, slow = rng.uniform(0.08, 0.2, (300, 1)), rng.uniform(0.8, 1.3, (300, 1))
    y = noisy(1000 * (f * np.exp(-bval * 25) + (1 - f) * np.exp(-bval * slow)), 15)
    y[:, spoiled] *= 0.7
    assert np.flatnonzero(outlier_volumes(scan_of(y, pq.Acquisition(bval=bval)), "ivim")).tolist() == spoiled


def test_a_tensor_needs_no_b0():
    g = np.r_[spread(6), spread(30)]
    assert tensor_volumes(pq.Acquisition(bval=np.repeat([0.05, 1.0], [6, 30]), bvec=g)).all()
    assert tensor_volumes(pq.Acquisition(bval=np.full(36, 1.0), bvec=g)) is None
    assert tensor_volumes(pq.Acquisition(bval=np.repeat([0.0, 1.0], [31, 5]), bvec=g)) is None
