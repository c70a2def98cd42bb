"""Which images may be trained on together."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import pyroqmri as pq
from pyroqmri.cohort.protocols import by_protocol, table_angle


def acquisition(g, b=1.0):
    return pq.Acquisition(bval=torch.full((len(g),), b), bvec=torch.as_tensor(g, dtype=torch.float32))


@pytest.fixture
def axes():
    g = np.random.default_rng(0).normal(size=(30, 3))
    return g / np.linalg.norm(g, axis=1, keepdims=True)


def test_a_rotated_table_with_other_signs_is_the_same(axes):
    signs = np.where(np.random.default_rng(1).random(30) < 0.5, -1, 1)[:, None]
    turned = signs * Rotation.from_rotvec([0.1, -0.2, 0.15]).apply(axes)
    assert table_angle(acquisition(axes), acquisition(turned)) == pytest.approx(0, abs=0.1)
    # head motion: each direction a degree or so off
    moved = turned + 0.015 * np.random.default_rng(2).normal(size=turned.shape)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    assert 0.5 < table_angle(acquisition(axes), acquisition(moved)) < 3


def test_images_are_grouped_by_what_the_signal_sees(axes):
    other = acquisition(np.random.default_rng(3).permutation(axes))
    high, same = acquisition(axes, 2.0), acquisition(axes)
    assert by_protocol([high, same, other, same], "dti") == [[1, 3], [0], [2]]
    assert by_protocol([high, same, other, same], "adc") == [[1, 2, 3], [0]]
    short = acquisition(axes[:20])
    assert by_protocol([short, same, same], "adc") == [[1, 2], [0]]
