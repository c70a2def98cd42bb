"""The settings of a scan."""

import numpy as np
import pytest
import torch

from pyroqmri import Acquisition
from pyroqmri.errors import InputError

BVAL = [0.0, 1.0, 2.0]
BVEC = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_settings_become_float32_tensors():
    acq = Acquisition(bval=np.array(BVAL), bvec=np.array(BVEC), te=[80, 80, 90])
    assert len(acq) == 3
    assert list(acq.settings()) == ["bval", "bvec", "te"]
    assert all(v.dtype == torch.float32 for v in acq.settings().values())
    assert acq.bvec.shape == (3, 3)
    assert acq.b0.tolist() == [True, False, False]


def test_one_measurement_and_parts():
    assert Acquisition(bval=1.0, bvec=[1.0, 0.0, 0.0]).bvec.shape == (1, 3)
    part = Acquisition(bval=BVAL, bvec=BVEC)[torch.tensor([2, 0])]
    assert part.bval.tolist() == [2.0, 0.0]
    assert part.bvec[0].tolist() == BVEC[2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "at least one"),
        ({"bval": BVAL, "te": [80.0, 90.0]}, "te has 2 entries where the other settings have 3"),
        ({"bval": [0.0, float("nan")]}, "bval contains NaN"),
        ({"te": [float("inf")]}, "te contains NaN or Inf"),
        ({"bval": [0.0, -1.0]}, "negative"),
        ({"bval": [0.0, 1000.0]}, "divide values in s/mm2 by 1000"),
        ({"bval": BVAL, "bvec": np.zeros((3, 2))}, r"\(M, 3\)"),
        ({"bval": BVAL, "bvec": np.array(BVEC)[:2]}, "bvec has 2 entries"),
    ],
)
def test_what_cannot_be_is_said(settings, said):
    with pytest.raises(InputError, match=said):
        Acquisition(**settings)


def test_require_names_what_is_missing_and_what_is_there():
    with pytest.raises(InputError, match=r"needs bvec.*bval"):
        Acquisition(bval=BVAL).require("bval", "bvec")
    with pytest.raises(InputError, match="needs bval"):
        _ = Acquisition(te=[80.0]).b0


def test_gradient_files(tmp_path):
    (tmp_path / "dwi.bval").write_text("0 1000 2000\n")
    (tmp_path / "dwi.bvec").write_text("0 1 0\n0 0 1\n0 0 0\n")
    acq = Acquisition.from_files(tmp_path / "dwi.bval", tmp_path / "dwi.bvec")
    assert acq.bval.tolist() == BVAL
    assert acq.bvec.tolist() == BVEC
