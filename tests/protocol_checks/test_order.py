"""Tables in another order than the volumes."""

import numpy as np
import pytest

from pyroqmri import Acquisition
from pyroqmri.protocol_checks.order import against_decay

RNG = np.random.default_rng(0)
B, TE = np.repeat([0.0, 1.0, 2.0], [4, 10, 10]), np.arange(10.0, 170, 10)


def decay(x, rate, sigma=20.0):
    clean = 1000 * np.exp(-x * rate * RNG.uniform(0.8, 1.2, (300, 1)))
    return np.hypot(clean + sigma * RNG.normal(size=clean.shape), sigma * RNG.normal(size=clean.shape))


@pytest.mark.parametrize(("name", "x", "rate"), [("bval", B, 0.8), ("te", TE, 0.0125)])
def test_a_reversed_table_is_named_and_a_right_one_is_not(name, x, rate):
    y = decay(x, rate)
    (text,) = against_decay(y, Acquisition(**{name: x[::-1].copy()}))
    assert "in another order than the volumes" in text
    for found in (y, decay(x, rate, 400.0), decay(x, 20 * rate, 100.0), decay(x, 0.1 * rate)):
        assert against_decay(found, Acquisition(**{name: x})) == []


def test_what_else_varies_is_not_judged():
    te = TE[::-1].copy()
    assert against_decay(decay(TE, 0.0125), Acquisition(te=te, bval=np.arange(len(te)) / 10.0)) == []
    assert against_decay(decay(TE, -0.01), Acquisition(ti=TE)) == []


def test_volumes_that_do_not_decay_with_b_are_named():
    scaled = decay(B, 0.8)
    scaled /= scaled.mean(0)
    for y in (scaled, decay(B, 0.0)):
        (text,) = against_decay(y, Acquisition(bval=B))
        assert "as if nothing diffused" in text
    assert against_decay(decay(TE, 0.0), Acquisition(te=TE)) == []
    assert against_decay(decay(B / 10, 0.8), Acquisition(bval=B / 10)) == []
