"""Measurements that were cut off."""

import numpy as np
import pytest

from pyroqmri.protocol_checks.ceiling import cut_off

B = np.repeat([0.0, 0.5, 1.0, 2.0], [6, 10, 10, 10])


def scan(s0: float, sigma: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    clean = s0 * (1 + 0.1 * rng.normal(size=(2000, 1))) * np.exp(-B * rng.uniform(0.6, 1.0, (2000, 1)))
    return np.hypot(clean + sigma * rng.normal(size=clean.shape), sigma * rng.normal(size=clean.shape))


@pytest.mark.parametrize("kind", ["float32", "int16"])
@pytest.mark.parametrize("ceiling", [4095, 4900])
def test_voxels_at_the_ceiling_are_found_and_counted(kind, ceiling):
    y = scan(4000, 60)
    over = (np.minimum(y, ceiling).astype(kind) == ceiling).any(1)
    found, sentence = cut_off(np.minimum(y, ceiling).astype(kind).astype("float32"))
    np.testing.assert_array_equal(found, over)
    assert f"in {over.sum()} of 2000 voxels" in sentence
    assert f"{ceiling}: they were clipped there" in sentence


def test_the_largest_values_of_a_whole_scan_are_left_alone():
    scans = [
        scan(4000, 60).astype("float32"),
        scan(4000, 60).astype("int16").astype("float32"),
        np.round(scan(8, 0.2)),
        np.round(scan(3, 1)),
    ]
    y = scan(1000, 20)
    y[3, 4] = np.nan
    single = y / y[:, :1]  # over one b0, which is 1 everywhere
    for some in (*scans, y, single, -y, np.zeros((50, 4))):
        assert cut_off(some)[1] == ""
