"""A cohort: what is mapped, what fails by itself, and what another run finds."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.cohort import Reading, Selection, planned, run_participants
from pyroqmri.cohort.attempt import withdraw
from pyroqmri.cohort.learn import Training
from pyroqmri.cohort.record import read_record
from pyroqmri.cohort.status_table import exit_code, read_table
from pyroqmri.commands.folder_lock import locked
from pyroqmri.errors import InputError
from tests.cohort import bids


def volume(folder, name):
    (path,) = folder.rglob(name)
    return np.asarray(nib.load(path).dataobj)


def test_each_image_is_mapped_or_named_with_the_reason(made):
    folder, words, records = made.folder, made.words, made.records
    rows = {row["participant_id"]: row for row in read_table(folder / "out" / "participants_status.tsv")}
    assert [rows[f"sub-{label}"]["status"] for label in ("01", "02", "03")] == ["done"] * 3
    assert rows["sub-02"]["session_id"] == "ses-1"
    assert rows["sub-09"]["status"] == "skipped"
    for label, word in words.items():
        row = rows[f"sub-{label}"]
        assert row["status"] == "failed"
        assert word in row["why"]
        assert "defect" not in row["why"]
        assert not (folder / "out" / f"sub-{label}").exists()
        assert row["why"] in (folder / "out" / "logs" / f"sub-{label}.log").read_text()
    assert exit_code(records) == 1


def test_the_maps_are_near_the_truth_with_the_spread_that_they_state(made):
    folder, subjects = made.folder, made.subjects
    for label, session in (("01", ""), ("02", "ses-1/")):
        place = folder / "out" / f"sub-{label}" / f"{session}dwi"
        mean, sd = (volume(place, f"*param-D_stat-{stat}_dwimap.nii.gz") for stat in ("mean", "sd"))
        off = (mean - subjects[label].D) / sd
        # 108 voxels; a chi-squared of 108 lies between 72 and 152 with probability 0.998, and the guide is rough
        assert 0.5 < (off**2).mean() < 2
        assert np.abs(mean - subjects[label].D).mean() < 0.06


def test_names_are_those_of_a_derived_data_set(made):
    folder = made.folder
    out = folder / "out"
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "pyroqmri"
    place = out / "sub-02" / "ses-1" / "dwi"
    names = {path.name for path in place.iterdir()}
    assert "sub-02_ses-1_model-msdki_param-K_stat-mean_dwimap.nii.gz" in names
    assert all(name.startswith("sub-02_ses-1_model-msdki_") for name in names)
    assert (out / ".bidsignore").read_text().startswith("*_model-*")


def test_a_second_run_does_nothing_and_a_changed_input_is_noticed(made, tmp_path):
    folder = made.folder
    shutil.copytree(folder / "bids", tmp_path / "bids", copy_function=shutil.copy2)
    for label in ("03", *bids.BROKEN):
        shutil.rmtree(tmp_path / "bids" / f"sub-{label}")
    plan = replace(bids.cohort_of(tmp_path / "bids", tmp_path / "out"), training=None, fit=folder / "out" / "fit")
    run_participants(plan)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert [record.status for record in planned(plan)] == ["done", "done", "skipped"]
    # touched, and what it contains is the same
    (tmp_path / "bids" / "sub-01" / "dwi" / "sub-01_dwi.bval").touch()
    run_participants(plan)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    image = tmp_path / "bids" / "sub-01" / "dwi" / "sub-01_dwi.nii.gz"
    found = nib.load(image)
    nib.save(nib.Nifti1Image(np.asarray(found.dataobj)[::-1].copy(), found.affine), image)
    run_participants(plan)
    changed = {path for path in written if path.stat().st_mtime_ns != written[path]}
    assert changed == {path for path in written if "sub-01" in path.name}
    # a map that was taken away comes back
    lost = next(path for path in changed if "param-D_stat-mean" in path.name)
    before = lost.read_bytes()
    lost.unlink()
    run_participants(plan)
    assert lost.read_bytes() == before


def test_another_call_of_the_folder_is_refused_by_what_differs(made):
    folder = made.folder
    other = replace(bids.cohort_of(folder / "bids", folder / "out"), training=Training("msdki", "least_squares"))
    with pytest.raises(InputError, match=r"another call, training\.recipe"):
        run_participants(other)


def test_a_second_run_at_once_is_refused(made):
    folder = made.folder
    with (
        locked(folder / "out" / ".cohort" / "run.lock", folder / "out"),
        pytest.raises(InputError, match="another run"),
    ):
        run_participants(bids.cohort_of(folder / "bids", folder / "out"))


def test_files_of_others_are_neither_replaced_nor_removed(made, tmp_path):
    folder = made.folder
    plan = replace(
        bids.cohort_of(folder / "bids", tmp_path / "out", selection=Selection(participants=["sub-01"])),
        training=None, fit=folder / "out" / "fit",
    )  # fmt: skip
    mine = tmp_path / "out" / "sub-01" / "dwi" / "sub-01_model-msdki_param-D_stat-mean_dwimap.nii.gz"
    (tmp_path / "out" / ".cohort").mkdir(parents=True)
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    (record,) = run_participants(plan)
    assert "was not written by this command" in record.why
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selection": Selection(participants=["99"])}, "no participant 99"),
        ({"selection": Selection(sessions=["7"])}, "no image with"),
        ({"selection": Selection(filters={"desc": "preproc"})}, "desc preproc"),
        ({"reading": Reading("t1_inversion")}, "IRT1"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(made, tmp_path, changes, words):
    folder = made.folder
    with pytest.raises(InputError, match=words):
        run_participants(replace(bids.cohort_of(folder / "bids", tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


def test_the_output_is_no_folder_of_something_else(made, tmp_path):
    folder = made.folder
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        run_participants(bids.cohort_of(folder / "bids", tmp_path))
    with pytest.raises(InputError, match="the data set itself"):
        run_participants(bids.cohort_of(folder / "bids", folder / "bids"))


def test_a_record_from_elsewhere_removes_nothing_outside_its_folder(made, tmp_path):
    folder = made.folder
    out, mine = tmp_path / "out", tmp_path / "mine.txt"
    mine.write_text("mine")
    label = "sub-01"
    record = json.loads((folder / "out" / ".cohort" / "records" / f"{label}.json").read_text())
    place = out / ".cohort" / "records"
    place.mkdir(parents=True)
    for name in ("../mine.txt", str(mine), "sub-01/../../mine.txt"):
        (place / f"{label}.json").write_text(json.dumps({**record, "files": {name: 4}}))
        assert read_record(out, label) is None
        withdraw(out, label)
    assert mine.read_text() == "mine"
