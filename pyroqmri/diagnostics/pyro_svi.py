"""From any Pyro model and guide trained by SVI to ArviZ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyroqmri.diagnostics.arviz_adapter import from_groups
from pyroqmri.errors import InputError
from pyroqmri.posterior.psis import pareto_khat

Groups = dict[str, dict[str, list[Tensor]]]


@torch.no_grad()
def from_pyro_svi(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    n_draws: int = 500,
    losses: Sequence[float] = (),
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    constant_data: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Any:
    """What a Pyro model and its trained guide say, for ArviZ: InferenceData, or a DataTree from ArviZ 1.0 on.

    Neither has to know of pyroqmri. The groups are posterior, prior,
    posterior_predictive, prior_predictive, log_likelihood, observed_data,
    sample_stats (log_p, log_q, elbo) and constant_data. ``attrs["khat"]`` is the
    Pareto shape of the guide's importance weights: above 0.7 the guide is too far
    from the posterior, and everything that is computed from its draws with it.

    Parameters
    ----------
    model, guide
        Pyro programs of the same arguments; an autoguide is one. Parameters may live in
        modules or in the store.
    args
        What both are called with, data included. Plates must not be subsampled here.
    n_draws
        Draws of each group.
    losses
        Losses of the training; kept as their negative, the ELBO.
    dims
        Names of the axes of a site, ``{"theta": ["school"]}``; others are numbered.
    coords
        Labels of the dimensions.
    constant_data
        Arrays to keep beside the data.
    seed
        Of the draws; the caller's random state is left as it was.

    Raises
    ------
    InputError
        When nothing is observed, or a latent site of the model is not sampled by the guide,
        as one that is enumerated in training is not.
    """
    groups: Groups = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        observed = _observed(model, guide, args)
        for _ in range(n_draws):
            _one_draw(groups, model, guide, args)
    found = {name: {k: _stack(v) for k, v in group.items()} for name, group in groups.items()}
    ratio = torch.stack(groups["sample_stats"]["log_p"]) - torch.stack(groups["sample_stats"]["log_q"])
    khat = float(pareto_khat(ratio.double()[None])[0]) if n_draws >= 25 else float("nan")
    if len(losses):
        found["sample_stats"]["elbo"] = -np.asarray(losses, np.float64)
    found["observed_data"] = {k: v.detach().cpu().numpy() for k, v in observed.items()}
    if constant_data:
        found["constant_data"] = {k: np.asarray(v) for k, v in constant_data.items()}
    names = _dims(found, {} if dims is None else dims)
    labels = {k: v for k, v in ({} if coords is None else coords).items()}
    return from_groups(found, names, labels, {"khat": khat, "inference_library": "pyro"})


def _observed(model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...]) -> dict[str, Tensor]:
    """Values of the observed sites; refuses what has no honest draws."""
    inner = poutine.trace(guide).get_trace(*args)
    trace = poutine.trace(poutine.replay(model, inner)).get_trace(*args)
    sampled = {k for k, site in inner.nodes.items() if site["type"] == "sample"}
    observed, missing = {}, []
    for name, site in trace.nodes.items():
        if not _is_random(site):
            continue
        if site["is_observed"]:
            observed[name] = site["value"]
        elif name not in sampled:
            missing.append(name)
    if not observed:
        raise InputError("the model observes nothing when it is called with these arguments; give it its data")
    if missing:
        raise InputError(
            f"the guide does not sample {', '.join(missing)}, which the model does; sum the site out of the model, or "
            "put it into the guide"
        )
    return observed


class _Unobserved(Messenger):
    """Draw what is observed; Pyro's ``uncondition`` draws deterministic values too, and in a plate reshapes them."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and _is_random(msg):
            msg["is_observed"], msg["value"], msg["done"] = False, None, False


def _is_random(site: Any) -> bool:
    """Whether a site is sampled, and no plate, factor or deterministic value."""
    if site["type"] != "sample" or site["infer"].get("_deterministic"):
        return False
    # Pyro keeps no public name for the site of a plate
    return type(site["fn"]).__name__ not in ("_Subsample", "Unit")


def _one_draw(groups: Groups, model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """A draw from the guide with its replicate, and one from the prior with its own."""
    inner = poutine.trace(guide).get_trace(*args)
    trace = poutine.trace(poutine.replay(model, inner)).get_trace(*args)
    for t in (inner, trace):
        t.compute_log_prob()
    _add(groups, "posterior", trace, observed=False)
    for name, site in trace.nodes.items():
        if _is_random(site) and site["is_observed"]:
            # each element of the site's batch is a data point; a subsampled plate's scale is not part of it
            groups.setdefault("log_likelihood", {}).setdefault(name, []).append(site["unscaled_log_prob"])
    stats = groups.setdefault("sample_stats", {})
    stats.setdefault("log_p", []).append(torch.as_tensor(trace.log_prob_sum()))
    stats.setdefault("log_q", []).append(torch.as_tensor(inner.log_prob_sum()))
    data = [k for k, site in trace.nodes.items() if _is_random(site) and site["is_observed"]]
    free = _Unobserved()(model)
    for kind, program in (("posterior", poutine.condition(free, _latents(trace))), ("prior", free)):
        again = poutine.trace(program).get_trace(*args)
        if kind == "prior":
            _add(groups, "prior", again, observed=False, leave=data)
        for name in data:
            groups.setdefault(f"{kind}_predictive", {}).setdefault(name, []).append(
                torch.as_tensor(again.nodes[name]["value"])
            )


def _latents(trace: Any) -> dict[str, Tensor]:
    return {k: s["value"] for k, s in trace.nodes.items() if _is_random(s) and not s["is_observed"]}


def _add(groups: Groups, group: str, trace: Any, observed: bool, leave: Sequence[str] = ()) -> None:
    """Latent and deterministic values of a trace."""
    for name, site in trace.nodes.items():
        deterministic = site["type"] == "sample" and site["infer"].get("_deterministic")
        latent = _is_random(site) and site["is_observed"] == observed and name not in leave
        if deterministic or latent:
            groups.setdefault(group, {}).setdefault(name, []).append(torch.as_tensor(site["value"]))


def _stack(values: list[Tensor]) -> np.ndarray:
    """Draws ``(1, S, ...)``."""
    return torch.stack([torch.as_tensor(v).detach() for v in values])[None].cpu().numpy()


def _dims(groups: Mapping[str, Mapping[str, np.ndarray]], given: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of the axes of every array, ``NAME_dim_0`` where none is given."""
    found: dict[str, list[str]] = {"elbo": ["step"]}
    for group, arrays in groups.items():
        lead = 0 if group in ("observed_data", "constant_data") else 2
        for name, array in arrays.items():
            if name != "elbo":
                own = [f"{name}_dim_{i}" for i in range(array.ndim - lead)]
                whole = list(given[name]) if name in given else found.get(name, own)
                # a likelihood has lost the axes of its event
                found[f"{group}/{name}" if len(whole) > len(own) else name] = whole[: len(own)]
    return found
