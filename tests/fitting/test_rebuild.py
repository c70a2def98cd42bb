"""A fit for another scan of its protocol."""

import pytest
import torch

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.fitting.rebuild import build_parts, weights_of
from pyroqmri.signals import MSDKI, BallStick, BoundSignal
from tests.helpers import msdki_data, rician, shells, tissue

QUICK = {"training.steps": 5, "training.batch_size": 64}
SIGMA = 0.04


def sticks(n=60):
    generator = torch.Generator().manual_seed(0)
    axes = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    theta = {"f": 0.4 + 0.3 * torch.rand(n, generator=generator), "D_par": torch.full((n,), 1.7)}
    acq = shells(4, 20, 1.0, 2.0)
    return rician(BoundSignal(BallStick, acq)(theta | {"D_iso": torch.full((n,), 0.9), "n": axes}), SIGMA), acq


def test_the_same_acquisition_is_the_same_fit():
    y, acq = sticks()
    fit = pq.fit(y, acq, signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    assert fit.on(acq) is fit
    assert fit.on(acq, keep=torch.ones(len(acq), dtype=torch.bool)) is fit


def test_least_squares_on_fewer_measurements_is_a_fit_of_those():
    y, acq = sticks()
    keep = torch.arange(len(acq)) % 5 != 4
    fit = pq.fit(y, acq, signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    fewer = pq.fit(y[:, keep], acq[keep], signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    found, expected = (f.posterior(y[:, keep]).mean["f"] for f in (fit.on(acq, keep), fewer))
    assert torch.equal(found, expected)


def test_directions_turned_with_the_scan_change_no_scalar_and_turn_the_axis():
    # the same measurements in a turned frame: least squares sees the same angles
    y, acq = sticks()
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    fit = pq.fit(y, acq, signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    other = fit.on(Acquisition(bval=acq.bval, bvec=acq.bvec @ turn.T))
    assert other is not fit
    before, after = fit.posterior(y), other.posterior(y)
    assert (before.mean["f"] - after.mean["f"]).abs().median() < 1e-4
    assert ((before.direction @ turn.T * after.direction).sum(-1).abs()).median() > 0.9999


def test_parts_made_again_with_their_weights_give_the_same_posterior():
    y, acq = msdki_data(60, SIGMA)
    fit = pq.fit(y, acq, signal="msdki", recipe="vae_unig", sigma=SIGMA, settings=QUICK)
    parts = build_parts(fit.recipe, "msdki", acq, fit.preparation, fit.fixed, fit.tied, weights_of(fit))
    before = fit.posterior(y).mean["D"]
    assert not torch.equal(before, tissue(60)["D"])
    fit.signal, fit.likelihood, fit.model, fit.guide, fit.network = parts
    assert torch.equal(fit.posterior(y).mean["D"], before)


@pytest.mark.parametrize("recipe", ["least_squares", "hierarchical"])
def test_means_over_directions_are_of_the_directions_that_are_kept(recipe):
    y, acq = msdki_data(60, SIGMA)
    settings = {} if recipe == "least_squares" else QUICK
    fit = pq.fit(y, acq, signal="msdki", recipe=recipe, sigma=SIGMA, settings={**settings, "data.average": "shells"})
    keep = torch.ones(len(acq), dtype=torch.bool)
    keep[torch.nonzero(acq.bval > 0.5).squeeze(-1)[::4]] = False
    less = fit.on(acq, keep)
    expected = fit.preparation.seen(acq[keep]).n_average
    assert not torch.equal(expected, fit.preparation.seen(acq).n_average)
    assert torch.equal(less.likelihood.n_average, expected)


def test_a_network_keeps_to_its_measurements():
    y, acq = sticks()
    settings = {"training.epochs": 1, "training.starts": 1}
    fit = pq.fit(y, acq, signal="ball_stick", recipe="self_supervised", sigma=SIGMA, settings=settings)
    with pytest.raises(InputError, match="has a network of all 44 volumes, and without volume 12 "):
        fit.on(acq, keep=torch.arange(44) != 12)
    with pytest.raises(InputError, match="a network of its own gradient directions"):
        fit.on(Acquisition(bval=acq.bval, bvec=acq.bvec[:, [1, 2, 0]]))


def test_a_whole_shell_left_out_is_named():
    acq = shells(4, 12, 1.0, 2.0)
    y = rician(BoundSignal(MSDKI, acq)(tissue(40)), SIGMA)
    settings = {"training.steps": 2, "guide.simulations": 500}
    fit = pq.fit(y, acq, signal="msdki", recipe="uniform", sigma=SIGMA, settings=settings)
    with pytest.raises(
        InputError, match=r"network of all 2 b-values, of whose volumes it sees the means, .*there are 1"
    ):
        fit.on(acq, acq.bval < 1.5)
    for keep, said in (
        (acq.bval > 10, "every volume"),
        (acq.bval > 0.1, "no volume is left that S0 could be measured"),
    ):
        with pytest.raises(InputError, match=said):
            fit.on(acq, keep)
