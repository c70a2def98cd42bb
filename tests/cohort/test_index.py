"""Which images are found, and what belongs together."""

import json

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.cohort.index import find_images, read_filters
from pyroqmri.errors import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def labels(images):
    return [image.label for image in images]


def test_a_preprocessed_data_set_is_read_with_its_masks(tmp_path):
    stem = "sub-01/ses-a/dwi/sub-01_ses-a_space-ACPC"
    touch(tmp_path, *(f"{stem}_desc-{name}.nii.gz" for name in ("preproc_dwi", "brain_mask", "dwiref_dwi")))
    touch(tmp_path, "sub-02/dwi/sub-02_dwi.nii.gz", "sub-02/dwi/sub-02_space-T1w_desc-brain_mask.nii.gz")
    touch(tmp_path, "derivatives/other/sub-01/dwi/sub-01_desc-preproc_dwi.nii.gz", "sub-02/dwi/sub-02_sbref.nii.gz")
    one = find_images(tmp_path, "dti", filters={"desc": ["preproc"]})
    two = find_images(tmp_path, "dti", participants=["02"])
    assert labels(one) == ["sub-01_ses-a_space-ACPC_desc-preproc"]
    assert one[0].mask.name == "sub-01_ses-a_space-ACPC_desc-brain_mask.nii.gz"
    assert one[0].folder.as_posix() == "sub-01/ses-a/dwi"
    assert labels(two) == ["sub-02"]
    assert two[0].mask is None  # the other one is in another space


def test_runs_are_images_and_echoes_are_one_series(tmp_path):
    touch(tmp_path, *(f"sub-01/anat/sub-01_run-{r}_echo-{e}_MESE.nii.gz" for r in (1, 2) for e in (1, 2, 10)))
    touch(tmp_path, *(f"sub-01/anat/sub-01_part-{p}_echo-1_MEGRE.nii.gz" for p in ("mag", "phase")))
    images = find_images(tmp_path, "t2_decay")
    assert labels(images) == ["sub-01", "sub-01_run-1", "sub-01_run-2"]
    assert [len(image.paths) for image in images] == [1, 3, 3]
    assert images[0].paths[0].name == "sub-01_part-mag_echo-1_MEGRE.nii.gz"


def test_two_kinds_under_one_label_have_names_of_their_own(tmp_path):
    touch(tmp_path, *(f"sub-01/anat/sub-01_echo-{e}_{kind}.nii.gz" for e in (1, 2) for kind in ("MESE", "MEGRE")))
    assert sorted(labels(find_images(tmp_path, "t2_decay"))) == ["sub-01_MEGRE", "sub-01_MESE"]


def test_filters_are_read_as_other_apps_have_them(tmp_path):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"dwi": {"datatype": "dwi", "session": "02", "acquisition": ["a", "b"]}}))
    assert read_filters(path) == {"ses": "02", "acq": ["a", "b"]}
    path.write_text(json.dumps({"desc": {"no": 1}}))
    with pytest.raises(InputError, match="desc must be a text"):
        read_filters(path)


@pytest.mark.parametrize("make", [lambda p: p / "none", lambda p: p])
def test_what_is_no_data_set_is_named(tmp_path, make):
    with pytest.raises(InputError, match="no folder"):
        find_images(make(tmp_path), "msdki")


def test_a_series_of_inversions_is_mapped_whatever_the_gain_of_its_scanner(tmp_path):
    """Two subjects whose scanners differ 20-fold in gain, T1 1,000 and 1,400 ms; S0 is inferred."""
    from pyroqmri.cohort import Cohort, Reading, run_participants
    from pyroqmri.cohort.learn import Training

    rng = np.random.default_rng(0)
    times = [0.05, 0.4, 1.1, 2.5, 5.0]
    for i, (t1, gain) in enumerate(((1.0, 100.0), (1.4, 2000.0)), 1):
        place = tmp_path / "bids" / f"sub-{i:02d}" / "anat"
        place.mkdir(parents=True)
        own = t1 * np.exp(0.05 * rng.normal(size=(6, 6, 3)))
        for k, ti in enumerate(times, 1):
            signal = gain * np.abs(1 - 2 * np.exp(-ti / own)) + gain / 60 * rng.normal(size=own.shape)
            stem = place / f"sub-{i:02d}_inv-{k}_IRT1"
            nib.save(nib.Nifti1Image(np.abs(signal).astype(np.float32), np.diag([2.0, 2, 2, 1])), f"{stem}.nii.gz")
            (place / f"{stem.name}.json").write_text(json.dumps({"InversionTime": ti, "RepetitionTime": 15.0}))
        mask = nib.Nifti1Image(np.ones(own.shape, np.uint8), np.diag([2.0, 2, 2, 1]))
        nib.save(mask, place / f"sub-{i:02d}_desc-brain_mask.nii.gz")
    plan = Training("t1_inversion", "least_squares")
    out = tmp_path / "out"
    records = run_participants(Cohort(tmp_path / "bids", out, Reading("t1_inversion"), training=plan, pages=False))
    assert [record.status for record in records] == ["done", "done"], [record.why for record in records]
    for i, t1 in ((1, 1.0), (2, 1.4)):
        (path,) = (out / f"sub-{i:02d}" / "anat").glob("*param-T1_stat-mean_T1map.nii.gz")
        assert np.median(np.asarray(nib.load(path).dataobj)) == pytest.approx(t1, rel=0.05)
    assert not any((out / ".cohort" / "series").iterdir())
