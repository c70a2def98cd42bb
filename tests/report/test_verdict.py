"""What a fit's numbers say, where no other check sees anything."""

import numpy as np
import pytest

from pyroqmri.report.fit_numbers import RESIDUAL_P, FitNumbers, share_of_codes
from pyroqmri.report.verdict import judge


def numbers(codes, **entries) -> FitNumbers:
    return FitNumbers(
        "t2_decay", None, None, {}, {}, RESIDUAL_P, None, None, 0.0, codes=share_of_codes(codes), **entries
    )


@pytest.mark.parametrize("fine", [0, 5])
def test_a_map_without_fine_voxels_is_named_with_what_they_are(fine):
    codes = np.r_[np.zeros(300, int), np.full(80, 3), np.full(20 - fine, 9), np.ones(fine, int)]
    (alarm,) = judge(numbers(codes)).alarms
    assert f"are fine (80 % no signal; {20 - fine} % this scan" in alarm.plain


def test_nothing_is_added_where_voxels_are_fine_or_the_cause_is_known():
    few, many = np.full(50, 3), np.r_[np.full(80, 6), np.ones(20, int)]
    assert judge(numbers(many)).alarms == ()
    assert judge(numbers(few, uninformed=("T2",))).alarms == ()
    assert judge(numbers(np.zeros(0, int))).alarms == ()


def test_what_a_scan_does_not_determine_is_not_warned_of_at_its_bound_as_well():
    found = FitNumbers(
        "msdki", None, None, {"D": 0.0, "K": 0.6}, {}, RESIDUAL_P, 0.0, None, 0.0, uninformed=("K",),
        beyond_bound={"D": 0.0, "K": 0.6},
    )  # fmt: skip
    assert judge(found).alarms == ()
    assert judge(found).headline == "This scan does not determine K."
