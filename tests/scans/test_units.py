"""Units are decided over a whole series and all of its settings: right, or refused with both candidates named."""

import json

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.errors import InputError
from pyroqmri.io import read_gradients, read_settings
from pyroqmri.io.units import input_in_unit, relative_b1

SHAPE = (3, 3, 2)


def image_of(folder, name, n, level=100.0):
    """A small image whose values do not matter, all inside its mask."""
    rng = np.random.default_rng(0)
    data = (level * (1 + rng.random((*SHAPE, n)))).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.eye(4)), folder / name)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4)), folder / "all.nii.gz")
    return folder / name


def settings_of(folder, texts=None, sidecar=None, name="x.nii.gz", **kwargs):
    for file, content in (texts or {}).items():
        (folder / file).write_text(content if isinstance(content, str) else " ".join(map(str, content)))
    if sidecar is not None:
        (folder / name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return read_settings(folder / name, **kwargs)


MEGRE_MS = [1.2, 2.4, 3.6, 4.8, 6.0, 7.2, 8.4, 9.6]


@pytest.mark.parametrize(
    ("texts", "sidecar", "expected"),
    [
        # sidecars in ms, although BIDS has s
        ({}, {"EchoTime": MEGRE_MS}, {"te": MEGRE_MS}),
        ({}, {"InversionTime": [20, 100, 400, 1100, 2500]}, {"ti": [20, 100, 400, 1100, 2500]}),
        ({}, {"EchoTime": [2.3, 4.6, 6.9], "RepetitionTime": 40}, {"te": [2.3, 4.6, 6.9], "tr": [40] * 3}),
        ({}, {"InversionTime": [35, 600, 3000], "RepetitionTime": 5000}, {"ti": [35, 600, 3000], "tr": [5000] * 3}),
        # echoes in ms beside TR in s
        ({}, {"EchoTime": [10, 60, 120], "RepetitionTime": 2.5}, {"te": [10, 60, 120], "tr": [2500] * 3}),
        ({}, {"FlipAngle": [2, 8, 20], "RepetitionTime": 15}, {"tr": [15] * 3}),
        # texts in s or ms, where one setting decides for another
        ({"TI.txt": [0.05, 0.8, 2.5], "TR.txt": [2.55]}, None, {"ti": [50, 800, 2500], "tr": [2550] * 3}),
        ({"TI.txt": [50, 800, 2500], "TR.txt": [3]}, None, {"ti": [50, 800, 2500], "tr": [3000] * 3}),
        ({"TE.txt": [0.02, 0.04, 0.08], "TR.txt": [2]}, None, {"te": [20, 40, 80], "tr": [2000] * 3}),
        ({"FA.txt": [3, 10, 20], "TR.txt": [5]}, None, {"tr": [5] * 3}),
        ({"TE.txt": np.arange(1, 33) * 0.0125}, None, {"te": np.arange(1, 33) * 12.5}),
        # what a name states is believed
        ({"x_te_ms.txt": [0.03, 0.4, 1.4]}, None, {"te": [0.03, 0.4, 1.4]}),
        ({"TE_s.txt": [0.4, 0.9, 1.4]}, None, {"te": [400, 900, 1400]}),
        ({}, {"EchoTime": [0.00003, 0.0004, 0.0014]}, {"te": [0.03, 0.4, 1.4]}),
    ],
)  # fmt: skip
def test_one_unit_for_a_series(tmp_path, texts, sidecar, expected):
    n = max(len(np.atleast_1d(v)) for v in expected.values())
    found = settings_of(tmp_path, texts, sidecar, n_volumes=n)
    for name, values in expected.items():
        np.testing.assert_allclose(found.values[name], values, rtol=1e-6)


def test_what_contradicts_a_sidecar_is_a_warning(tmp_path):
    (warning,) = settings_of(tmp_path, sidecar={"EchoTime": MEGRE_MS}).warnings
    assert "te in x.json read as ms (1.2 to 9.6 ms), because it cannot be in s (1200 to 9600 ms)" in warning
    (warning,) = settings_of(tmp_path, sidecar={"FlipAngle": [0.035, 0.2, 0.44]}).warnings
    assert "flip in x.json read as rad" in warning
    (warning,) = settings_of(tmp_path, sidecar={"EchoTime": [0.4, 1.2]}).warnings
    assert "read as s (400 to 1200 ms), as BIDS has it; ms (0.4 to 1.2 ms) is possible too" in warning


@pytest.mark.parametrize(
    ("texts", "sidecar", "words"),
    [
        (
            {"x.te": [0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4]},
            None,
            ["ms (0.03 to 1.4 ms)", "s (30 to 1400 ms)", "TE_ms.txt"],
        ),
        ({"te.txt": [0.1, 0.25, 0.5]}, None, ["ms (0.1 to 0.5 ms)", "s (100 to 500 ms)", "TE_ms.txt"]),
        ({"TE_ms.txt": [0.01, 0.04, 0.08]}, None, ["name states ms (0.01 to 0.08 ms)", "s (10 to 80 ms)"]),
        ({"TE_s.txt": [10, 40, 80]}, None, ["name states s", "ms (10 to 80 ms)"]),
        ({"FA.txt": [2, 3]}, None, ["degrees (2 to 3 degrees)", "rad (114.6 to 171.9 degrees)", "FA_deg.txt"]),
        ({}, {"EchoTime": [1.2, 2.4]}, ["ms (1.2 to 2.4 ms)", "s (1200 to 2400 ms)", "correct the sidecar"]),
        ({"TR.txt": [20], "TE.txt": [0.004, 0.008]}, None, ["tr", "20 ms", "20000 ms", "TR_ms.txt"]),
        ({"TI.txt": [50, 800, 4500], "TR.txt": [2.55]}, None, ["s (2550 ms)", "ms (2.55 ms)", "ti of 50 to 4500"]),
        ({}, {"EchoTime": [7000, 9000]}, ["neither s", "nor ms (7000 to 9000 ms)"]),
        ({}, {"FlipAngle": 1000}, ["flip", "neither degrees (1000 degrees) nor rad"]),
    ],
)
def test_what_cannot_be_decided_names_both_candidates(tmp_path, texts, sidecar, words):
    with pytest.raises(InputError) as error:
        settings_of(tmp_path, texts, sidecar)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_the_suffix_of_a_gradient_echo_decides(tmp_path):
    found = settings_of(tmp_path, sidecar={"EchoTime": [1.2, 2.4]}, name="sub-1_MEGRE.nii.gz")
    np.testing.assert_allclose(found.values["te"], [1.2, 2.4])


UTE_MS, UTE_S = [0.03, 0.08, 0.2, 0.3], [0.00003, 0.00008, 0.0002, 0.0003]


@pytest.mark.parametrize("name", ["bone_UTE.nii.gz", "3DUTE_knee.nii.gz", "sub-1_acq-petra_T2starw.nii.gz"])
def test_echo_times_of_ultrashort_readouts_are_no_seconds(tmp_path, name):
    found = settings_of(tmp_path, texts={"TE.txt": UTE_MS}, name=name)
    np.testing.assert_allclose(found.values["te"], UTE_MS)
    (tmp_path / "other").mkdir()
    found = settings_of(tmp_path / "other", texts={"TE.txt": UTE_S}, name=name)
    np.testing.assert_allclose(found.values["te"], UTE_MS)


def test_echo_times_below_a_third_of_a_ms_in_a_sidecar_are_read(tmp_path):
    np.testing.assert_allclose(settings_of(tmp_path, sidecar={"EchoTime": UTE_S}).values["te"], UTE_MS)
    found = settings_of(tmp_path, texts={"TE.txt": [0.03, 0.08, 0.2, 0.3]})  # echoes of a T2 series
    np.testing.assert_allclose(found.values["te"], [30, 80, 200, 300])
    assert any("te read as s" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "unit", "largest"),
    [("0 1e9 3e9", "s/m2", 3.0), ("0 0.5 1.2", "ms/um2", 1.2), ("0 20 700", "s/mm2", 0.7), ("0 5e8", "s/m2", 0.5)],
)
def test_b_values_in_three_units(tmp_path, text, unit, largest):
    (tmp_path / "x.bval").write_text(text)
    found = read_gradients(tmp_path / "x.bval")
    assert float(found.acquisition.bval.max()) == pytest.approx(largest)
    assert any(f"b-values read as {unit}" in note for note in found.notes)


def test_b_values_that_may_be_either(tmp_path):
    (tmp_path / "x.bval").write_text("0 40 60")
    with pytest.raises(InputError, match="in s/mm2 or in ms/um2, and both are possible; multiply"):
        read_gradients(tmp_path / "x.bval")


PPM = np.r_[-300.0, np.arange(-5, 5.01, 0.25)]
WITH_M0 = [-1560.0, -1560.0, -4, -3.5, -3, 3, 3.5, 4]


@pytest.mark.parametrize("ppm", [PPM, PPM[1:], np.array(WITH_M0), np.array([-300.0, -300, -300, 3.5, -3.5])])
def test_offsets_in_ppm_stay_whatever_their_references(tmp_path, ppm):
    found = settings_of(tmp_path, {"x.offset": ppm})
    np.testing.assert_allclose(found.values["offset"], ppm)


@pytest.mark.parametrize(
    ("field", "mhz"),
    [
        ({"ImagingFrequency": 123.25}, 123.25),
        ({"MagneticFieldStrength": 7}, 298.04),
        ({"ImagingFrequency": 63.9e6}, 63.9),
    ],
)
@pytest.mark.parametrize("ppm", [PPM, PPM[1:], np.array(WITH_M0)])
def test_offsets_in_hz_are_converted_or_refused(tmp_path, field, mhz, ppm):
    texts = {"x.offset": ppm * mhz}
    with pytest.raises(InputError, match=r"in Hz, because in ppm .* ImagingFrequency or MagneticFieldStrength"):
        settings_of(tmp_path, texts)
    found = settings_of(tmp_path, texts, field)
    np.testing.assert_allclose(found.values["offset"], ppm, atol=2e-3, rtol=2e-4)
    assert any("offset read as Hz" in note and "MHz" in note for note in found.notes)


def test_offsets_that_may_be_either(tmp_path):
    narrow = np.arange(-100, 101, 20)
    with pytest.raises(InputError, match=r"in ppm or in Hz, and both are possible; .*offset_hz.txt"):
        settings_of(tmp_path, {"x.offset": narrow})
    (tmp_path / "x.offset").unlink()
    found = settings_of(tmp_path, {"offset_hz.txt": narrow}, {"MagneticFieldStrength": 3})
    np.testing.assert_allclose(found.values["offset"], narrow / 127.731, rtol=1e-4)


def test_b1_in_per_cent_or_another_scale():
    holes = np.array([[0.8, np.nan], [0.0, 1.1]])
    for factor, said in ((1, 0), (100, 1)):
        values, notes = relative_b1(factor * holes, "b1.nii.gz")
        np.testing.assert_allclose(values, holes)
        assert len(notes) == said
    for wrong in (8, 55, 700, 0.01, 3e-6):  # 55: degrees of a nominal 60
        with pytest.raises(InputError, match=r"B1 map b1.nii.gz has a median of .* neither relative .* nor per cent"):
            relative_b1(wrong * np.array([0.8, 0.9, 1.1]), "b1.nii.gz")


def test_a_map_of_b1_in_per_cent_reaches_the_signal_as_a_ratio(tmp_path):
    image = image_of(tmp_path, "sub-1_VFA.nii.gz", 3)
    (tmp_path / "sub-1_VFA.json").write_text(json.dumps({"FlipAngle": [3, 10, 20], "RepetitionTimeExcitation": 0.015}))
    nib.save(nib.Nifti1Image(np.full(SHAPE, 88.0, np.float32), np.eye(4)), tmp_path / "b1.nii.gz")
    scan = ScanFiles(image, mask=tmp_path / "all.nii.gz", inputs={"B1": tmp_path / "b1.nii.gz"}).read("t1_vfa")
    np.testing.assert_allclose(scan.inputs["B1"], 0.88, rtol=1e-6)
    (text,) = [text for text in scan.warnings if "B1 in b1.nii.gz read as per cent" in text]
    assert "in degrees it would be wrong" in text


@pytest.mark.parametrize(
    ("signal", "name", "sidecar"),
    [
        ("t2_decay", "sub-1_MESE.nii.gz", {"EchoTime": [0.01 * k for k in range(1, 13)], "RepetitionTime": 2.5}),
        ("t2_decay", "sub-1_echoes.nii.gz", {"EchoTime": [0.002 * k for k in range(1, 13)], "RepetitionTime": 0.04}),
        ("t1_vfa", "sub-1_VFA.nii.gz", {"FlipAngle": [2, 5, 10, 20] * 3, "RepetitionTime": 0.012, "EchoTime": 0.003}),
        ("t1_inversion", "sub-1_IRT1.nii.gz",
         {"InversionTime": [0.05 * 1.5**k for k in range(12)], "RepetitionTimePreparation": 6, "FlipAngle": 90}),
        ("cest_lorentz", "sub-1_cest.nii.gz",
         {"SaturationOffset": [-300.0, *np.arange(-5, 5.1, 1).tolist()], "MagneticFieldStrength": 3}),
    ],
)  # fmt: skip
def test_ordinary_scans_are_read_without_a_warning(tmp_path, signal, name, sidecar):
    image = image_of(tmp_path, name, 12)
    (tmp_path / name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    scan = ScanFiles(image, mask=tmp_path / "all.nii.gz").read(signal)
    assert scan.warnings == []


def test_a_field_map_in_hz_is_refused_and_one_in_ppm_is_taken():
    field = np.linspace(-0.6, 0.6, 50)
    assert input_in_unit("B0", field, "b0.nii.gz")[0] is field
    with pytest.raises(InputError, match=r"B0 map b0.nii.gz reaches 7.* ppm: it may be in Hz; divide"):
        input_in_unit("B0", 127.7 * field, "b0.nii.gz")


@pytest.mark.parametrize("names", [{"texts": {"TE.txt": range(1, 9)}}, {"sidecar": {"EchoTime": list(range(1, 9))}}])
def test_numbers_of_echoes_in_place_of_their_times_are_doubted(tmp_path, names):
    found = settings_of(tmp_path, names=("te",), **names)
    assert any("counts from 1 to 8, as image numbers do" in text for text in found.warnings)
    for times in ([1, 2, 3, 4, 5, 6, 7, 9], [2, 4, 6, 8, 10, 12, 14, 16], [1, 2, 3]):
        assert settings_of(tmp_path, {"TE_ms.txt": times}, names=("te",), te=tmp_path / "TE_ms.txt").warnings == []
