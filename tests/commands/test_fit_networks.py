"""Networks from files to files: maps without an sd, applied to the same protocol only."""

import json

import pytest

from pyroqmri.commands import apply_image, fit_image, rebuild_report
from pyroqmri.errors import InputError
from tests.small_scan import gradients, write_scan

QUICK = {"truth.voxels": 400, "training.starts": 2, "training.epochs": 2}


@pytest.fixture
def scan(tmp_path, monkeypatch):
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "cache"))
    return write_scan(tmp_path / "in")


@pytest.mark.parametrize("recipe", ["self_supervised", "supervised_hybrid"])
def test_a_network_fits_applies_and_reports(scan, tmp_path, recipe):
    call = {"overwrite": True}
    out = fit_image(scan.files, signal="ball_stick", recipe=recipe, out=tmp_path / "out", settings=QUICK, **call)
    again = apply_image(out, scan.files, out=tmp_path / "again", **call)
    for folder in (out, again):
        names = {p.name.split("_model-ball_stick_")[-1] for p in folder.glob("*.nii.gz")}
        assert {
            "param-f_stat-mean_dwimap.nii.gz",
            "param-n_stat-mean_dwimap.nii.gz",
            "desc-residual_dwimap.nii.gz",
        } <= names
        assert not [name for name in names if "stat-sd" in name or "q05" in name or "cone" in name]
        assert not (folder / "posterior.nc").exists()
        said = json.loads((folder / "fit" / "fit.json").read_text())["warnings"]
        misfits = [w for w in said if "residuals of the ball-stick signal are larger than noise gives" in w]
        assert len(misfits) == 1  # of this image alone
    (sidecar,) = out.glob("*param-f_stat-mean_dwimap.json")
    assert "which has no standard deviation" in json.loads(sidecar.read_text())["Description"]
    rebuild_report(out)
    assert "this estimator gives no standard deviation" in (out / "report.html").read_text()


@pytest.mark.usefixtures("no_pages")
def test_a_network_is_not_applied_to_other_directions(scan, tmp_path):
    out = fit_image(scan.files, signal="ball_stick", recipe="supervised_gt", out=tmp_path / "out", settings=QUICK)
    b, g = gradients()
    scan.write_gradients(b, g[:, [1, 2, 0]])
    with pytest.raises(InputError, match="is a network of its own gradient directions"):
        apply_image(out, scan.files, out=tmp_path / "again")
