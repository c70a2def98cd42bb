"""Times are in seconds in files, under BIDS names, and in ms on the page; maps written in ms are still read."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import fit_image, rebuild_report
from pyroqmri.io.map_names import file_unit, from_file, map_suffix
from pyroqmri.report.folder_of_maps import read_folder
from tests.relaxation_scan import write_relaxation_scan

TI = [50.0, 400.0, 800.0, 1500.0, 3000.0, 6000.0]
TE = [10.0, 20.0, 40.0, 60.0, 90.0, 120.0]


def test_names_and_units():
    names = {"T1": "T1map", "T2": "T2map", "S0": "S0map", "T2star": "T2starmap", "R1": "R1map", "inv_eff": "map"}
    for name, suffix in names.items():
        assert map_suffix(name, "T1map") == suffix
    assert map_suffix("D", "dwimap") == "dwimap"
    assert map_suffix("T2", "dwimap") == "T2map"
    assert map_suffix("w_mt", "cestmap") == "cestmap"
    assert file_unit("ms") == ("s", 1e-3)
    assert file_unit("um2/ms") == ("um2/ms", 1.0)
    assert from_file("ms", "s") == pytest.approx(1000)
    assert from_file("ms", "ms") == from_file("1", "1") == from_file("um2/ms", "s") == 1


@pytest.fixture(scope="module", params=["t1_inversion", "t2_decay"])
def fitted(request, tmp_path_factory):
    """A fit's folder, its time's name, its other parameter and its true values in ms."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "t2_decay":
        scan = write_relaxation_scan(folder / "in", "sub-1_MESE", "t2_decay", {"T2": (50, 110)}, Acquisition(te=TE),
                                     {"EchoTime": [t / 1000 for t in TE]})  # fmt: skip
        name, other = "T2", "S0"
    else:
        ranges = {"T1": (700, 1300), "inv_eff": (0.92, 0.96)}
        scan = write_relaxation_scan(folder / "in", "sub-1_IRT1", "t1_inversion", ranges, Acquisition(ti=TI),
                                     {"InversionTime": [t / 1000 for t in TI]})  # fmt: skip
        name, other = "T1", "inv_eff"
    out = fit_image(scan.files, signal=request.param, recipe="least_squares", sigma=10.0, out=folder / "out")
    return out, name, other, scan.theta[name], scan.inside


def one(out: Path, pattern: str) -> Path:
    (path,) = out.glob(pattern)
    return path


def test_maps_of_times_are_in_seconds_and_bear_their_own_suffix(fitted):
    out, name, other, truth, inside = fitted
    for stat in ("mean", "q05", "q95"):
        values = nib.load(one(out, f"*_param-{name}_stat-{stat}_{name}map.nii.gz")).get_fdata()[inside]
        assert abs(np.median(1000 * values / truth) - 1) < 0.1, stat
    said = json.loads(one(out, f"*_param-{name}_stat-mean_{name}map.json").read_text())
    assert said["Units"] == "s"
    assert said["Bounds"][1] <= 30
    suffix = "S0map" if other == "S0" else "map"
    assert one(out, f"*_param-{other}_stat-mean_{suffix}.nii.gz")
    borne = {path.name.split("_param-")[1].split("_")[0] for path in out.glob(f"*_{name}map.nii.gz")}
    assert borne == {name}


def test_the_page_has_ms_whichever_unit_the_files_have(fitted, tmp_path):
    out, name, _, truth, _ = fitted
    seen = read_folder(out)
    inside = seen.volume(name, "mean")[seen.mask]
    assert abs(np.median(inside) / np.median(truth) - 1) < 0.1
    assert seen.parameter(name).unit == "ms"
    # as they were written before
    for path in out.glob(f"*_param-{name}_stat-*_{name}map.nii.gz"):
        image = nib.load(path)
        old = nib.Nifti1Image((1000 * image.get_fdata()).astype(np.float32), image.affine)
        nib.save(old, tmp_path / path.name)
        sidecar = Path(str(path).replace(".nii.gz", ".json"))
        (tmp_path / sidecar.name).write_text(sidecar.read_text().replace('"Units": "s"', '"Units": "ms"'))
    status = one(out, "*_desc-status_mask.nii.gz")
    (tmp_path / status.name).write_bytes(status.read_bytes())
    np.testing.assert_allclose(read_folder(tmp_path).volume(name, "mean"), seen.volume(name, "mean"), rtol=1e-5)
    assert rebuild_report(tmp_path).is_file()
