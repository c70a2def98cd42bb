"""Gradient tables, other settings and names: what is recognised, said and refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pyroqmri import io
from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.io.names import gradient_files, stem
from pyroqmri.measurements.shells import shell_indices

AXES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0.6, 0.8]], dtype=float)
BVAL = "0 1000 1000 2000 2000"


def write(path: Path, table: str | np.ndarray) -> Path:
    path.write_text(table if isinstance(table, str) else "\n".join(" ".join(map(str, row)) for row in table) + "\n")
    return path


@pytest.fixture
def read(tmp_path):
    def of(bval: str, bvec: str | np.ndarray | None = None, **kwargs):
        bvec_file = None if bvec is None else write(tmp_path / "dwi.bvec", bvec)
        return io.read_gradients(write(tmp_path / "dwi.bval", bval), bvec_file, **kwargs)

    return of


@pytest.mark.parametrize(
    ("text", "unit"),
    [(BVAL, "s/mm2"), ("0 1 1 2 2", "ms/um2"), ("0\n1000\n1000\n2000\n2000\n", "s/mm2"), ("0,1,1,2,2", "ms/um2")],
)
def test_units_are_recognised_and_said(read, text, unit):
    gradients = read(text)
    torch.testing.assert_close(gradients.acquisition.bval, torch.tensor([0.0, 1, 1, 2, 2]))
    assert any(f"read as {unit}" in note for note in gradients.notes)
    assert any("1 x b 0, 2 x b 1000, 2 x b 2000 s/mm2" in note for note in gradients.notes)


@pytest.mark.parametrize(("table", "said"), [(AXES.T, False), (AXES, True)])
def test_bvecs_of_either_orientation(read, table, said):
    gradients = read(BVAL, table, n_volumes=5)
    torch.testing.assert_close(gradients.acquisition.bvec, torch.tensor(AXES, dtype=torch.float32))
    assert any("one row per volume" in note for note in gradients.notes) == said


def test_three_by_three_bvecs_go_by_unit_length_then_by_convention(read):
    rows = np.array([[0.6, 0.8, 0], [0.6, 0, 0.8], [0, 0.6, 0.8]])
    by_row = read("1000 1000 1000", rows)
    torch.testing.assert_close(by_row.acquisition.bvec, torch.tensor(rows, dtype=torch.float32))
    by_column = read("1000 1000 1000", rows.T)
    torch.testing.assert_close(by_column.acquisition.bvec, torch.tensor(rows, dtype=torch.float32))
    both = read("1000 1000 1000", np.eye(3)[[1, 2, 0]])
    torch.testing.assert_close(both.acquisition.bvec, torch.tensor(np.eye(3)[[1, 2, 0]].T, dtype=torch.float32))
    for gradients, word in ((by_row, "one row"), (by_column, "one column"), (both, "one column")):
        assert any(note.startswith("3 x 3 bvecs") and word in note for note in gradients.notes)


def test_jitter_is_gathered_into_shells_and_said(read):
    gradients = read("0 5 990 1005 1010 1995 2000 2005")
    expected = [0, 0.005, *[(0.990 + 1.005 + 1.010) / 3] * 3, 2, 2, 2]
    torch.testing.assert_close(gradients.acquisition.bval, torch.tensor(expected))
    (note,) = (n for n in gradients.notes if "rounded" in n)
    assert "990-1010 -> 1001.7 (3 volumes)" in note
    assert "1995-2005 -> 2000" in note


@pytest.mark.parametrize(
    "ladder",
    [
        "0 10 20 30 50 80 100 200 400 800",  # perfusion
        "0 50 60 75 100 120 150 200 250 300",
        "0 500 550 600 650 700",  # a ladder: every gap is as wide as the tolerance
        "0 250 500 750 1000 1250 1500 1750 2000 2250 2500 2750 3000 3250 3500",
    ],
)
def test_ladders_of_b_values_are_left_alone(read, ladder):
    gradients = read(ladder)
    np.testing.assert_allclose(gradients.acquisition.bval, np.array(ladder.split(), float) / 1000, rtol=1e-6)
    assert not any("rounded" in note for note in gradients.notes)


def test_shell_indices_cover_every_volume():
    shells = shell_indices(torch.tensor([0, 2.0, 1.0, 0.005, 1.01, 1.99]))
    assert [sorted(s.tolist()) for s in shells] == [[0], [3], [2, 4], [1, 5]]


def test_non_unit_bvecs_are_named_and_normalised(read):
    table = AXES * np.array([1, 1.005, 0.7071, 1, 1])[:, None]
    gradients = read(BVAL, table)
    torch.testing.assert_close(gradients.acquisition.bvec, torch.tensor(AXES, dtype=torch.float32))
    (warning,) = gradients.warnings
    assert "volume 2 " in warning
    assert "0.707" in warning
    assert "b-values kept" in warning


def test_directions_of_b0_volumes_do_not_matter(read):
    table = AXES.copy()
    table[0] = np.nan
    bvec = read(BVAL, table).acquisition.bvec
    torch.testing.assert_close(bvec, torch.tensor(AXES, dtype=torch.float32))
    table[0] = [0.5, 0.1, 0.1]
    gradients = read(BVAL, table)
    assert bool((gradients.acquisition.bvec[0] == 0).all())
    assert not any("unit vectors" in n for n in gradients.notes)


@pytest.mark.parametrize(
    ("bval", "bvec", "words"),
    [
        ("0 1000 many 2000 2000", AXES, "contains 'many' where only numbers belong"),
        ("0 1000 nan 2000 2000", AXES, "volume 2 "),
        ("0 -1000 1000 2000 2000", AXES, "negative"),
        ("", AXES, "empty"),
        ("0 1000 1000 2000", AXES, "4 entries and the image has 5 volumes"),
        ("0 1e6 1e6 2e6 2e6", AXES, "neither s/mm2 nor ms/um2 nor s/m2"),
        ("0 1000 1000\n2000 2000 0", AXES, "one row or one column"),
        (BVAL, AXES[:4], "4 x 3 and there are 5 b-values"),
        (BVAL, "0 1 0\n1 0", "different lengths"),
        (BVAL, np.where(AXES == 0.8, np.nan, AXES), "NaN or Inf for volumes 3, 4 "),
        (BVAL, "x y z", "contains 'x'"),
    ],
)
def test_wrong_tables_are_refused(read, bval, bvec, words):
    with pytest.raises(InputError) as error:
        read(bval, bvec, n_volumes=5)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "dwi.bv" in str(error.value)


def test_a_missing_direction_is_refused_where_one_is_needed(read):
    acquisition = read(BVAL, AXES * np.array([1, 1, 0, 1, 0])[:, None]).acquisition
    acquisition.require("bval")
    with pytest.raises(InputError, match=r"no direction \(0 0 0\) in bvec for volumes 2,4 .* --drop-volumes 2,4"):
        acquisition.require("bval", "bvec")
    acquisition[[0, 1, 3]].require("bval", "bvec")


def test_files_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        io.read_gradients(tmp_path / "none.bval")
    (tmp_path / "x.bval").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="is not text"):
        io.read_gradients(tmp_path / "x.bval")


def test_acquisition_reads_the_same(tmp_path):
    bval, bvec = write(tmp_path / "a.bval", BVAL), write(tmp_path / "a.bvec", AXES.T)
    acquisition = Acquisition.from_files(bval, bvec)
    torch.testing.assert_close(acquisition.bval, torch.tensor([0.0, 1, 1, 2, 2]))
    assert acquisition.b0.tolist() == [True, False, False, False, False]


def test_times_and_angles_from_text_in_either_unit(tmp_path):
    image = tmp_path / "x.nii.gz"
    for text, name in (("0.010 0.08", "te"), ("10 80", "te"), ("0.05 4", "ti"), ("50 4000", "ti")):
        settings = io.read_settings(image, **{name: write(tmp_path / "values.txt", text)}, n_volumes=2)
        expected = [10, 80] if name == "te" else [50, 4000]
        np.testing.assert_allclose(settings.values[name], expected)
        assert len(settings.notes) == 1
        assert f"{name} read as" in settings.notes[0]
    for text in ("5 30", f"{math.radians(5)} {math.radians(30)}"):
        settings = io.read_settings(image, flip=write(tmp_path / "values.txt", text))
        np.testing.assert_allclose(settings.values["flip"], np.radians([5, 30]))


def test_times_from_a_sidecar_and_a_text_file_goes_first(tmp_path):
    sidecar = {"EchoTime": 0.09, "FlipAngle": [2.0, 15.0], "RepetitionTime": 8, "InversionTime": [0.05, 3]}
    (tmp_path / "sub-1_VFA.json").write_text(json.dumps(sidecar))
    write(tmp_path / "TE_ms.txt", "1 2")
    settings = io.read_settings(tmp_path / "sub-1_VFA.nii.gz", n_volumes=2)
    np.testing.assert_allclose(settings.values["te"], [1, 2])
    np.testing.assert_allclose(settings.values["flip"], np.radians([2, 15]))
    np.testing.assert_allclose(settings.values["ti"], [50, 3000])
    assert any("te read as ms from TE_ms.txt" in note for note in settings.notes)


@pytest.mark.parametrize(
    ("key", "name", "stated", "expected"),
    [
        ("EchoTime", "te", [0.4, 1.2], [400, 1200]),
        ("InversionTime", "ti", [0.1, 20], [100, 20_000]),
        ("RepetitionTime", "tr", [2.5, 8], [2500, 8000]),
        ("FlipAngle", "flip", [2, 3], np.radians([2, 3])),
    ],
)
def test_a_sidecar_states_seconds_and_degrees_whatever_their_size(tmp_path, key, name, stated, expected):
    (tmp_path / "x.json").write_text(json.dumps({key: stated}))
    settings = io.read_settings(tmp_path / "x.nii.gz", n_volumes=2)
    np.testing.assert_allclose(settings.values[name], expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "no table"),
        ('{"EchoTime": "long"}', "expected a number"),
        ('{"EchoTime": [0.01, 0.02, 0.03]}', "3 entries and the image has 2"),
        ('{"EchoTime": -1}', "positive"),
    ],
)
def test_wrong_sidecars_are_refused(tmp_path, content, words):
    sidecar = write(tmp_path / "x.json", content)
    with pytest.raises(InputError, match=words):
        io.read_settings(tmp_path / "y.nii", json=sidecar, n_volumes=2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01_ses-2_dwi.nii.gz", "sub-01_ses-2"),
        ("sub-01_inv-1_IRT1.nii", "sub-01_inv-1"),
        ("sub-01_MESE.nii.gz", "sub-01"),
        ("dwi.nii.gz", "dwi"),
        ("_dwi.nii.gz", "_dwi"),
        ("my_scan.nii.gz", "my_scan"),
    ],
)
def test_prefix(name, expected):
    assert io.prefix(Path("somewhere") / name) == expected


def test_gradient_files_are_of_one_kind(tmp_path):
    image = tmp_path / "data.nii.gz"
    assert gradient_files(image) == (None, None)
    for name in ("bvals", "bvecs", "data.bval"):
        write(tmp_path / name, BVAL)
    assert gradient_files(image) == (tmp_path / "data.bval", None)
    assert stem("a/b.c_dwi.nii.gz") == "b.c_dwi"
