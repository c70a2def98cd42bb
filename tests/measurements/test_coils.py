"""The noise level and the number of coils of sums of squares, against noise that numpy made."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import pyroqmri as pq
from pyroqmri.cli import cli
from pyroqmri.errors import InputError
from pyroqmri.measurements.air import air_sigma, coils_in_air
from pyroqmri.measurements.noise import estimate_sigma

pytestmark = pytest.mark.usefixtures("no_pages")

B = np.r_[np.zeros(6), np.repeat([0.5, 1.0, 2.0, 3.0], 8)]
SIGMA = 0.05


def sum_of_squares(clean, coils, seed, sigma=SIGMA):
    """Root of the sum of squares of ``coils`` channels that share the signal evenly."""
    rng = np.random.default_rng(seed)
    noise = sigma * (rng.normal(size=(coils, *clean.shape)) + 1j * rng.normal(size=(coils, *clean.shape)))
    return np.sqrt((np.abs(clean / coils**0.5 + noise) ** 2).sum(0))


@pytest.fixture(scope="module")
def voxels():
    """True D of 800 voxels, and their measurements with one and with four coils."""
    d = np.random.default_rng(0).uniform(0.8, 1.8, 800)
    clean = np.exp(-B * d[:, None])
    return d, {coils: sum_of_squares(clean, coils, coils) for coils in (1, 4)}


@pytest.mark.parametrize("coils", [1, 4, 16])
def test_air_gives_sigma_and_the_number_of_coils(coils):
    air = sum_of_squares(np.zeros(20_000), coils, 1)
    assert air_sigma(air, coils)[0] == pytest.approx(SIGMA, rel=0.02)
    assert coils_in_air(air) == pytest.approx(coils, rel=0.08)
    for other in (coils * 3, coils / 3):
        with pytest.raises(InputError, match="background"):
            air_sigma(air, max(1.0, other) if coils > 1 else 3.0)


def test_air_that_is_masked_or_has_a_sign_has_no_number_of_coils():
    rng = np.random.default_rng(2)
    for values in (np.zeros(5000), rng.normal(size=5000), rng.uniform(0, 900, 5000), np.ones(20)):
        with pytest.raises(InputError):
            coils_in_air(values)


def test_repeats_give_sigma_of_each_coil(voxels):
    _, y = voxels
    acq = pq.Acquisition(bval=B)
    assert estimate_sigma(y[4], acq, coils=4).sigma == pytest.approx(SIGMA, rel=0.03)
    # eight coils' worth of noise alone has half the variance of a coil, which one coil's law does not undo
    dark = sum_of_squares(np.full((2000, 20), 0.02), 8, 3)
    zero = pq.Acquisition(bval=np.zeros(20))
    assert estimate_sigma(dark, zero, coils=8).sigma == pytest.approx(SIGMA, rel=0.03)
    assert estimate_sigma(dark, zero).sigma < 0.8 * SIGMA


def test_air_of_several_coils_is_named(voxels):
    _, y = voxels
    acq = pq.Acquisition(bval=B)
    for coils in (1, 4):
        air = sum_of_squares(np.zeros(5000), coils, 5)
        said = " ".join(estimate_sigma(y[coils], acq, background=air).warnings)
        assert ("--coils learn" in said) == (coils == 4), said
        assert "--coils" not in " ".join(estimate_sigma(y[coils], acq, background=air, coils=coils).warnings)


def test_intervals_hold_with_the_coils_and_an_estimated_sigma(voxels):
    """800 voxels: a coverage of .90 is off by .032 once in 300; under one coil a third of that is left."""
    d, y = voxels
    how = {"signal": "msdki", "recipe": "maximum_likelihood", "fixed": {"K": 0.0}}

    def coverage(fit):
        post = fit.posterior(y[4])
        return np.mean(np.abs(post.mean["D"].numpy() - d) < 1.645 * post.sd["D"].numpy())

    acq = pq.Acquisition(bval=B)
    assert coverage(pq.fit(y[4], acq, coils=4, **how)) == pytest.approx(0.9, abs=0.035)
    assert coverage(pq.fit(y[4], acq, **how)) < 0.4


@pytest.mark.parametrize("coils", [1, 4])
def test_the_number_is_learned_where_the_floor_determines_it(voxels, coils):
    _, y = voxels
    how = {"signal": "msdki", "recipe": "maximum_likelihood", "fixed": {"K": 0.0}}
    fit = pq.fit(y[coils], pq.Acquisition(bval=B), coils="learn", **how)
    assert fit.preparation.coils == pytest.approx(coils, rel=0.1)
    assert any("learned from" in w for w in fit.warnings)


def test_signals_far_above_the_noise_do_not_determine_it():
    y = sum_of_squares(np.exp(-B / 10 * np.ones((100, 1))), 4, 6, 0.01)
    with pytest.raises(InputError, match="is not determined"):
        pq.fit(y, pq.Acquisition(bval=B / 10), signal="msdki", recipe="maximum_likelihood", coils="learn")


@pytest.mark.parametrize("coils", [0, "many", True, 1000])
def test_impossible_numbers_are_refused(voxels, coils):
    _, y = voxels
    with pytest.raises(InputError, match="coils must be a number from 1 to 256, or 'learn'"):
        pq.fit(y[1], pq.Acquisition(bval=B), signal="msdki", recipe="least_squares", coils=coils)


def test_the_command_takes_them_from_air(tmp_path):
    np.savetxt(tmp_path / "x.bval", 1000 * B[None], fmt="%g")

    def run(*words):
        return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)

    common = ("--signal", "msdki", "--bval", tmp_path / "x.bval")
    made = run("simulate", *common, "--phantom", "brain", "--shape", 16, 16, 4, "--noise", "ncchi", "--coils", 4,
               "--snr", 20, "--out", tmp_path / "sim")  # fmt: skip
    assert made.exit_code == 0
    image = tmp_path / "sim" / "sub-sim_dwi.nii.gz"
    out = tmp_path / "fit"
    learn = ("--recipe", "maximum_likelihood", "--coils", "learn", "--out", out)
    assert run("fit", image, *common, *learn).exit_code == 0
    record = json.loads((out / "fit" / "fit.json").read_text())
    assert record["likelihood"] == "ncchi"
    assert record["preparation"]["coils"] == pytest.approx(4.0, rel=0.1)
    assert record["sigma"]["value"] == pytest.approx(50.0, rel=0.06)
    assert any("from the spread of" in note for note in record["notes"])
    with pytest.raises(InputError, match="leave one of them out"):
        run("fit", image, *common, "--recipe", "least_squares", "--likelihood", "rician", "--coils", 4, "--out", "no")
