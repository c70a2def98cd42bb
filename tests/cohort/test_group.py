"""The group level on maps that were written by hand."""

import json
import re

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.cohort.group import run_group
from pyroqmri.cohort.outliers import find_outliers
from pyroqmri.cohort.people import column_of
from pyroqmri.cohort.record import Record, write_record
from pyroqmri.cohort.status_table import read_table
from pyroqmri.errors import InputError
from pyroqmri.maps import write_volume

SHAPE, AFFINE = (4, 4, 2), np.diag([2.0, 2.0, 2.0, 1.0])
LEFT = np.arange(4)[:, None, None] * np.ones(SHAPE) < 2


def write_image(out, subject, level, session="", sd=0.02, fine=True):
    """Maps of D: ``level`` on the left, 1 more on the right, and one voxel that could not be fitted."""
    place = f"sub-{subject}/" + (f"ses-{session}/dwi" if session else "dwi")
    label = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    stem = f"{place}/{label}_model-msdki"
    (out / place).mkdir(parents=True)
    status = np.ones(SHAPE, np.uint8)
    status[0, 0, 0] = 5
    volumes = {
        "param-D_stat-mean_dwimap": np.where(LEFT, level, level + 1),
        "param-D_stat-sd_dwimap": np.full(SHAPE, sd),
        "desc-status_mask": status,
    }
    for name, volume in volumes.items():
        write_volume(out / f"{stem}_{name}.nii.gz", volume.astype(np.float32), AFFINE)
        sidecar = {"Parameter": "D", "Units": "um2/ms"}
        (out / f"{stem}_{name}.json").write_text(json.dumps(sidecar))
    files = {f"{stem}_{name}{ending}": 1 for name in volumes for ending in (".nii.gz", ".json")}
    n_fine = 31 if fine else 10
    write_record(out, Record(label, subject, session, "x", "done", files=files, n_voxels=32, n_fine=n_fine))


@pytest.fixture
def out(tmp_path):
    """Eight subjects: patients 0.3 above controls; the last control is far off, one patient came twice."""
    levels = [0.80, 0.84, 0.82, 4.00, 1.10, 1.14, 1.12, 1.16]
    for i, level in enumerate(levels):
        write_image(tmp_path / "out", f"{i:02d}", level, session="1" if i == 7 else "")
    write_image(tmp_path / "out", "07", 1.36, session="2")
    rows = ["participant_id\tgroup\tsite", *(f"sub-{i:02d}\t{'cp'[i > 3]}\t{'ab'[i % 2]}" for i in range(8))]
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    labels = np.where(LEFT, 1, 2).astype(np.int16)
    nib.save(nib.Nifti1Image(labels, AFFINE), tmp_path / "atlas_dseg.nii.gz")
    (tmp_path / "atlas_dseg.tsv").write_text("index\tname\n1\tleft side\n2\tright side\n")
    return tmp_path / "out"


def test_regions_have_the_mean_and_the_uncertainty_of_their_voxels(out):
    folder = run_group(out, atlas=str(out.parent / "atlas_dseg.nii.gz"))
    rows = {(row["label"], row["region"]): row for row in read_table(folder / "regions.tsv")}
    left, right = rows["sub-00", "left side"], rows["sub-00", "right side"]
    assert (left["n_voxels"], left["left_out"], right["n_voxels"]) == ("15", "1", "16")
    assert float(left["mean"]) == pytest.approx(0.80, abs=1e-6)
    assert float(right["mean"]) == pytest.approx(1.80, abs=1e-6)
    assert float(right["sd"]) == pytest.approx(0.02 / 4, rel=0.01)
    assert float(right["spread"]) == pytest.approx(0.02, rel=0.01)
    assert right["unit"] == "um2/ms"


def test_the_mean_over_subjects_counts_each_subject_once(out):
    folder = run_group(out)
    (row,) = read_table(folder / "population.tsv")
    half = 16 / 31  # of the voxels used lie on the right
    expected = np.array([0.80, 0.84, 0.82, 4.00, 1.10, 1.14, 1.12, (1.16 + 1.36) / 2]) + half
    assert row["n_subjects"] == "8"
    assert float(row["mean"]) == pytest.approx(expected.mean(), abs=1e-3)
    assert float(row["se"]) == pytest.approx(expected.std(ddof=1) / np.sqrt(8), rel=0.01)


def test_groups_are_compared_and_sites_taken_out(out):
    groups, sites = (column_of(out.parent, name) for name in ("group", "site"))
    folder = run_group(out, groups=groups, sites=sites)
    (row,) = read_table(folder / "comparison.tsv")
    y = np.array([0.80, 0.84, 0.82, 4.00, 1.10, 1.14, 1.12, 1.26])
    group, site = np.arange(8) > 3, np.where(np.arange(8) % 2, -1.0, 1.0)
    design = np.column_stack([np.ones(8), group, site])
    beta, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
    se = np.sqrt(residual[0] / 5 * np.linalg.inv(design.T @ design)[1, 1])
    assert (row["group"], row["than"], row["n_group"]) == ("p", "c", "4")
    assert float(row["difference"]) == pytest.approx(beta[1], abs=1e-3)
    assert float(row["se"]) == pytest.approx(se, rel=0.01)


def test_the_page_begins_with_the_outlier(out):
    folder = run_group(out)
    first = read_table(folder / "outliers.tsv")[0]
    assert (first["label"], first["quantity"], first["value"]) == ("sub-03", "D", "4.516")
    page = (folder / "report.html").read_text()
    assert "1 of 9 images is unlike the others" in page
    assert page.index("Outliers") < page.index("Over subjects")
    assert re.search(r"<td>sub-03</td>", page)
    assert "<script" not in page


def test_what_comes_from_files_is_escaped(out):
    write_image(out, "08", 1.0)
    place = out / "sub-08" / "dwi" / "sub-08_model-msdki_param-D_stat-mean_dwimap.json"
    place.write_text(json.dumps({"Parameter": "<script>alert(1)</script>", "Units": "<b>"}))
    page = (run_group(out) / "report.html").read_text()
    assert "<script" not in page


def test_changes_between_sessions_are_within_subjects(out):
    write_image(out, "08", 1.00, session="1")
    write_image(out, "08", 1.30, session="2")
    (row,) = read_table(run_group(out) / "sessions.tsv")
    assert (row["session"], row["than"], row["n_subjects"]) == ("ses-2", "ses-1", "2")
    assert float(row["change"]) == pytest.approx(0.25, abs=1e-3)


def test_the_change_of_one_subject_has_the_uncertainty_of_its_voxels(out):
    folder = run_group(out)
    assert not (folder / "sessions.tsv").exists()
    (row,) = read_table(folder / "changes.tsv")
    assert (row["participant_id"], row["session"], row["than"]) == ("sub-07", "ses-2", "ses-1")
    assert float(row["change"]) == pytest.approx(0.20, abs=1e-3)
    assert float(row["se"]) == pytest.approx(np.sqrt(2) * 0.02 / np.sqrt(31), rel=0.01)
    assert "Change of each subject" in (folder / "report.html").read_text()


def test_only_a_small_share_of_fine_voxels_is_an_outlier_and_a_site_of_few_is_compared_with_all(out):
    home = {f"{i:02d}": "a" for i in range(12)}

    def fine(counts):
        labels = [f"{i:02d}" for i in range(len(counts))]
        records = [Record(f"sub-{one}", one, "", "x", "done", n_voxels=32) for one in labels]
        for record, n in zip(records, counts, strict=True):
            record.n_fine = n
        return [one.label for one in find_outliers([], records, home)]

    assert fine([10, 10, 10, 10, 10, 10, 10, 32]) == []
    assert fine([32] * 7 + [0]) == ["sub-07"]
    home |= {"10": "b", "11": "b"}  # two of them, both bad: their own median would hide them
    assert fine([32] * 10 + [0, 0]) == ["sub-10", "sub-11"]


def test_an_image_on_another_grid_is_named_and_the_others_go_on(out):
    other = nib.Nifti1Image(np.ones((4, 4, 3), np.int16), AFFINE)
    for i in range(8):
        name = f"sub-{i:02d}" + ("_ses-1" if i == 7 else "")
        labels = nib.Nifti1Image(np.ones(SHAPE, np.int16), AFFINE)
        nib.save(other if i == 2 else labels, out.parent / f"{name}_dseg.nii.gz")
    folder = run_group(out, atlas=str(out.parent / "{label}_dseg.nii.gz"))
    labels = [row["label"] for row in read_table(folder / "regions.tsv")]
    assert "sub-02" not in labels
    assert "sub-03" in labels
    page = (folder / "report.html").read_text()
    assert "sub-02: atlas" in page  # another grid
    assert "sub-07_ses-2: image" in page  # no atlas


def test_a_folder_without_maps_and_a_column_that_is_not_there_are_named(tmp_path, out):
    with pytest.raises(InputError, match="run the participant level first"):
        run_group(tmp_path / "empty")
    with pytest.raises(InputError, match=r"no column age.*group, site"):
        column_of(out.parent, "age")


@pytest.mark.parametrize(("level", "estimator", "warned"), [(False, "voxel_model", True), (True, "voxel_model", False),
                                                            (False, "point", False)])  # fmt: skip
def test_maps_drawn_towards_the_mean_of_all_subjects_are_named(out, level, estimator, warned):
    call = {"subject level": level, "training": {"recipe": f'estimator = "{estimator}"'}}
    (out / ".cohort" / "call.json").write_text(json.dumps(call))
    page = (run_group(out) / "report.html").read_text()
    assert ("come out too small" in page) == warned
