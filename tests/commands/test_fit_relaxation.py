"""From files to files with relaxation: settings from sidecars, maps of inputs, names of maps, signed data."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.acquisition import Acquisition
from pyroqmri.cli import main
from pyroqmri.commands import apply_image, fit_image
from pyroqmri.errors import InputError
from pyroqmri.io import read_settings
from tests.relaxation_scan import SHAPE, write_relaxation_scan

SHORT = {"training.steps": 150, "training.batch_size": 128}
TE = [12.0, 24, 36, 48, 72, 96, 120, 160]
TI = [50.0, 100, 200, 500, 2000, 4000]
FLIP = [3.0, 6, 12, 20, 30]


@pytest.fixture
def echoes(tmp_path):
    return write_relaxation_scan(
        tmp_path / "in", "sub-01_MESE", "t2_decay", {"T2": (60, 110)}, Acquisition(te=TE),
        {"EchoTime": [t / 1000 for t in TE]},
    )  # fmt: skip


@pytest.fixture
def angles(tmp_path):
    b1 = np.linspace(0.7, 1.3, int(np.prod(SHAPE))).reshape(SHAPE)
    scan = write_relaxation_scan(
        tmp_path / "in", "sub-01_VFA", "t1_vfa", {"T1": (700, 1600)},
        Acquisition(flip=np.radians(FLIP), tr=[15.0] * 5), {"FlipAngle": FLIP, "RepetitionTime": 0.015}, {"B1": b1},
    )  # fmt: skip
    return scan, scan.write_map("b1.nii.gz", b1)


def volume(folder, pattern):
    (path,) = folder.glob(pattern)
    return np.asarray(nib.load(path).dataobj)


def record_of(folder):
    return json.loads((folder / "fit" / "fit.json").read_text())


@pytest.mark.parametrize("recipe", ["least_squares", "hierarchical"])
def test_a_t2_map_from_a_sidecar(tmp_path, echoes, recipe):
    settings = SHORT if recipe == "hierarchical" else None
    out = fit_image(echoes.files, signal="t2_decay", recipe=recipe, out=tmp_path / "out",
                    settings=settings)  # fmt: skip
    T2 = 1000 * volume(out, "sub-01_model-t2_decay_param-T2_stat-mean_T2map.nii.gz")
    sd = 1000 * volume(out, "*param-T2_stat-sd_T2map.nii.gz")
    off = (T2[echoes.inside] - echoes.theta["T2"]) / sd[echoes.inside]
    assert abs(np.median(T2[echoes.inside] / echoes.theta["T2"]) - 1) < 0.02
    # |off| has a 90 % quantile of 1.64; of 144 voxels a right sd gives 1.2 to 2.4 all but 1 time in 10,000
    assert 1.2 < np.quantile(np.abs(off), 0.9) < 2.4
    assert (T2[~echoes.inside] == 0).all()
    record = record_of(out)
    assert record["s0"] == "inferred"
    assert "te read as s from sub-01_MESE.json (0.012 to 0.16)" in record["notes"]
    assert any("S0 is inferred" in note for note in record["notes"])
    assert "T2" in (out / "report.html").read_text()


@pytest.mark.usefixtures("no_pages")
def test_the_first_echo_is_chosen(tmp_path, echoes):
    image = nib.load(echoes.image)
    values = np.asarray(image.dataobj).copy()
    values[..., 0] *= 0.7  # no stimulated echoes yet
    nib.save(nib.Nifti1Image(values, image.affine), echoes.image)
    off = {}
    for first in (1, 2):
        out = fit_image(echoes.files, signal="t2_decay", recipe="least_squares",
                        out=tmp_path / f"from{first}", settings={"data.first_echo": first})  # fmt: skip
        off[first] = (
            np.median(1000 * volume(out, "*param-T2_stat-mean_T2map.nii.gz")[echoes.inside] / echoes.theta["T2"]) - 1
        )
    assert abs(off[2]) < 0.02 < 0.1 < off[1]
    assert record_of(out)["preparation"]["shortest_te"] == 24.0
    with pytest.raises(InputError, match=r"data\.first_echo is 9, and the scan has 8 echo times"):
        fit_image(echoes.files, signal="t2_decay", recipe="least_squares", out=tmp_path / "no",
                  settings={"data.first_echo": 9})  # fmt: skip


@pytest.mark.usefixtures("no_pages")
def test_a_map_of_b1_goes_with_its_image(tmp_path, angles):
    scan, b1 = angles
    call = {"signal": "t1_vfa", "recipe": "least_squares"}
    out = fit_image(replace(scan.files, inputs={"B1": b1}), **call, out=tmp_path / "with")
    T1 = 1000 * volume(out, "sub-01_model-t1_vfa_param-T1_stat-mean_T1map.nii.gz")[scan.inside]
    assert np.median(np.abs(T1 / scan.theta["T1"] - 1)) < 0.05
    assert "B1 read from b1.nii.gz" in record_of(out)["notes"]
    without = fit_image(scan.files, **call, out=tmp_path / "without")
    assert "no map of B1 was given: it is 1 everywhere" in record_of(without)["notes"]
    wrong = 1000 * volume(without, "*param-T1_stat-mean_T1map.nii.gz")[scan.inside]
    assert np.median(np.abs(wrong / scan.theta["T1"] - 1)) > 0.15
    again = apply_image(out, replace(scan.files, inputs={"B1": b1}), out=tmp_path / "again")
    np.testing.assert_allclose(1000 * volume(again, "*param-T1_stat-mean_T1map.nii.gz")[scan.inside], T1, rtol=1e-3)
    with pytest.raises(InputError, match="trained with the inputs B1, and these voxels come with none"):
        apply_image(out, scan.files, out=tmp_path / "no")


@pytest.mark.usefixtures("no_pages")
def test_inputs_that_do_not_fit_are_refused(tmp_path, angles):
    scan, b1 = angles
    call = {"signal": "t1_vfa", "recipe": "least_squares", "out": tmp_path / "out"}
    small = scan.write_map("small.nii.gz", np.ones((4, 4, 4)))
    with pytest.raises(InputError, match=r"input B1 .*small.nii.gz does not lie on the grid .* has shape \(4, 4, 4\)"):
        fit_image(replace(scan.files, inputs={"B1": small}), **call)
    with pytest.raises(InputError, match="T1VFA has no input 'b1'; its inputs are: B1"):
        fit_image(replace(scan.files, inputs={"b1": b1}), **call)
    hole = scan.write_map("hole.nii.gz", np.full(SHAPE, np.nan))
    with pytest.raises(InputError, match=r"input B1 .*hole.nii.gz has no value .* in any voxel of the mask \(144\)"):
        fit_image(replace(scan.files, inputs={"B1": hole}), **call)


@pytest.mark.usefixtures("no_pages")
def test_the_command_line_takes_inputs(tmp_path, angles, capsys):
    scan, b1 = angles
    call = ["--mask", str(scan.mask), "--input", f"B1={b1}", "--quiet"]
    fit = ["fit", str(scan.image), "--signal", "t1_vfa", "--recipe", "least_squares"]
    for words in ([*fit, *call, "--out", str(tmp_path / "a")],
                  ["apply", str(tmp_path / "a"), str(scan.image), *call, "--out", str(tmp_path / "b")]):  # fmt: skip
        with pytest.raises(SystemExit) as done:
            main(words)
        assert done.value.code == 0, capsys.readouterr().err
    first, second = (1000 * volume(tmp_path / name, "*param-T1_stat-mean_T1map.nii.gz") for name in "ab")
    np.testing.assert_allclose(first, second, rtol=1e-3)


@pytest.mark.usefixtures("no_pages")
def test_signed_inversion_recovery_with_and_without_a_repetition_time(tmp_path):
    scan = write_relaxation_scan(
        tmp_path / "in", "sub-01_IRT1", "t1_inversion_signed", {"T1": (700, 1300), "inv_eff": (0.96, 0.97)},
        Acquisition(ti=TI, tr=[5000.0] * 6), {"InversionTime": [t / 1000 for t in TI], "RepetitionTime": 5.0},
    )  # fmt: skip
    call = {"signal": "t1_inversion_signed", "recipe": "least_squares"}
    out = fit_image(scan.files, **call, out=tmp_path / "out")
    T1 = 1000 * volume(out, "sub-01_model-t1_inversion_signed_param-T1_stat-mean_T1map.nii.gz")[scan.inside]
    assert abs(np.median(T1 / scan.theta["T1"]) - 1) < 0.02
    assert any("tr read as s" in note for note in record_of(out)["notes"])
    with pytest.raises(InputError, match="data with a sign, which rician has not; use likelihood gaussian"):
        fit_image(scan.files, **call, likelihood="rician", out=tmp_path / "rician")
    scan.image.with_name("sub-01_IRT1.json").write_text(json.dumps({"InversionTime": [t / 1000 for t in TI]}))
    with pytest.raises(InputError, match="tr is known of the fit and not of the image"):
        apply_image(out, scan.files, out=tmp_path / "no")


def test_settings_that_no_signal_asks_for_are_not_read(tmp_path):
    image = tmp_path / "sub-01_MESE.nii.gz"
    (tmp_path / "sub-01_MESE.json").write_text(json.dumps({"EchoTime": [0.01, 0.02], "FlipAngle": "ninety"}))
    settings = read_settings(image, n_volumes=2, names=("te",))
    assert list(settings.values) == ["te"]
    with pytest.raises(InputError, match="FlipAngle"):
        read_settings(image, n_volumes=2)


def test_offsets_may_be_negative_and_are_ppm(tmp_path):
    (tmp_path / "offset_ppm.txt").write_text("300 -3.5 0 3.5")
    settings = read_settings(tmp_path / "sub-01_cest.nii.gz", n_volumes=4)
    np.testing.assert_array_equal(settings.values["offset"], [300, -3.5, 0, 3.5])
    assert settings.notes == ["offset read as ppm from offset_ppm.txt (-3.5 to 300)"]
