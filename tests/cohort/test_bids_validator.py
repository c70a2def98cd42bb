"""The official BIDS validator on the output folders of commands; it needs no network."""

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import denoise_image, fit_image
from pyroqmri.commands import fit as fit_module
from tests.relaxation_scan import write_relaxation_scan
from tests.small_scan import write_scan

VALIDATOR = Path(sysconfig.get_path("scripts")) / "bids-validator-deno"


def errors(folder: Path) -> set[str]:
    """Codes of the errors that the validator finds."""
    found = subprocess.run([VALIDATOR, folder, "--json"], capture_output=True, text=True, timeout=120, check=False)
    issues = json.loads(found.stdout)["issues"]["issues"]
    return {issue["code"] for issue in issues if issue["severity"] == "error"}


pytestmark = pytest.mark.skipif(not VALIDATOR.exists(), reason="needs bids-validator-deno, which the extra test brings")


def test_the_derivative_is_accepted_and_a_stray_map_is_not(made, tmp_path):
    assert errors(made.folder / "out") == set()
    copy = shutil.copytree(made.folder / "out", tmp_path / "copy")
    mean = next(copy.glob("sub-01/dwi/*param-D_stat-mean_dwimap.nii.gz"))
    mean.rename(mean.with_name("sub-01_D.nii.gz"))
    assert errors(copy) == {"NOT_INCLUDED"}


def echoes(folder):
    """A spin-echo scan of T2."""
    te = [10.0, 20.0, 40.0, 80.0]
    sidecar = {"EchoTime": [t / 1000 for t in te]}
    return write_relaxation_scan(
        folder, "sub-01_MESE", "t2_decay", {"T2": (40.0, 120.0)}, Acquisition(te=torch.tensor(te)), sidecar
    )


def test_folders_of_one_image_are_accepted(tmp_path, monkeypatch):
    """What `fit` writes of a relaxation time, and what `denoise` writes."""
    honest = fit_module.write_results
    monkeypatch.setattr(fit_module, "write_results", lambda *a, **k: honest(*a, **{**k, "pages": False}))
    plain = {"recipe": "least_squares", "sigma": 10.0, "s0": "inferred", "predictive": False}
    fit_image(echoes(tmp_path / "in").files, signal="t2_decay", out=tmp_path / "T2", **plain)
    few = {"schedule.epochs": 1, "targets.voxels": 500}
    denoise_image(write_scan(tmp_path / "dwi").files, out=tmp_path / "denoised", settings=few)
    assert list((tmp_path / "T2").glob("*_stat-mean_T2map.nii.gz"))
    assert errors(tmp_path / "T2") == errors(tmp_path / "denoised") == set()
