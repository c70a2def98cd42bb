"""Tissue that is given wrongly is noticed, tissue that is given rightly is not."""

import numpy as np
import pytest

import pyroqmri as pq
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import clusters, simulate
from tests.helpers import shells

SNR = 20


@pytest.fixture(scope="module")
def measured():
    acq = pq.Acquisition(bval=shells(6, 20, 1.0, 2.0, 3.0).bval)
    theta, labels = clusters(3000, 0)
    return acq, simulate(MSDKI, acq, theta, snr=SNR, seed=1), np.asarray(labels)


def doubts(measured, mean_D=3.0, mean_K=0.0, sd=0.1, keep=slice(None)):
    acq, y, _ = measured
    given = {"free_water": {"D": (mean_D, sd), "K": (mean_K, sd)}}
    settings = {"training.steps": 30, "prior.classes": 2}
    fit = pq.fit(
        y[keep], acq, signal="msdki", recipe="hierarchical_mixture", sigma=1 / SNR, s0=1.0, given=given,
        settings=settings,
    )  # fmt: skip
    assert fit.trace.not_converged in fit.warnings  # 30 steps are too few to tell
    return [said for said in fit.warnings if said != fit.trace.not_converged]


@pytest.mark.slow
def test_a_class_that_loses_its_last_voxels_when_it_is_free_is_no_error(measured):
    # nothing has this D: no voxel is left for it, and a class of no voxel has no width
    assert any("hardly any voxel" in said for said in doubts(measured, mean_D=0.05, mean_K=2.9, sd=0.02))


def test_a_class_that_is_what_the_voxels_say_is_not_doubted(measured):
    assert doubts(measured) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", [{"mean_D": 3.2}, {"mean_D": 2.8}, {"mean_K": 0.2}, {"mean_K": -0.2}, {"sd": 0.2}, {"sd": 0.05}]
)
def test_a_class_off_by_two_sds_or_twice_as_wide_is_doubted(measured, wrong):
    (said,) = doubts(measured, **wrong)
    assert "do not support the fixed class 'free_water'" in said


def test_a_class_that_is_not_there_is_said(measured):
    (said,) = doubts(measured, keep=np.flatnonzero(measured[2] < 2))
    assert "hardly any voxel belongs to the fixed class 'free_water'" in said
