"""Every usual file of a protocol is found, in whatever punctuation; wrong values are refused."""

import json
import os

import nibabel as nib
import numpy as np
import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.errors import InputError
from pyroqmri.io import read_gradients, read_settings
from pyroqmri.io.names import gradient_files

SHAPE = (3, 3, 2)
AXES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0.6, 0.8], [0.8, 0, 0.6], [0, 0, 1]])
B = [0, 1000, 1000, 1000, 2000, 2000, 2000]


def put_image(path, n=7, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = 100 * (1 + np.random.default_rng(0).random((*SHAPE, n)))
    data[..., 1:] *= 0.6  # as tissue decays
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4) if affine is None else affine), path)
    return path


def put_tables(folder, bval="dwi.bval", bvec="dwi.bvec", g=AXES, b=B):
    (folder / bval).write_text(" ".join(map(str, b)))
    np.savetxt(folder / bvec, np.asarray(g).T, fmt="%.6f")


def scan_of(image, signal="dti", s0="inferred", **kwargs):
    mask = image.with_name("all_voxels.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), nib.load(image).affine), mask)
    return ScanFiles(image, mask=mask, **kwargs).read(signal)


# BIDS inheritance


def test_a_sidecar_at_the_root_applies_and_nearer_ones_override_it(tmp_path):
    image = put_image(tmp_path / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_inv-1_IRT1.nii.gz", 3)
    (tmp_path / "IRT1.json").write_text(json.dumps({"RepetitionTimeExcitation": 2.55, "InversionTime": [9, 9, 9]}))
    (tmp_path / "inv-2_IRT1.json").write_text(json.dumps({"RepetitionTimePreparation": 7}))
    (tmp_path / "sub-01" / "sub-01_IRT1.json").write_text(json.dumps({"InversionTime": [0.05, 0.7, 2.5]}))
    found = read_settings(image, n_volumes=3)
    np.testing.assert_allclose(found.values["ti"], [50, 700, 2500])
    np.testing.assert_allclose(found.values["tr"], 2550)
    assert any("tr read as s from IRT1.json" in note for note in found.notes)


def test_inheritance_ends_at_the_root_and_at_other_names(tmp_path):
    image = put_image(tmp_path / "data" / "sub-01" / "anat" / "sub-01_MESE.nii.gz", 2)
    (tmp_path / "MESE.json").write_text(json.dumps({"EchoTime": [1, 2]}))  # above the data set
    (tmp_path / "data" / "T2w.json").write_text(json.dumps({"EchoTime": [0.1, 0.2]}))
    (tmp_path / "data" / "sub-01" / "sub-02_MESE.json").write_text(json.dumps({"EchoTime": [0.1, 0.2]}))
    assert "te" not in read_settings(image, n_volumes=2).values


def test_two_sidecars_of_one_rank_that_disagree_are_named(tmp_path):
    image = put_image(tmp_path / "sub-01" / "dwi" / "sub-01_acq-a_dir-AP_MESE.nii.gz", 2)
    (tmp_path / "acq-a_MESE.json").write_text(json.dumps({"EchoTime": [0.01, 0.02]}))
    (tmp_path / "dir-AP_MESE.json").write_text(json.dumps({"EchoTime": [0.01, 0.03]}))
    with pytest.raises(InputError, match=r"EchoTime differs between .*acq-a_MESE.json and dir-AP_MESE.json"):
        read_settings(image, n_volumes=2)


@pytest.mark.parametrize(
    ("sidecar", "tr"),
    [
        ({"FlipAngle": [3, 20], "RepetitionTimeExcitation": 0.015, "RepetitionTime": 2.3}, 15),
        ({"FlipAngle": [3, 20], "RepetitionTime": 0.015, "RepetitionTimePreparation": 3}, 15),
        ({"InversionTime": [0.05, 2.5], "RepetitionTimePreparation": 6, "RepetitionTimeExcitation": 0.006}, 6000),
        ({"InversionTime": [0.05, 2.5], "RepetitionTime": 5, "RepetitionTimeExcitation": 0.006}, 5000),
        ({"InversionTime": [0.05, 2.5], "RepetitionTimeExcitation": 2.55}, 2550),
        ({"InversionTime": [0.05, 2.5], "RepetitionTimeExcitation": 0.006}, None),
    ],
)
def test_which_repetition_time_is_tr(tmp_path, sidecar, tr):
    (tmp_path / "x.json").write_text(json.dumps(sidecar))
    found = read_settings(tmp_path / "x.nii.gz", n_volumes=2).values
    assert ("tr" in found) == (tr is not None)
    if tr is not None:
        np.testing.assert_allclose(found["tr"], tr)


def test_gradients_at_the_root_of_a_data_set(tmp_path):
    image = put_image(tmp_path / "sub-01" / "dwi" / "sub-01_dwi.nii.gz")
    put_tables(tmp_path)
    scan = scan_of(image)
    np.testing.assert_allclose(scan.acquisition.bval * 1000, B)
    np.testing.assert_allclose(scan.acquisition.bvec, AXES, atol=1e-5)


# names


@pytest.mark.parametrize(
    ("bval", "bvec"),
    [("bval.txt", "bvec.txt"), ("bvals.txt", "bvecs.txt"), ("x_bval.txt", "x_bvec.txt"), ("bvals", "bvecs")],
)
def test_usual_names(tmp_path, bval, bvec):
    image = put_image(tmp_path / "x.nii.gz")
    put_tables(tmp_path, bval, bvec)
    assert gradient_files(image) == (tmp_path / bval, tmp_path / bvec)
    np.testing.assert_allclose(scan_of(image).acquisition.bval * 1000, B)


def test_files_that_differ_and_could_both_belong_are_named(tmp_path):
    image = put_image(tmp_path / "x.nii.gz")
    put_tables(tmp_path, "bvals", "bvecs")
    put_tables(tmp_path, "dwi.bval", "dwi.bvec")
    assert gradient_files(image)[0] is not None  # two copies of one table
    (tmp_path / "bvals").write_text("0 1 2 3 4 5 6")
    with pytest.raises(InputError, match=r"dwi.bval and bvals in .* differ .* --bval"):
        scan_of(image)
    assert len(scan_of(image, bval=tmp_path / "dwi.bval", bvec=tmp_path / "dwi.bvec").acquisition) == 7
    for name, text in (("TE.txt", "10 20"), ("TE_ms.txt", "10 30")):
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"TE_ms.txt and TE.txt in .* differ .* --te"):
        read_settings(tmp_path / "y.nii.gz", n_volumes=2)


def test_a_table_of_another_name_is_named(tmp_path):
    image = put_image(tmp_path / "x.nii.gz")
    put_tables(tmp_path, "scan.bval", "scan.bvec")
    with pytest.raises(InputError, match=r"no bval file beside it .*--bval \(scan.bval there has another name\)"):
        scan_of(image)


def test_rotated_directions_of_eddy_go_first(tmp_path):
    image = put_image(tmp_path / "data.nii.gz")
    put_tables(tmp_path, "bvals", "bvecs")
    turned = AXES[:, [1, 2, 0]]
    np.savetxt(tmp_path / "data.eddy_rotated_bvecs", turned.T)
    np.savetxt(tmp_path / "other.eddy_rotated_bvecs", AXES.T)
    scan = scan_of(image)
    np.testing.assert_allclose(scan.acquisition.bvec, turned, atol=1e-6)
    assert any("FSL eddy rotated" in note for note in scan.notes)


@pytest.mark.parametrize("x", [2.0, -2.0])
def test_a_table_of_mrtrix(tmp_path, x):
    """MRtrix: g along the scanner's axes. FSL: along the image's, its x reversed where the affine does not."""
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # by 90 degrees about z
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([x, 2, 3])
    image = put_image(tmp_path / "dwi.nii.gz", affine=affine)
    np.savetxt(tmp_path / "dwi.b", np.c_[AXES, B], header="command_history: dwi2tensor")
    expected = np.linalg.inv(affine[:3, :3] / np.abs([x, 2, 3])) @ AXES.T
    expected[0] *= -1 if np.linalg.det(affine[:3, :3]) > 0 else 1
    scan = scan_of(image)
    np.testing.assert_allclose(scan.acquisition.bvec, expected.T, atol=1e-6)
    np.testing.assert_allclose(scan.acquisition.bval * 1000, B)


# punctuation


@pytest.mark.parametrize(
    "text",
    [
        "0 1000 1000\n1000 2000 2000\n2000\n",
        "# b-values\n0\t1000\t1000\t1000\t2000\t2000\t2000  # s/mm2\n",
        "0,0 1000,0 1000,0 1000,0 2000,0 2000,0 2000,0",
        "0,5\n1000,0\n1000,0\n1000,0\n2000,0\n2000,0\n2000,0\n",
        "0;1000;1000;1000;2000;2000;2000",
        "0,5; 1000,0; 1000,0; 1000,0; 2000,0; 2000,0; 2000,0",
        "[0 1000 1000 1000 2000 2000 2000]",
        "[0, 1000, 1000, 1000, 2000, 2000, 2000];\n",
        "\ufeff0, 1e3, 1e3, 1e3, 2e3, 2e3, 2e3\r\n",
        "0 1000 1000 1000 % first shell\n2000 2000 2000",
    ],
)
def test_b_values_in_any_punctuation(tmp_path, text):
    (tmp_path / "x.bval").write_text(text, encoding="utf-8")
    for n in (7, None):
        found = read_gradients(tmp_path / "x.bval", n_volumes=n).acquisition
        np.testing.assert_allclose(found.bval * 1000, B, atol=0.6)


def test_directions_in_any_punctuation(tmp_path):
    (tmp_path / "x.bval").write_text(" ".join(map(str, B)))
    rows = [" ".join(f"{x:g}" for x in row) for row in AXES.T]
    wrapped = "\n".join(" ".join(part) for row in rows for part in (row.split()[:5], row.split()[5:]))
    matlab = "[" + "; ".join(rows) + "]"
    comma = "\n".join(" ".join(f"{x:.2f}".replace(".", ",") for x in row) for row in AXES.T)
    german = "\n".join(";".join(f"{x:.2f}".replace(".", ",") for x in row) for row in AXES.T)
    for text in ("\n".join(rows), wrapped, matlab, comma, german):
        (tmp_path / "x.bvec").write_text(text)
        found = read_gradients(tmp_path / "x.bval", tmp_path / "x.bvec", n_volumes=7).acquisition
        np.testing.assert_allclose(found.bvec, AXES, atol=1e-6)


# b-tensors


@pytest.mark.parametrize("name", ["dwi.bdelta", "dwi_btens.txt", "bdelta.txt"])
@pytest.mark.parametrize(
    "shapes", ["1 1 1 1 0 0 0", "0 1 1 1 1 1 -0.5", "1 LTE LTE LTE STE STE STE", "linear " * 6 + "planar"]
)
def test_b_tensors_that_are_not_linear_are_refused(tmp_path, name, shapes):
    image = put_image(tmp_path / "dwi.nii.gz")
    put_tables(tmp_path)
    (tmp_path / name).write_text(shapes)
    with pytest.raises(InputError, match=r"declares b-tensors that are not linear .*6.*linear volumes alone"):
        scan_of(image, "msdki")
    (tmp_path / name).write_text("0 1 1 1 1 1 1")  # without weighting a shape means nothing
    assert len(scan_of(image, "msdki").acquisition) == 7


def test_b_tensors_in_a_sidecar_are_refused(tmp_path):
    image = put_image(tmp_path / "dwi.nii.gz")
    put_tables(tmp_path)
    (tmp_path / "dwi.json").write_text(json.dumps({"BTensorEncoding": "spherical"}))
    with pytest.raises(InputError, match=r"BTensorEncoding in .*dwi.json declares b-tensors that are not linear"):
        scan_of(image)


# what directions mean


def test_shells_in_the_lengths_of_directions(tmp_path):
    r = np.random.default_rng(1)
    g = r.normal(size=(40, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    shell = np.repeat([700, 1400, 2800], [10, 12, 18])
    b = np.r_[0, np.full(40, 2800)]
    put_tables(tmp_path, g=np.r_[[[0, 0, 0]], g * np.sqrt(shell / 2800)[:, None]], b=b)
    found = read_gradients(tmp_path / "dwi.bval", tmp_path / "dwi.bvec")
    np.testing.assert_allclose(found.acquisition.bval * 1000, np.r_[0, shell], rtol=1e-3)
    (warning,) = found.warnings
    assert "(10 x b 700, 12 x b 1400, 18 x b 2800)" in warning
    assert "as MRtrix does" in warning
    with pytest.warns(UserWarning, match="as MRtrix does"):
        Acquisition.from_files(tmp_path / "dwi.bval", tmp_path / "dwi.bvec")


def test_lengths_that_repeat_the_b_values_or_say_nothing_leave_them(tmp_path):
    g, b = AXES, np.array(B, float)
    for scaled, warned in ((g * np.sqrt(b / 2000)[:, None], 0), (0.5 * g, 0), (np.round(g, 1), 0)):
        put_tables(tmp_path, g=scaled)
        found = read_gradients(tmp_path / "dwi.bval", tmp_path / "dwi.bvec")
        np.testing.assert_allclose(found.acquisition.bval * 1000, B)
        assert len(found.warnings) == warned


def test_lengths_that_may_mean_two_things_are_refused(tmp_path):
    put_tables(tmp_path, g=AXES * np.array([1, 20, 20, 20, 40, 40, 40])[:, None], b=[0] + [2000] * 6)
    with pytest.raises(
        InputError, match=r"lengths of 20 to 40 .* b of the length 1 .* or of the longest \(500 to 2000"
    ):
        read_gradients(tmp_path / "dwi.bval", tmp_path / "dwi.bvec")


def test_a_trace_weighted_volume(tmp_path):
    image = put_image(tmp_path / "dwi.nii.gz", 8)
    put_tables(tmp_path, g=np.r_[AXES, [[0, 0, 0]]], b=[*B, 1000])
    with pytest.raises(InputError, match=r"no direction \(0 0 0\) in bvec for volume 7 .* --drop-volumes 7"):
        scan_of(image)
    assert len(scan_of(image, drop="7").acquisition) == 7
    (warning,) = scan_of(image, "msdki").warnings
    assert "--drop-volumes 7" in warning
    assert scan_of(image, "msdki", drop="7").warnings == []


def test_settings_that_vary_are_kept_though_the_signal_ignores_them(tmp_path):
    image = put_image(tmp_path / "dwi.nii.gz")
    put_tables(tmp_path)
    te = [0.07] * 4 + [0.09] * 3
    (tmp_path / "dwi.json").write_text(json.dumps({"EchoTime": te, "RepetitionTime": 5, "FlipAngle": True}))
    acquisition = scan_of(image).acquisition
    np.testing.assert_allclose(acquisition.te, 1000 * np.array(te))
    assert acquisition.tr is None  # one for all
    assert scan_of(image, "t2_decay").acquisition.bval is not None


# wrong values


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"EchoTime": true}', "EchoTime is True; expected a number"),
        ('{"EchoTime": [0.01, false]}', "expected a number"),
        ('{"EchoTime": "0.03"}', "without quotation marks"),
        ('{"EchoTime": ["0.03", "0.05"]}', "without quotation marks"),
        ('{"EchoTime": null}', "EchoTime is None"),
        ('{"EchoTime": [[0.01, 0.02]]}', "expected a number"),
        ('{"EchoTime": NaN}', "finite"),
        ('{"EchoTime": 1e308}', "neither s"),
        ('{"EchoTime": -0.01}', "positive"),
        ('{"EchoTime": ' + "7" * 400 + "}", "400 digits"),
        ('{"EchoTime": ' + "[" * 20000 + "]" * 20000 + "}", "nested too deeply"),
        ('{"FlipAngle": [1000, 20]}', "neither degrees"),
    ],
)
def test_entries_that_are_no_settings(tmp_path, content, words):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError) as error:
        read_settings(tmp_path / "x.nii.gz", n_volumes=2)
    assert words in str(error.value), str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "text", ["0 1e308 1000", "0 1_000 2000", "0 -1 2", "0 nan 1", "0 " + "9" * 400, "0 True 1", "1,000 2,000.5"]
)
def test_b_values_that_are_none(tmp_path, text):
    (tmp_path / "x.bval").write_text(text)
    with pytest.raises(InputError):
        read_gradients(tmp_path / "x.bval", n_volumes=3)


@pytest.mark.parametrize("value", [1e308, 1e30, np.inf])
def test_directions_that_are_none(tmp_path, value):
    put_tables(tmp_path)
    g = AXES.copy()
    g[3, 1] = value
    np.savetxt(tmp_path / "dwi.bvec", g.T)
    with pytest.raises(InputError, match=r"volumes? 3"):
        read_gradients(tmp_path / "dwi.bval", tmp_path / "dwi.bvec")


def test_only_regular_text_files(tmp_path):
    os.mkfifo(tmp_path / "x.bval")
    for path, words in ((tmp_path / "x.bval", "a pipe"), ("/dev/zero", "a device"), (tmp_path, "a folder")):
        with pytest.raises(InputError, match=words):
            read_gradients(path)
    (tmp_path / "y.bval").write_text("0 1000", encoding="utf-16")
    with pytest.raises(InputError, match="UTF-16"):
        read_gradients(tmp_path / "y.bval")
    with pytest.raises(InputError, match="no possible file name"):
        read_gradients("a\0b")


UNIT = [[0.0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"te": [1e308]}, "te contains NaN or Inf"),
        ({"te": [1e9]}, "expects ms"),
        ({"te": [-1.0]}, "negative"),
        ({"te": ["0.03"]}, "no array of real numbers"),
        ({"te": [True, False]}, "no array of real numbers"),
        ({"te": [1j]}, "no array of real numbers"),
        ({"te": []}, "at least one"),
        ({"te": [10**400]}, "no array of real numbers"),
        ({"te": np.ma.masked_greater([10.0, 90], 50)}, "masked"),
        ({"flip": [1000.0]}, "expects rad"),
        ({"flip": [5.0, 20]}, "expects rad"),
        ({"bval": [0, 1.0], "bvec": [[0, 0, 0], [0.5, 0, 0]]}, "length 0.5"),
        ({"bval": [0, 1.0], "bvec": [[0, 0, 0], [1e30, 0, 0]]}, "not unit vectors"),
        ({"offset": np.arange(-500, 501, 50.0)}, "expects ppm, so divide values in Hz"),
    ],
)
def test_settings_in_python_that_cannot_be(settings, words):
    with pytest.raises(InputError) as error:
        Acquisition(**settings)
    assert words in str(error.value), str(error.value)


def test_settings_in_python_that_can_be():
    assert Acquisition(te=torch.tensor([5.0], requires_grad=True)).te.requires_grad is False
    assert Acquisition(bval=[0.0, 1], bvec=UNIT, te=np.ma.array([50, 60])).te.tolist() == [50, 60]
    assert len(Acquisition(offset=[300.0, 300, -3.5, 3.5])) == 4
