"""Everything goes with everything that makes sense, and what makes none says why."""

import itertools
import re

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.decoders import DECODERS
from pyroqmri.errors import InputError
from pyroqmri.guides import GUIDES
from pyroqmri.likelihoods import LIKELIHOODS
from pyroqmri.priors import PRIORS
from pyroqmri.recipe import Recipe
from pyroqmri.signals import MSDKI, SIGNALS, BoundSignal
from tests.contracts.test_signals import CASES

ACQ = pq.Acquisition(bval=[0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
N, SIGMA = 60, 0.03
# what trains, as decoder: prior: guides; the rest of the grid has to be refused
MAKES_SENSE = {
    "identity": {
        "standard_normal": "encoder map_started structured forward_gaussian forward_mixture free",
        "hierarchical": "encoder map_started structured free",
        "full_hierarchical": "structured",
        "mixture": "encoder map_started mixture_encoder structured free",
        "relaxed_mixture": "relaxed_encoder",
        "gmrf": "structured",
        "counted": "",  # it needs a signal with parts to count, which this one is not: see its own tests
    },
    "network": {
        "standard_normal": "encoder structured structured_decoded",
        "hierarchical": "encoder structured structured_decoded",
        "full_hierarchical": "structured structured_decoded",
        "mixture": "encoder mixture_encoder structured structured_decoded",
        "relaxed_mixture": "relaxed_encoder relaxed_decoded",
        "gmrf": "",
        "counted": "",
    },
}


def recipe(prior: str, decoder: str, guide: str, likelihood: str) -> Recipe:
    few = {"simulations": 200} if guide.startswith("forward") else {}
    tables = {
        "prior": {"kind": prior},
        "decoder": {"kind": decoder},
        "guide": {"kind": guide, **few},
        "likelihood": {"kind": likelihood},
        "training": {"steps": 2, "batch_size": 32, "check_every": 1},
    }
    return Recipe("grid", "one cell of the grid", "voxel_model", tables)


def measured() -> torch.Tensor:
    torch.manual_seed(0)
    theta = {"D": 1 + 0.2 * torch.randn(N, 1), "K": 1 + 0.1 * torch.randn(N, 1)}
    return (MSDKI.signal(ACQ, **theta) + SIGMA * torch.randn(N, len(ACQ))).abs()


def test_the_grid_names_everything_there_is():
    assert set(MAKES_SENSE) == set(DECODERS)
    for row in MAKES_SENSE.values():
        assert set(row) == set(PRIORS)
    assert {g for row in MAKES_SENSE.values() for guides in row.values() for g in guides.split()} == set(GUIDES) - {
        "counted"
    }


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("prior", "decoder", "guide"), [*itertools.product(PRIORS, DECODERS, GUIDES)])
def test_every_prior_decoder_guide_and_likelihood_trains_or_says_why_not(prior, decoder, guide, likelihood):
    place = {"voxels": np.argwhere(np.ones((10, 6, 1)))} if PRIORS[prior].is_field else {}
    if guide not in MAKES_SENSE[decoder][prior].split():
        with pytest.raises(InputError) as said:
            pq.fit(measured(), ACQ, signal="msdki", recipe=recipe(prior, decoder, guide, likelihood), sigma=SIGMA,
                   s0=1.0, **place)  # fmt: skip
        assert re.search(r"needs?|no relaxed component|does not draw|learns from simulations alone", str(said.value))
        return
    y = measured()
    fit = pq.fit(y, ACQ, signal="msdki", recipe=recipe(prior, decoder, guide, likelihood), sigma=SIGMA, s0=1.0, **place)
    assert len(fit.trace.train) == 2
    assert torch.isfinite(torch.tensor(fit.trace.train)).all()
    assert fit.elbo == ([] if guide.startswith("forward") else [-loss for loss in fit.trace.train])
    mean = fit.posterior(y, **place).mean
    assert torch.isfinite(torch.stack([mean["D"], mean["K"]])).all()


def signal_cells():
    """Every signal with two priors and every likelihood; the default suite takes each prior under one of these."""
    for name, signal in SIGNALS.items():
        for parts in (("hierarchical", "identity", "structured"), ("standard_normal", "network", "encoder")):
            first = "gaussian" if signal.signed or parts[0] == "standard_normal" else "rician"
            slow = ("dki", "fwdti", "noddi", "cest_lorentz", "t2_biexp", "mwf", "mp2rage_free_b1", "t2_epg_given_b1",
                    "ball_sticks_gamma")  # fmt: skip
            large = name in slow and parts[0] == "hierarchical"  # many latents take a while
            for likelihood in LIKELIHOODS:
                yield pytest.param(*parts, name, likelihood, marks=[pytest.mark.slow] * (large or likelihood != first))


@pytest.mark.parametrize(("prior", "decoder", "guide", "name", "likelihood"), list(signal_cells()))
def test_every_signal_trains_under_either_likelihood(name, prior, decoder, guide, likelihood):
    if SIGNALS[name].countable and prior != "hierarchical":
        pytest.skip("its number of parts has a prior of its own")
    if SIGNALS[name].signed and likelihood == "rician":
        pytest.skip("signed data are not magnitudes")
    torch.manual_seed(0)
    signal = BoundSignal(SIGNALS[name], CASES[name].acquisition)
    frame = signal.any_frame(N)
    inputs = {k: torch.linspace(0.8, 1.2, N) for k in SIGNALS[name].inputs}
    y = signal(signal.constrain(0.3 * torch.randn(N, signal.n_latents), frame), inputs)
    y = y + SIGMA * torch.randn_like(y)
    y = y if SIGNALS[name].signed else y.abs()
    fit = pq.fit(
        y, signal.acquisition, signal=name, recipe=recipe(prior, decoder, guide, likelihood), sigma=SIGMA, s0=1.0,
        inputs=inputs,
    )  # fmt: skip
    assert torch.isfinite(torch.tensor(fit.elbo)).all()
    mean = fit.posterior(y, inputs=inputs).mean
    for p in signal.tissue:
        assert torch.isfinite(mean[p.name]).all()
