"""From posteriors of voxels to ArviZ."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.diagnostics.arviz_adapter import from_groups
from pyroqmri.distributions import GaussianMixture
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.psis import pareto_khat

N_DRAWS = 200
MAX_BYTES = 1_000_000_000
_WIDE = ("posterior_predictive", "prior_predictive", "log_likelihood")
_CHUNK_VALUES = 4_000_000
_KHAT_DRAWS, _KHAT_VOXELS = 1000, 1000  # a Pareto shape from 200 draws is speckle; from 1,000 it takes time


@torch.no_grad()
def posterior_to_arviz(
    posterior: Posterior,
    voxels: slice = slice(0, 100),
    n_draws: int = N_DRAWS,
    seed: int = 0,
    *,
    ijk: np.ndarray | None = None,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Everything that ArviZ has a group for, of some voxels: InferenceData, or a DataTree from ArviZ 1.0 on.

    The groups are posterior, prior, posterior_predictive, prior_predictive,
    log_likelihood, observed_data, sample_stats (log_p, log_q, khat, elbo) and
    constant_data (acquisition and noise). The population is point-estimated, so the
    prior is the learned one. Measurements whose likelihood does not depend on the
    parameters are left out.

    Parameters
    ----------
    posterior
        A Bayesian fit's posterior.
    voxels
        Which of the fitted voxels. The default is a hundred: a whole brain's measurements
        times draws are tens of gigabytes, and comparisons need them streamed
        (:func:`pyroqmri.compare`), not kept.
    n_draws
        Independent draws of each.
    seed
        Of the draws.
    ijk
        Indices in the image of all voxels that the posterior was asked about, ``(N, 3)``.
    max_bytes
        The three groups that are as wide as the measurements keep fewer draws where they would take
        more than half of this; ``attrs["wide_draws"]`` says how many. All arrays are float32.
    """
    chosen = posterior.batch.voxels[voxels]
    n, m = chosen.y.shape
    wide = min(n_draws, max(1, max_bytes // (2 * len(_WIDE) * 4 * max(n * m, 1))))
    groups: dict[str, dict[str, np.ndarray]] = {}
    told = torch.zeros(m, dtype=torch.bool)
    done = 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        n_khat = max(n_draws, _KHAT_DRAWS if n <= _KHAT_VOXELS else 0)
        for part in _chunks(posterior, chosen, max(n_draws, n_khat) * m):
            told |= _fill(groups, _draws(posterior, part, n_draws, wide, n_khat), slice(done, done + len(part)), n)
            done += len(part)
    _drop_untold(groups, told)
    groups["observed_data"] = {"y": _plain(chosen.y if told.all() else chosen.y[:, told])}
    groups["constant_data"] = _constants(posterior, voxels, told)
    if len(posterior.elbo):
        groups["sample_stats"]["elbo"] = np.asarray(posterior.elbo, np.float32)
    return _container(posterior, groups, voxels, told, ijk, {"wide_draws": wide, "khat_draws": n_khat})


def _chunks(posterior: Posterior, voxels: Voxels, per_voxel: int) -> Iterator[Voxels]:
    """Prepared voxels, so few at a time that a chunk's draws fit in memory."""
    size = max(1, _CHUNK_VALUES // per_voxel)
    device = posterior.model.sigma.device
    for i in range(0, len(voxels), size):
        yield posterior.guide.prepare(voxels[i : i + size].to(device))


def _draws(posterior: Posterior, voxels: Voxels, n_draws: int, wide: int, n_khat: int) -> dict[str, dict[str, Tensor]]:
    """The sampled groups of a chunk; every array leads with its draws, then voxels."""
    model = posterior.model
    q, classes = posterior.guide.z_dist(voxels), model.prior.classes()
    prior = GaussianMixture(*classes)
    z, z_prior = q.sample(torch.Size([n_draws])), prior.sample(torch.Size([n_draws, len(voxels)]))
    log_p, log_q = model.y_dist(z, voxels).log_prob(voxels.y) + prior.log_prob(z), q.log_prob(z)
    signal = model.simulate(z[:wide], voxels)
    theta = {k: v for k, v in posterior._theta(z, voxels).items() if v.dim() > 1}
    weights = log_p - log_q
    if n_khat > n_draws:
        more = q.sample(torch.Size([n_khat]))
        weights = model.y_dist(more, voxels).log_prob(voxels.y) + prior.log_prob(more) - q.log_prob(more)
    groups = {
        "posterior": theta,
        "prior": {k: v for k, v in posterior._theta(z_prior, voxels).items() if k in theta},
        "posterior_predictive": {"y": model.y_dist(z[:wide], voxels).sample()},
        "prior_predictive": {"y": model.y_dist(z_prior[:wide], voxels).sample()},
        "log_likelihood": {"y": model.likelihood.information(signal, voxels.y, voxels.noise).log_prob},
        "sample_stats": {"log_p": log_p, "log_q": log_q, "khat": pareto_khat(weights.T)},
    }
    if len(classes.log_weights) > 1:
        groups["posterior"]["class_probability"] = _class_probability(classes, z)
    return groups


def _class_probability(classes: Any, z: Tensor) -> Tensor:
    """Probability of each class given the latent ``(S, n, C)``."""
    component = torch.distributions.MultivariateNormal(classes.loc, scale_tril=classes.scale_tril, validate_args=False)
    return (classes.log_weights + component.log_prob(z.unsqueeze(-2))).softmax(-1)


def _fill(
    groups: dict[str, dict[str, np.ndarray]], found: Mapping[str, Mapping[str, Tensor]], where: slice, n: int
) -> Tensor:
    """Put a chunk where it belongs; which measurements' likelihood depends on the parameters."""
    for group, values in found.items():
        kept = groups.setdefault(group, {})
        for name, value in values.items():
            per_voxel = name == "khat"
            lead = () if per_voxel else (1, len(value))
            rest = value.shape[1:] if per_voxel else value.shape[2:]
            if name not in kept:
                kept[name] = np.empty((*lead, n, *rest), np.float32)
            kept[name][where if per_voxel else (0, slice(None), where)] = _plain(value)
    spread = found["log_likelihood"]["y"]
    # a b0 under a known S0 has the same likelihood whatever the tissue, and PSIS chokes on it
    return (spread.amax(0) > spread.amin(0)).any(0).cpu() if len(spread) > 1 else torch.ones(spread.shape[-1]).bool()


def _drop_untold(groups: dict[str, dict[str, np.ndarray]], told: Tensor) -> None:
    if not told.all():
        for group in _WIDE:
            groups[group]["y"] = groups[group]["y"][..., told.numpy()]


def _constants(posterior: Posterior, voxels: slice, told: Tensor) -> dict[str, np.ndarray]:
    batch = posterior.batch
    sigma = batch.voxels[voxels].sigma
    level = posterior.model.sigma.expand(1, 1) if sigma is None else sigma
    found = {"sigma": _plain((level * posterior.model.likelihood.factor.cpu()).squeeze(-1))}
    if len(batch.reference) == len(batch.voxels):
        found["reference"] = _plain(batch.reference[voxels])
    n_average = posterior.model.likelihood.n_average
    if n_average is not None:
        found["n_average"] = _plain(n_average[told])
    return found | {k: _plain(v.cpu()[told]) for k, v in posterior.signal.acquisition.settings().items()}


def _container(
    posterior: Posterior, groups: Any, voxels: slice, told: Tensor, ijk: np.ndarray | None, attrs: dict[str, Any]
) -> Any:
    settings = {k: _plain(v.cpu()[told]) for k, v in posterior.signal.acquisition.settings().items()}
    dims: dict[str, list[str]] = {"y": ["voxel", "measurement"], "bvec": ["measurement", "axis"], "elbo": ["step"]}
    dims |= {k: ["measurement"] for k in (*settings, "n_average") if k != "bvec"}
    dims |= {k: ["voxel"] for k in ("log_p", "log_q", "khat", "sigma", "reference")}
    dims |= {k: ["voxel", "axis"][: v.ndim - 2] for k, v in groups["posterior"].items()}
    dims["class_probability"] = ["voxel", "class"]
    index = posterior.batch.index[voxels].numpy()
    coords: dict[str, Any] = {"voxel": index, "axis": ["x", "y", "z"], "measurement": np.arange(int(told.sum()))}
    if "class_probability" in groups["posterior"]:
        n_classes = groups["posterior"]["class_probability"].shape[-1]
        names = posterior.class_names
        coords["class"] = list(names) if len(names) == n_classes else [f"class {i + 1}" for i in range(n_classes)]
    if ijk is not None:
        coords |= {axis: (("voxel",), np.asarray(ijk)[index, a]) for a, axis in enumerate("ijk")}
    if "bval" in settings:
        coords["b"] = (("measurement",), settings["bval"])
    if "bvec" in settings:
        coords |= {f"direction_{a}": (("measurement",), settings["bvec"][:, i]) for i, a in enumerate("xyz")}
    if len(posterior.elbo):
        coords["step"] = np.asarray(posterior.elbo_steps)
    units = {p.name: {"units": p.unit, "long_name": p.doc} for p in posterior.parameters.values()} | _SETTING_UNITS
    attrs = {"signal": posterior.signal.signal.__name__, "inference_library": "pyroqmri", **attrs}
    return from_groups(groups, dims, coords, attrs, units)


_SETTING_UNITS = {
    "bval": {"units": "ms/um2", "long_name": "b-value"},
    "bvec": {"units": "1", "long_name": "gradient direction"},
    **{k: {"units": "ms"} for k in ("te", "ti", "tr")},
    "flip": {"units": "rad"},
    "y": {"units": "S0", "long_name": "measurement"},
    "sigma": {"units": "S0", "long_name": "noise level"},
    "log_p": {"units": "nats", "long_name": "log joint density of measurements and latents"},
    "log_q": {"units": "nats", "long_name": "log density of the guide"},
    "khat": {"units": "1", "long_name": "Pareto shape of the importance weights"},
    "elbo": {"units": "nats", "long_name": "evidence lower bound a voxel in training"},
}


def _plain(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
