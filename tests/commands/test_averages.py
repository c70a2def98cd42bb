"""`--averages` from simulation to check."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from pyroqmri.cli import cli
from pyroqmri.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pages")


def run(*words):
    found = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    return found.exit_code, found.stderr


def record(folder):
    return json.loads((folder / "fit" / "fit.json").read_text())


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A simulated scan of means, its averages by volume, and the files."""
    folder = tmp_path_factory.mktemp("averages")
    b = np.r_[np.zeros(6), np.repeat([500.0, 1000.0, 2000.0], 6)]
    n = np.r_[np.ones(6), np.repeat([2.0, 4.0, 8.0], 6)]
    np.savetxt(folder / "x.bval", b[None], fmt="%g")
    np.savetxt(folder / "nex.txt", n[None], fmt="%g")
    words = ("--bval", folder / "x.bval", "--averages", folder / "nex.txt", "--shape", 8, 8, 4, "--snr", 10)
    code, error = run(
        "simulate", "--signal", "msdki", "--phantom", "uniform", "--range", "D=[0.7,1.5]", "--fix", "K=0.8",
        *words, "--out", folder / "sim",
    )  # fmt: skip
    assert code == 0
    assert f"fit it with --averages {folder / 'nex.txt'}" in error
    return folder, n


def test_fit_and_apply_use_them(scan):
    folder, n = scan
    image, mask = folder / "sim" / "sub-sim_dwi.nii.gz", folder / "sim" / "sub-sim_mask.nii.gz"
    common = ("--signal", "msdki", "--recipe", "maximum_likelihood", "--mask", mask, "--quiet")
    code, error = run("fit", image, *common, "--averages", folder / "nex.txt", "--drop-volumes", "3", "--out",
                      folder / "fit")  # fmt: skip
    assert code == 0, error
    found = record(folder / "fit")
    assert found["protocol"]["averages"] == np.delete(n, 3).tolist()
    assert found["sigma"]["value"] == pytest.approx(100.0, rel=0.05)  # S0 is 1000 and the SNR of one magnitude 10
    assert not any("averages varies" in w for w in found["warnings"])
    code, error = run("apply", folder / "fit", image, "--mask", mask, "--drop-volumes", "3", "--out", folder / "again")
    assert code == 0, error
    assert record(folder / "again")["protocol"]["averages"] == found["protocol"]["averages"]
    code, error = run("apply", folder / "fit", image, "--mask", mask, "--averages", 4, "--out", folder / "other")
    assert code == 0, error
    assert set(record(folder / "other")["protocol"]["averages"]) == {4.0}


def test_a_sidecar_that_states_averages_is_named(scan, tmp_path):
    folder, _ = scan
    for ending in (".nii.gz", ".bval", ".json"):
        (tmp_path / f"x_dwi{ending}").write_bytes((folder / "sim" / f"sub-sim_dwi{ending}").read_bytes())
    sidecar = json.loads((tmp_path / "x_dwi.json").read_text())
    (tmp_path / "x_dwi.json").write_text(json.dumps(sidecar | {"NumberOfAverages": 4}))
    mask = folder / "sim" / "sub-sim_mask.nii.gz"
    code, error = run("fit", tmp_path / "x_dwi.nii.gz", "--signal", "msdki", "--recipe", "least_squares", "--mask",
                      mask, "--out", tmp_path / "out")  # fmt: skip
    assert code == 0
    assert "NumberOfAverages is 4 in x_dwi.json" in error
    assert "--averages 4" in error


def test_what_is_refused(scan, tmp_path):
    folder, _ = scan
    image = folder / "sim" / "sub-sim_dwi.nii.gz"
    (tmp_path / "two.txt").write_text("1 2\n")
    common = ("--signal", "msdki", "--recipe", "least_squares", "--out", tmp_path / "no")
    with pytest.raises(InputError, match="averages has 2 entries for 24 measurements"):
        run("fit", image, *common, "--averages", tmp_path / "two.txt")
    with pytest.raises(InputError, match="1 to 10000"):
        run("fit", image, *common, "--averages", 0)
    denoiser = ("--signal", "dti", "--recipe", "denoise_vae", "--averages", 2)
    with pytest.raises(InputError, match="leave out --averages"):
        run("denoise", image, *denoiser, "--out", tmp_path / "no")
    code, error = run("check", folder / "fit", "--averages", 2)
    assert code == 2
    assert "leave out --averages" in error
