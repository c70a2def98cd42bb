"""From posteriors of voxels to ArviZ."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyroqmri.diagnostics.arviz_adapter import from_groups
from pyroqmri.errors import InputError
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.posterior import Posterior
from pyroqmri.posterior.importance import Latents, Reweighted, uncorrected
from pyroqmri.posterior.psis import pareto_khat

N_DRAWS, N_CHAINS = 200, 4
MAX_BYTES = 1_000_000_000
_WIDE = ("posterior_predictive", "prior_predictive", "log_likelihood")
_PER_VOXEL = ("khat", "importance_weighted")
_CHUNK_VALUES = 4_000_000
_KHAT_DRAWS, _KHAT_VOXELS = 1000, 1000  # a Pareto shape from 200 draws is speckle; from 1,000 it takes time
_BAD_KHAT = 0.7


@dataclass(frozen=True)
class _Numbers:
    """Chains and draws of each, ``(chains, draws)``: of most groups, and of the wide ones; draws for k-hat."""

    most: tuple[int, int]
    wide: tuple[int, int]
    khat: int

    @property
    def draws(self) -> int:
        """Draws of each voxel."""
        return self.most[0] * self.most[1]

    def narrowed(self, z: Tensor) -> Tensor:
        """The first draws of the first chains, as many as the wide groups keep, of all draws ``(S, ...)``."""
        return z.unflatten(0, self.most)[: self.wide[0], : self.wide[1]].flatten(0, 1)

    def chained(self, group: str, values: Tensor) -> Tensor:
        """Draws ``(S, ...)`` of a group by chain ``(chains, draws, ...)``."""
        return values.unflatten(0, self.wide if group in _WIDE else self.most)


@torch.no_grad()
def posterior_to_arviz(
    posterior: Posterior,
    voxels: slice = slice(0, 100),
    n_draws: int = N_DRAWS,
    seed: int = 0,
    *,
    ijk: np.ndarray | None = None,
    max_bytes: int = MAX_BYTES,
    n_chains: int = N_CHAINS,
) -> Any:
    """Everything that ArviZ has a group for, of some voxels: InferenceData, or a DataTree from ArviZ 1.0 on.

    The groups are posterior, prior, posterior_predictive, prior_predictive,
    log_likelihood, observed_data, sample_stats (log_p, log_q, khat, importance_weighted,
    elbo) and constant_data (acquisition and noise). The population is point-estimated, so
    the prior is the learned one. Measurements whose likelihood does not depend on the
    parameters are left out.

    Draws are those of the maps: resampled from importance-weighted points wherever the posterior is corrected by
    weights, and recalibrated where the fit is. Every group is of the same latents; recalibration moves the parameters
    alone, as everywhere. What was done is in the container's attributes.

    Parameters
    ----------
    posterior
        A Bayesian fit's posterior.
    voxels
        Which of the fitted voxels. The default is a hundred: a whole brain's measurements
        times draws are tens of gigabytes, and comparisons need them streamed
        (:func:`pyroqmri.compare`), not kept.
    n_draws
        Independent draws of each voxel over all chains, rounded up to a multiple of ``n_chains``.
    seed
        Of the draws.
    ijk
        Indices in the image of all voxels that the posterior was asked about, ``(N, 3)``.
    max_bytes
        The three groups that are as wide as the measurements keep fewer draws where they would take
        more than half of this; ``attrs["wide_draws"]`` says how many. All arrays are float32.
    n_chains
        Chains that the draws are split into. All of them are independent draws, so R-hat is near 1 and says nothing
        of the fit; ``khat`` does.

    Raises
    ------
    InputError
        When there is no voxel, draw or chain to take.
    """
    if n_draws < 1 or n_chains < 1:
        raise InputError(f"ArviZ needs a draw and a chain at least, got n_draws {n_draws} and n_chains {n_chains}")
    chosen = posterior.batch.voxels[voxels]
    n, m = chosen.y.shape
    if n == 0:
        raise InputError(f"voxels {voxels} takes none of the {len(posterior.batch.voxels)} fitted voxels; take some")
    each = math.ceil(n_draws / n_chains)
    room = max(1, max_bytes // (2 * len(_WIDE) * 4 * max(n * m, 1)))  # draws of the wide groups that memory has
    wide = (min(n_chains, room), min(each, max(1, room // n_chains)))
    n_khat = max(n_chains * each, _KHAT_DRAWS if n <= _KHAT_VOXELS else 0)
    numbers = _Numbers((n_chains, each), wide, n_khat)
    groups: dict[str, dict[str, np.ndarray]] = {}
    told = torch.zeros(m, dtype=torch.bool)
    done = 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in _chunks(posterior, chosen, max(numbers.draws, n_khat) * m):
            told |= _fill(groups, _draws(posterior, part, numbers), slice(done, done + len(part)), n, numbers)
            done += len(part)
    _drop_untold(groups, told)
    groups["observed_data"] = {"y": _plain(chosen.y if told.all() else chosen.y[:, told])}
    groups["constant_data"] = _constants(posterior, voxels, told)
    attrs = _attributes(posterior, numbers, groups["sample_stats"])
    if len(posterior.elbo):
        groups["sample_stats"]["elbo"] = np.asarray(posterior.elbo, np.float32)
    return _container(posterior, groups, voxels, told, ijk, attrs)


def _chunks(posterior: Posterior, voxels: Voxels, per_voxel: int) -> Iterator[Voxels]:
    """Prepared voxels, so few at a time that a chunk's draws fit in memory."""
    size = max(1, _CHUNK_VALUES // per_voxel)
    device = posterior.model.sigma.device
    for i in range(0, len(voxels), size):
        yield posterior.guide.prepare(voxels[i : i + size].to(device))


def _draws(posterior: Posterior, voxels: Voxels, numbers: _Numbers) -> dict[str, dict[str, Tensor]]:
    """The sampled groups of a chunk; every array leads with its draws, then voxels."""
    model = posterior.model
    q, classes = posterior.z_dist(voxels), model.prior.classes()
    z = q.sample(torch.Size([numbers.draws]))
    z_prior = model.prior.sample_latents(numbers.draws, classes, voxels)
    few = numbers.narrowed(z)
    signal = model.simulate(few, voxels)
    theta = {k: v for k, v in posterior._draws(z, voxels, q).items() if v.dim() > 1}
    groups = {
        "posterior": theta,
        "prior": {k: v for k, v in posterior._theta(z_prior, voxels).items() if k in theta},
        "posterior_predictive": {"y": model.y_dist(few, voxels).sample()},
        "prior_predictive": {"y": model.y_dist(numbers.narrowed(z_prior), voxels).sample()},
        "log_likelihood": {"y": model.seen(signal, voxels).log_prob},
        "sample_stats": _statistics(posterior, voxels, q, z, numbers),
    }
    if len(classes.log_weights) > 1:
        groups["posterior"]["class_probability"] = _class_probability(classes, z)
    return groups


def _statistics(posterior: Posterior, voxels: Voxels, q: Latents, z: Tensor, numbers: _Numbers) -> dict[str, Tensor]:
    """Densities ``(S, n)`` of the draws, and what the importance weights of each voxel are like ``(n,)``."""
    log_p, guide = posterior.model.log_joint(z, voxels, _CHUNK_VALUES), uncorrected(q)
    log_q = guide.log_prob(z)
    weighted = q.corrected if isinstance(q, Reweighted) else torch.zeros(len(voxels), dtype=torch.bool)
    if posterior.has_khat and isinstance(q, Reweighted):
        khat = q.khat
    elif isinstance(q, Reweighted) or numbers.khat > numbers.draws:
        khat = pareto_khat(posterior._log_ratio(guide.sample(torch.Size([numbers.khat])), voxels, guide).T)
    else:
        khat = pareto_khat((log_p - log_q).T)
    # weighted draws follow the joint density itself: who weights them by log_p - log_q must not do it twice
    log_q = torch.where(weighted.to(log_q.device), log_p, log_q)
    return {"log_p": log_p, "log_q": log_q, "khat": khat, "importance_weighted": weighted}


def _attributes(posterior: Posterior, numbers: _Numbers, statistics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the draws are, in words and numbers that a netCDF file keeps."""
    weighted, khat, settings = statistics["importance_weighted"], statistics["khat"], posterior.reweighting
    of_guide = f"independent draws of the {type(posterior.guide).__name__} guide"
    pool = 0 if settings is None else settings.pool
    some = bool(weighted.any())
    resampled = f"resampled with replacement from a pool of {pool} importance-weighted points per voxel"
    n_khat = pool if posterior.has_khat else numbers.khat
    source = "points of the pool" if posterior.has_khat else "draws of the guide"
    return {
        "signal": posterior.signal.signal.__name__,
        "recipe": posterior.recipe,
        "inference_library": "pyroqmri",
        "importance_weighted": f"{int(weighted.sum())} of {len(weighted)} voxels" if some else "no",
        "draws": f"{resampled}; elsewhere {of_guide}" if some else of_guide,
        "recalibrated": "no" if posterior.recalibration is None else "yes, the parameters; nothing else depends on it",
        "n_draws": numbers.draws,
        "n_chains": numbers.most[0],
        "wide_draws": numbers.wide[0] * numbers.wide[1],
        "khat": f"Pareto shape of the importance weights of {n_khat} {source}",
        "khat_draws": n_khat,
        "khat_bad_voxels": int((khat > _BAD_KHAT).sum()),
    }


def _class_probability(classes: Any, z: Tensor) -> Tensor:
    """Probability of each class given the latent ``(S, n, C)``."""
    component = torch.distributions.MultivariateNormal(classes.loc, scale_tril=classes.scale_tril, validate_args=False)
    return (classes.log_weights + component.log_prob(z.unsqueeze(-2))).softmax(-1)


def _fill(
    groups: dict[str, dict[str, np.ndarray]],
    found: Mapping[str, Mapping[str, Tensor]],
    where: slice,
    n: int,
    numbers: _Numbers,
) -> Tensor:
    """Put a chunk where it belongs; which measurements' likelihood depends on the parameters."""
    for group, values in found.items():
        kept = groups.setdefault(group, {})
        for name, value in values.items():
            if name in _PER_VOXEL:
                lead, part = (), value
            else:
                part = numbers.chained(group, value)
                lead = part.shape[:2]
            if name not in kept:
                kept[name] = np.empty(
                    (*lead, n, *part.shape[len(lead) + 1 :]), bool if value.dtype == torch.bool else np.float32
                )
            kept[name][(*(slice(None),) * len(lead), where)] = _plain(part)
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
    dims |= {k: ["voxel"] for k in ("log_p", "log_q", *_PER_VOXEL, "sigma", "reference")}
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
    return from_groups(groups, dims, coords, attrs, units)


_SETTING_UNITS = {
    "bval": {"units": "ms/um2", "long_name": "b-value"},
    "bvec": {"units": "1", "long_name": "gradient direction"},
    **{k: {"units": "ms"} for k in ("te", "ti", "tr")},
    "flip": {"units": "rad"},
    "y": {"units": "S0", "long_name": "measurement"},
    "sigma": {"units": "S0", "long_name": "noise level"},
    "log_p": {"units": "nats", "long_name": "log joint density of measurements and latents"},
    "log_q": {
        "units": "nats",
        "long_name": "log density of the draws: the guide's, log_p where they are importance weighted",
    },
    "khat": {"units": "1", "long_name": "Pareto shape of the importance weights"},
    "importance_weighted": {"long_name": "whether draws are resampled by importance weights"},
    "elbo": {"units": "nats", "long_name": "evidence lower bound per voxel in training"},
}


def _plain(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
