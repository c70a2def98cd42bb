"""`pyroqmri join`: intruders are named, units are those of the whole series, and no kill leaves a mixed state."""

import json

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.commands.join import join_series, settings_table
from pyroqmri.errors import InputError
from pyroqmri.io import read_scan


def put_image(folder, name, sidecar=None, value=100.0):
    """An image of a series with its sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.nii.gz"
    data = value * (1 + np.random.default_rng(0).random((9, 9, 4)))
    nib.save(nib.Nifti1Image(data.astype(np.float32), np.eye(4)), path)
    if sidecar is not None:
        (folder / f"{name}.json").write_text(json.dumps(sidecar))
    return path


def echoes(folder, te=(0.01, 0.02, 0.03), name="sub-01_echo-{}_MESE", **entries):
    return [put_image(folder, name.format(k), {"EchoTime": t} | entries, 100 / k) for k, t in enumerate(te, 1)]


def join_of(folder, images, **kwargs):
    return join_series(images, out=folder / "joined" / "sub-01_MESE.nii.gz", **kwargs)


@pytest.mark.parametrize(
    ("sidecars", "name", "expected"),
    [
        ([{"EchoTime": t} for t in (1.2, 2.4, 3.6, 9.6)], "te", [1.2, 2.4, 3.6, 9.6]),
        ([{"EchoTime": t} for t in (0.9, 1.8, 2.7, 20.0)], "te", [0.9, 1.8, 2.7, 20.0]),
        ([{"InversionTime": t} for t in (20, 100, 400, 2500)], "ti", [20, 100, 400, 2500]),
        ([{"InversionTime": t} for t in (0.02, 0.1, 5, 20)], "ti", [20, 100, 5000, 20_000]),
        ([{"FlipAngle": a, "RepetitionTime": 6} for a in (1, 2, 8, 20)], "tr", [6] * 4),
        ([{"FlipAngle": a} for a in (0.02, 0.1, 0.2, 0.4)], "flip", [0.02, 0.1, 0.2, 0.4]),
    ],
)
def test_units_are_those_of_the_whole_series(tmp_path, sidecars, name, expected):
    images = [put_image(tmp_path, f"x{k}", sidecar) for k, sidecar in enumerate(sidecars)]
    joined = join_of(tmp_path, images)
    np.testing.assert_allclose(getattr(joined.acquisition, name), expected, rtol=1e-5)
    found = read_scan(joined.path, need=(name,)).acquisition
    np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-5)


def test_two_short_echoes_alone_are_refused_and_with_their_suffix_are_not(tmp_path):
    with pytest.raises(InputError, match=r"may be in ms \(1.2 to 2.4 ms\) or in s \(1200 to 2400 ms\)"):
        join_of(tmp_path, echoes(tmp_path, (1.2, 2.4), "sub-01_echo-{}_bold"))
    joined = join_of(tmp_path, echoes(tmp_path, (1.2, 2.4), "sub-01_echo-{}_MEGRE"))
    np.testing.assert_allclose(joined.acquisition.te, [1.2, 2.4])


def test_sidecars_of_the_root_are_read(tmp_path):
    """As in the examples of BIDS: repetition time and angle at the root, inversion times beside the images."""
    (tmp_path / "IRT1.json").write_text(json.dumps({"RepetitionTimeExcitation": 2.55, "FlipAngle": 3}))
    folder = tmp_path / "sub-01" / "anat"
    images = [
        put_image(folder, f"sub-01_inv-{k}_IRT1", {"InversionTime": t}) for k, t in enumerate((0.05, 0.4, 2.5), 1)
    ]
    acquisition = join_of(tmp_path, images).acquisition
    np.testing.assert_allclose(acquisition.tr, 2550)
    np.testing.assert_allclose(acquisition.ti, [50, 400, 2500])


def test_echoes_of_several_angles_keep_their_angles(tmp_path):
    images = []
    for flip, angle in ((1, 6), (2, 21)):
        images += echoes(tmp_path, (0.0023, 0.0046), f"sub-01_echo-{{}}_flip-{flip}_mt-off_MPM", FlipAngle=angle)
    joined = join_of(tmp_path, images)
    scan = read_scan(joined.path, need=("te",))
    np.testing.assert_allclose(np.degrees(scan.acquisition.flip.numpy()), [6, 6, 21, 21], rtol=1e-5)


PHASES = [
    ("sub-01_echo-4_part-phase_MESE", {"EchoTime": 0.04}),
    ("sub-01_echo-4_MESE", {"EchoTime": 0.04, "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}),
    ("sub-01_echo-4_MESE", {"EchoTime": 0.04, "Units": "rad"}),
    ("sub-01_echo-4_ph", {"EchoTime": 0.04}),
]
OTHERS = [
    ("sub-01_echo-4_T2w", {"EchoTime": 0.04}, "suffix differs"),
    ("sub-02_echo-4_MESE", {"EchoTime": 0.04}, "entity sub- differs"),
    ("sub-01_echo-4_desc-denoised_MESE", {"EchoTime": 0.04}, "entity desc- differs"),
    ("sub-01_echo-4_MESE", {"EchoTime": 0.02}, "both state te 20 ms"),
    ("sub-01_echo-4_part-real_MESE", {"EchoTime": 0.04, "ImageType": ["R"]}, "part"),
    ("sub-01_echo-4_MESE", {"EchoTime": 0.04, "MTState": True}, "magnetisation transfer"),
    ("sub-01_mt-on_echo-4_MESE", {"EchoTime": 0.04}, "magnetisation transfer"),
]


@pytest.mark.parametrize(("name", "sidecar", "words"), [(*phase, "no magnitude") for phase in PHASES] + OTHERS)
def test_intruders_are_refused_by_name(tmp_path, name, sidecar, words):
    images = echoes(tmp_path, MTState=False, ImageType=["ORIGINAL", "PRIMARY", "M"])
    with pytest.raises(InputError) as error:
        join_of(tmp_path, [*images, put_image(tmp_path, name, sidecar)])
    assert words in str(error.value)
    assert f"{name}.nii.gz" in str(error.value)
    assert not (tmp_path / "joined").exists()


def test_copied_sidecars_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"echo-1_MESE.nii.gz and .*echo-2_MESE.nii.gz both state te 10 ms"):
        join_of(tmp_path, echoes(tmp_path, (0.01, 0.01, 0.01)))
    with pytest.raises(InputError, match=r"echo-2.*echo-3.* both state te 20 ms"):
        join_of(tmp_path, echoes(tmp_path, (0.01, 0.02, 0.02)))
    with pytest.raises(
        InputError, match=r"scan_e1.nii.gz and scan_e2.nii.gz both state te 10 ms"
    ):  # as dcm2niix has it
        join_of(tmp_path, echoes(tmp_path, (0.01, 0.01), "scan_e{}"))
    (warning,) = join_of(tmp_path, echoes(tmp_path, (0.01, 0.01), "scan{}")).warnings
    assert "all images have the same settings" in warning


def test_what_differs_besides_is_a_warning(tmp_path):
    images = echoes(tmp_path, PhilipsScaleSlope=0.01)
    images[2] = put_image(tmp_path, "sub-01_echo-3_MESE", {"EchoTime": 0.03, "PhilipsScaleSlope": 0.02})
    (warning,) = join_of(tmp_path, images).warnings
    assert "PhilipsScaleSlope differs between the images (0.01, 0.02)" in warning
    (warning,) = join_of(tmp_path, echoes(tmp_path, (0.03, 0.02, 0.01)), overwrite=True).warnings
    assert "an earlier echo" in warning


def test_a_clean_series_has_no_warning_and_its_table_is_printed(run, tmp_path):
    images = echoes(tmp_path, RepetitionTime=2.5, MTState=False)
    joined = join_of(tmp_path, images)
    assert joined.warnings == []
    assert settings_table(joined) == [
        "volume  file                       te (ms)  tr (ms)",
        "     0  sub-01_echo-1_MESE.nii.gz       10     2500",
        "     1  sub-01_echo-2_MESE.nii.gz       20     2500",
        "     2  sub-01_echo-3_MESE.nii.gz       30     2500",
    ]
    code, out, error = run("join", *map(str, images), "--out", tmp_path / "again.nii.gz")
    assert (code, out) == (0, f"{tmp_path / 'again.nii.gz'}\n")
    assert "\n".join(settings_table(joined)) in error
    assert "warning" not in error


def test_a_shells_order_is_put_right_and_another_is_kept(tmp_path):
    images = echoes(tmp_path, [0.01 * k for k in range(1, 13)])
    joined = join_of(tmp_path, sorted(images))
    np.testing.assert_allclose(joined.acquisition.te, 10 * np.arange(1, 13), rtol=1e-6)
    assert "2 before 10" in joined.notes[0]
    joined = join_of(tmp_path, images[::-1], overwrite=True)
    np.testing.assert_allclose(joined.acquisition.te, 10 * np.arange(12, 0, -1), rtol=1e-6)
