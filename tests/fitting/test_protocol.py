"""Whether two scans have one protocol."""

import numpy as np
import pytest

from pyroqmri import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.protocol import check_denoiser_protocol, compare_protocols

FLIPS = np.radians([2.0, 5, 10, 15, 20])


@pytest.mark.parametrize(
    ("signal", "mine", "its"),
    [
        ("dti", {"bval": [0, 1.0], "bvec": np.eye(3)[:2]}, {"bval": [0.005, 1.04], "bvec": np.eye(3)[:2]}),
        ("ivim", {"bval": [0, 0.01, 0.8]}, {"bval": [0.002, 0.012, 0.81]}),
        ("t1_vfa", {"flip": FLIPS, "tr": [8.0] * 5}, {"flip": 1.01 * FLIPS, "tr": [8.0] * 5}),
        ("t2_decay", {"te": [10.0, 20, 30]}, {"te": [10.02, 20.1, 30]}),
    ],
)
def test_rounded_settings_are_the_same(signal, mine, its):
    found = compare_protocols(Acquisition(**mine), Acquisition(**its), signal)
    assert found.difference is None
    assert found.same_directions


@pytest.mark.parametrize(
    ("signal", "mine", "its", "name"),
    [
        ("ivim", {"bval": [0, 0.01, 0.8]}, {"bval": [0, 0.05, 0.8]}, "bval"),
        ("ivim", {"bval": [0, 0.01, 0.8]}, {"bval": [0.01, 0.01, 0.8]}, "bval"),
        ("msdki", {"bval": [0, 1.0, 2.0]}, {"bval": [0, 1.0, 2.2]}, "bval"),
        ("t1_vfa", {"flip": FLIPS, "tr": [8.0] * 5}, {"flip": FLIPS + np.radians(1), "tr": [8.0] * 5}, "flip"),
        ("t2_decay", {"te": [10.0, 20, 30]}, {"te": [11.0, 22, 33]}, "te"),
    ],
)
def test_other_settings_are_named(signal, mine, its, name):
    found = compare_protocols(Acquisition(**mine), Acquisition(**its), signal)
    assert f"{name} of the image differs from the fit's in" in found.difference
    with pytest.raises(InputError, match=f"{name} of the image differs from the denoiser's"):
        check_denoiser_protocol(Acquisition(**mine), Acquisition(**its), signal)
