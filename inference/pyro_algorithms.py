"""Which of Pyro's algorithms run on the pairs of the shipped recipes: each is run, on a few voxels.

    python inference/pyro_algorithms.py

makes the table of docs/pyro.md.
"""

import argparse
import contextlib
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoNormal
from pyro.infer.inspect import generate_graph_specification, get_model_relations

import pyroqmri as pq
from pyroqmri.fitting.pyro_pair import PyroPair
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import clusters, simulate

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = ("vae_unig", "vae_gmm", "vae_gmm_relaxed", "hierarchical", "hierarchical_mixture", "uniform")
ENUMERATED = ("vae_gmm", "hierarchical_mixture")  # a component that only enumeration, or sampling, takes care of
STEPS, N = 3, 20


def small_fit(recipe: str) -> tuple[PyroPair, Voxels]:
    """A pair that was trained for a moment, and a few prepared voxels."""
    acq = pq.Acquisition(bval=np.repeat([0.0, 1.0, 2.0, 3.0], [4, 8, 8, 8]))
    truth, _ = clusters(100, seed=0, classes=("white matter", "grey matter"))
    y = simulate(MSDKI, acq, truth, snr=25, seed=1)
    few = {"guide.simulations": 200} if recipe == "uniform" else {}
    fit = pq.fit(y, acq, signal="msdki", recipe=recipe, settings={"training.steps": 20, **few})
    return fit.pyro_pair(), fit.prepare(y[:N])


def svi(elbo: Callable[[], object], pair: PyroPair, voxels: Voxels) -> None:
    """Some steps of vanilla SVI, which have to move the parameters and keep the loss finite."""
    before = {k: v.clone() for k, v in [*pair.model.state_dict().items(), *pair.guide.state_dict().items()]}
    vanilla = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-3}), elbo())
    losses = [vanilla.step(voxels) for _ in range(STEPS)]
    after = {k: v for k, v in [*pair.model.state_dict().items(), *pair.guide.state_dict().items()]}
    if not np.isfinite(losses).all():
        raise RuntimeError("the loss is not finite")
    if all(torch.equal(before[k], after[k]) for k in before):
        raise RuntimeError("no parameter moved")


def auto_normal(enumerated: bool, pair: PyroPair, voxels: Voxels) -> None:
    """A guide that Pyro makes from the model; population and networks stay as they are but for their own steps."""
    guide = AutoNormal(poutine.block(pair.model, hide=["c"] if enumerated else []))
    model = config_enumerate(pair.model, "parallel") if enumerated else pair.model
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if enumerated else Trace_ELBO()
    vanilla = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    if not np.isfinite([vanilla.step(voxels) for _ in range(STEPS)]).all():
        raise RuntimeError("the loss is not finite")


def nuts(enumerated: bool, pair: PyroPair, voxels: Voxels) -> None:
    """Latents of two voxels by NUTS, at the population that was learned."""
    few = voxels[:2]
    kernel = NUTS(pair.model, max_plate_nesting=1 if enumerated else None, max_tree_depth=4)
    chain = MCMC(kernel, num_samples=4, warmup_steps=4, disable_progbar=True)
    chain.run(few)
    if not torch.isfinite(chain.get_samples()["z"]).all():
        raise RuntimeError("a sample is not finite")


def predictive(pair: PyroPair, voxels: Voxels) -> None:
    """Draws of the parameters, and of replicated measurements, from the posterior."""
    found = Predictive(pair.model, guide=pair.guide, num_samples=3)(voxels, sites=True, predict=True)
    assert found["y"].shape == (3, N, voxels.y.shape[1]), found["y"].shape
    assert found["D"].shape == (3, N), found["D"].shape
    assert not torch.equal(found["y"][0], voxels.y)


def prior_predictive(pair: PyroPair, voxels: Voxels) -> None:
    """Voxels that were never measured."""
    found = Predictive(pair.model, num_samples=3)(50, sites=True)
    assert found["y"].shape == (3, 50, voxels.y.shape[1]), found["y"].shape
    assert found["K"].shape == (3, 50), found["K"].shape


def handlers(pair: PyroPair, voxels: Voxels) -> None:
    """Trace, replay, condition, block and scale of poutine."""
    guide_trace = poutine.trace(pair.guide).get_trace(voxels)
    replayed = poutine.trace(poutine.replay(pair.model, guide_trace)).get_trace(voxels)
    assert torch.equal(replayed.nodes["z"]["value"], guide_trace.nodes["z"]["value"])
    held = poutine.condition(pair.model, data={"z": guide_trace.nodes["z"]["value"]})
    assert torch.isfinite(poutine.trace(poutine.scale(held, 0.5)).get_trace(voxels).log_prob_sum())


def graph(pair: PyroPair, voxels: Voxels) -> None:
    """What render_model draws; drawing itself needs graphviz."""
    relations = get_model_relations(pair.model, model_args=(voxels,), model_kwargs={"sites": True})
    specification = generate_graph_specification(relations)
    assert {"z", "y"} <= set(specification["node_data"]), specification["node_data"].keys()


def algorithms(recipe: str) -> dict[str, Callable[[PyroPair, Voxels], None]]:
    """What is run on a recipe's pair."""
    enumerated = recipe in ENUMERATED
    return {
        "`SVI`, `Trace_ELBO`": partial(svi, Trace_ELBO),
        "`SVI`, `Trace_ELBO`, vectorised particles": partial(
            svi, partial(Trace_ELBO, num_particles=2, vectorize_particles=True, max_plate_nesting=1)
        ),
        "`SVI`, `TraceMeanField_ELBO`": partial(svi, TraceMeanField_ELBO),
        "`SVI`, `RenyiELBO`": partial(svi, partial(RenyiELBO, alpha=0.5, num_particles=2)),
        "`SVI`, `TraceEnum_ELBO`": partial(svi, partial(TraceEnum_ELBO, max_plate_nesting=1)),
        "`AutoNormal`": partial(auto_normal, enumerated),
        "`NUTS`": partial(nuts, enumerated),
        "`Predictive`, posterior": predictive,
        "`Predictive`, prior": prior_predictive,
        "`poutine`: trace, replay, condition, scale": handlers,
        "`render_model`": graph,
    }


def outcome(run: Callable[[PyroPair, Voxels], None], pair: PyroPair, voxels: Voxels) -> str:
    """``yes``, with a warning where Pyro gives one, or what it fails with."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run(pair, voxels)
        except Exception as error:
            return f"no: {type(error).__name__}"
    unmatched = [w for w in caught if "Found" in str(w.message) and "not" in str(w.message)]
    return "yes, but warns that sites do not match" if unmatched else "yes"


def table() -> dict[str, dict[str, str]]:
    """Outcomes by algorithm and recipe."""
    found: dict[str, dict[str, str]] = {}
    for recipe in RECIPES:
        pair, voxels = small_fit(recipe)
        for name, run in algorithms(recipe).items():
            found.setdefault(name, {})[recipe] = outcome(run, pair, voxels)
    return found


def main() -> None:
    """Print the table as Markdown."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with contextlib.redirect_stderr(None):
        found = table()
    print(f"| | {' | '.join(f'`{r}`' for r in RECIPES)} |")
    print(f"|{' --- |' * (len(RECIPES) + 1)}")
    for name, row in found.items():
        print(f"| {name} | {' | '.join(row[r] for r in RECIPES)} |")


if __name__ == "__main__":
    main()
