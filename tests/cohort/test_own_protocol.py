"""A cohort whose measurements are lost here and there, and whose gradients are not the nominal ones."""

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.cli import main
from pyroqmri.cohort import Reading, planned
from pyroqmri.cohort.image import path_of
from pyroqmri.errors import InputError
from tests.cohort import bids

FIELD = 0.05  # what the gradients are too strong by


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    """Folder and three participants: b is a tenth above what is written, and every eighth measurement is lost."""
    folder = tmp_path_factory.mktemp("own")
    subjects = bids.data_set(folder / "bids", 3)
    for label, subject in zip(("sub-01", "sub-02_ses-1", "sub-03"), subjects, strict=True):
        b, _ = bids.table()
        table = subject.image.with_name(subject.image.name.replace(".nii.gz", ".bval"))
        np.savetxt(table, b[None] / (1 + FIELD) ** 2, fmt="%.3f")
        image = nib.load(subject.image)
        y = np.asarray(image.dataobj).copy()
        counts = np.random.default_rng(len(label)).random(y.shape) > 1 / 8
        nib.save(nib.Nifti1Image(np.where(counts, y, 0.3 * y).astype(np.float32), image.affine), subject.image)
        nib.save(nib.Nifti1Image(counts.astype(np.float32), image.affine), folder / f"{label}_weights.nii.gz")
        field = np.broadcast_to(FIELD * np.eye(3).ravel(), (*bids.SHAPE, 9)).astype(np.float32)
        nib.save(nib.Nifti1Image(field, image.affine), folder / f"{label[:6]}_dev.nii.gz")
    return folder, subjects


def run(folder, out, recipe, own):
    quick = ["--set", "training.steps=10", "--set", "training.batch_size=64"] if recipe == "hierarchical" else []
    with pytest.raises(SystemExit) as found:
        main([
            "cohort", str(folder / "bids"), str(out), "participant", "--signal", "msdki", "--recipe", recipe, *quick,
            "--weights", own[0], "--grad-dev", own[1], "--no-pages", "--n-workers", "1", "--quiet",
        ])  # fmt: skip
    return found.value.code


@pytest.mark.parametrize("recipe", ["least_squares", pytest.param("hierarchical", marks=pytest.mark.slow)])
def test_each_image_has_weights_and_gradients_of_its_own(spoiled, tmp_path, capsys, recipe):
    folder, subjects = spoiled
    own = [str(folder / "{label}_weights.nii.gz"), str(folder / "{subject}_dev.nii.gz")]
    assert run(folder, tmp_path / "out", recipe, own) == 0
    for place, subject in zip(("sub-01/dwi", "sub-02/ses-1/dwi", "sub-03/dwi"), subjects, strict=True):
        (path,) = (tmp_path / "out" / place).glob("*param-D_stat-mean_dwimap.nii.gz")
        D = np.asarray(nib.load(path).dataobj)
        # 108 voxels: b a tenth too small would add 0.09, signals that are lost more
        assert abs((D - subject.D).mean()) < 0.03
        assert np.abs(D - subject.D).mean() < 0.07
    said = (tmp_path / "out" / "logs" / "sub-02_ses-1.log").read_text()
    assert "weights read from sub-02_ses-1_weights.nii.gz" in said
    # three subjects have a level, which is learned from what counts
    assert ("population of this subject" in said) == (recipe == "hierarchical")
    plan = bids.cohort_of(folder / "bids", tmp_path / "out")
    plan = type(plan)(
        plan.bids_dir, plan.out_dir, Reading("msdki", weights=own[0], grad_dev=own[1]), fit=tmp_path / "out" / "fit"
    )
    assert {image.weights.name for image in plan.images()} == {path.name for path in folder.glob("*_weights.nii.gz")}
    # a file that changes is an input that changes
    assert [record.status for record in planned(plan)] == ["done"] * 3
    lost = folder / "sub-01_weights.nii.gz"
    lost.rename(folder / "away")
    assert sorted(record.status for record in planned(plan)) == ["done", "done", "not run"]
    assert run(folder, tmp_path / "out", recipe, own) == 1
    assert "sub-01_weights.nii.gz of sub-01 is no file; check --weights" in capsys.readouterr().err
    (folder / "away").rename(lost)


def test_only_labels_stand_for_something():
    with pytest.raises(InputError, match=r"--weights a/\{run\}: only \{subject\}, \{session\} and \{label\}"):
        path_of("a/{run}", "--weights", "01", "", "sub-01")
    assert str(path_of("{subject}/{session}/{label}", "--weights", "1", "2", "x")) == "sub-1/ses-2/x"
