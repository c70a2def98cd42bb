"""The scripts behind the page on real scans."""

import json

import numpy as np
import pytest

import pyroqmri as pq
from inference import prostate_rois, real_scans

pytestmark = pytest.mark.slow


def test_a_scan_is_fitted_and_drawn(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(real_scans, "RECIPES", ("least_squares",))
    record = real_scans.run_case("t1_brain", shared_data, tmp_path)
    low = record["least_squares"]["T1 500-1000 ms"]
    # the histogram's highest peak is at 875 to 912 ms
    assert 850 < low["T1"]["median"] < 920
    assert (tmp_path / "t1_brain.png").stat().st_size > 10_000
    assert json.dumps(record)


def test_a_population_of_normal_regions(shared_data):
    y, bval, places, grades = prostate_rois.read_regions(shared_data / "prostate_multib_roi_bwh")
    assert (len(y), len(places), len(grades)) == (149, 149, 149)
    inside = np.array([p == "normal_tz_s3" for p in places])
    kept = bval < prostate_rois.LARGEST_B
    acq = pq.Acquisition(bval=bval[kept])
    found = prostate_rois.population(y[inside][:, kept].astype(np.float32), acq, 0.0105, seed=0)
    assert 2.0 < found["D"]["90%"][0] < found["D"]["median"] < found["D"]["90%"][1] < 2.2
    assert abs(found["D"]["median"] - found["D"]["least squares"]["median"]) < 0.1
