"""What every prior has."""

import functools
import inspect
import itertools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions import MultivariateNormal, TorchDistribution
from pyro.infer import ELBO, Trace_ELBO
from torch import Tensor, nn

from pyroqmri.distributions import GaussianMixture
from pyroqmri.errors import InputError

POPULATIONS = 32  # that maps are averaged over, in pairs around the best one


class Population(NamedTuple):
    """Classes of tissue: log weights ``(C,)``, means ``(C, L)`` and Cholesky factors ``(C, L, L)`` over the latents."""

    log_weights: Tensor
    loc: Tensor
    scale_tril: Tensor


class Prior(nn.Module):  # not ABC: Pyro cannot make a PyroModule of a class with another metaclass
    """Distribution of a voxel's latent before its measurements are seen.

    A new prior writes :meth:`z_dist`, or :meth:`forward` where it has sites of its own. Either is the whole
    statement: :meth:`log_prob` is the density of what :meth:`forward` samples, so the two cannot disagree. Both may
    take ``voxels`` as a further argument, for a prior that depends on where a voxel lies or on covariates.

    Latents of a direction come last and are always standard normal, which is
    uniform over axes. A prior says which ELBO it needs.
    """

    n_tissue: int
    n_latents: int
    n_given = 0  # classes that are known beforehand; they come last
    is_field = False  # neighbouring voxels depend on each other
    follows_draws = False  # the population has a posterior, which a guide has to draw from
    drawn: Tensor  # populations from the population's posterior: parameters (K, d) less the best ones; none if sharp

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("drawn", torch.zeros(0, 0))

    @torch.no_grad()
    def populations(self) -> list[Population]:
        """Populations from the posterior of the population that maps are averaged over, each as likely as another."""
        if len(self.drawn) == 0:
            return []
        parameters = [p for p in self.parameters()]
        own, found = nn.utils.parameters_to_vector(parameters).clone(), list[Population]()
        for values in self.drawn:
            nn.utils.vector_to_parameters(own + values, parameters)
            found.append(Population(*(part.clone() for part in self.classes())))
        nn.utils.vector_to_parameters(own, parameters)
        return found

    def sharpen(self) -> None:
        """Take the population as it is, without an error of its own."""
        self.drawn = self.drawn[:0]

    def predictive(self) -> Population:
        """Classes of a new voxel's latent with the error of the population averaged over: :meth:`classes` if none."""
        found = self.populations()
        if not found:
            return self.classes()
        log_weights = torch.cat([one.log_weights for one in found]).log_softmax(-1)
        return Population(log_weights, torch.cat([p.loc for p in found]), torch.cat([p.scale_tril for p in found]))

    @abstractmethod
    def classes(self) -> Population:
        """What all voxels share, at its current values: the prior as Gaussian classes, which guides start from.

        The prior itself may have another shape (heavier tails, say): only guides and proposals use the classes.
        """

    def population(self) -> Population:
        """The same as the Pyro program states it, hyperpriors included; called once, outside the plate."""
        return self.classes()

    def draw(self) -> Population:
        """The guide's half of :meth:`population`: a population drawn from its posterior, where it has one."""
        return self.classes()

    def at(self, population: Population, voxels: Any) -> Population:
        """The classes as each of some voxels has them: with an axis ``(C, N, ...)`` where they differ."""
        return population

    def z_dist(self, population: Population) -> TorchDistribution:
        """Distribution of a latent given the population, event ``(L,)``; its classes summed out."""
        return GaussianMixture(*population)

    def forward(self, population: Population, voxels: Any = None) -> Tensor:
        """Sample the latents ``(N, L)`` inside the plate."""
        return pyro.sample("z", _given(self.z_dist, population, voxels))

    def latents(self, population: Population, voxels: Any) -> Tensor:
        """Sample the latents ``(N, L)`` of some voxels inside the plate: :meth:`forward`, whatever it looks at."""
        return _given(self, population, voxels, by=self.forward)

    @property
    def looks_at_voxels(self) -> bool:
        """Whether it depends on where a voxel lies or on covariates."""
        return any(_looks_at_voxels(f) for f in (type(self).z_dist, type(self).forward) if f is not Prior.forward)

    @torch.no_grad()
    def sample_latents(self, n: int, population: Population, voxels: Any) -> Tensor:
        """Draws ``(S, N, L)`` of the latents of some voxels, ``n`` of each, by the program."""
        with poutine.block(), pyro.plate("draws", n, dim=-2), pyro.plate("voxels", len(voxels), dim=-1):
            return self.latents(population, voxels)

    def log_prob(self, z: Tensor, population: Population, voxels: Any = None) -> Tensor:
        """Log-density ``(..., N)`` of latents ``(..., N, L)`` given a population; that of :meth:`forward` itself.

        Discrete sites beside ``z`` are summed out.

        Raises
        ------
        InputError
            When a continuous site stands beside ``z``, which only the prior itself could integrate.
        """
        with poutine.block():
            program = poutine.condition(self.latents, data={"z": z})
            trace = poutine.trace(program).get_trace(population, voxels)
            others = {name: site["fn"] for name, site in trace.iter_stochastic_nodes()}
            if not others:
                return _log_density(trace)
            unsummed = [name for name, fn in others.items() if not fn.has_enumerate_support]
            if unsummed:
                raise InputError(
                    f"prior {type(self).__name__} has the continuous site {unsummed[0]!r} beside 'z', so the density "
                    "of a latent is unknown: define its log_prob(z, population), or leave out what needs the density "
                    "(importance weights, k-hat, evidence)"
                )
            supports = [fn.enumerate_support(expand=False).flatten() for fn in others.values()]
            terms = [
                _log_density(poutine.trace(poutine.condition(program, data=dict(zip(others, values, strict=True))))
                             .get_trace(population, voxels))
                for values in itertools.product(*supports)
            ]  # fmt: skip
            return torch.stack(terms).logsumexp(0)

    def is_written_by(self, owner: type["Prior"]) -> bool:
        """Whether what is sampled is as ``owner`` wrote it, so that its closed forms apply."""
        mine, its = type(self), owner
        return mine.forward is its.forward and mine.z_dist is its.z_dist

    @torch.no_grad()
    def start(self, modes: Tensor) -> None:
        """Start from modes of the tissue latents ``(N, P)``; a fixed prior has nothing to do."""

    def anneal(self, share: float) -> None:
        """What changes with the share of the training that is done; most priors have nothing."""

    def update(self, weights: Tensor, loc: Tensor, covariance: Tensor) -> None:
        """Set the tissue part of the population, ``(C,)``, ``(C, P)``, ``(C, P, P)``; a fixed prior stays as it is."""

    def elbo(self, n_particles: int = 1) -> ELBO:
        """The objective this prior is trained by."""
        return Trace_ELBO(num_particles=n_particles)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if len(self.drawn) == 0:  # as in files from before there were any
            destination.pop(prefix + "drawn", None)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        # how many there are is known from the weights alone
        saved = state_dict.get(prefix + "drawn")
        self.drawn = torch.zeros(0, 0) if saved is None else torch.empty_like(saved)
        super()._load_from_state_dict({prefix + "drawn": self.drawn} | state_dict, prefix, *rest)


class GaussianPrior(Prior):
    """A prior with one class: a multivariate normal over the latents."""

    def z_dist(self, population):
        return MultivariateNormal(population.loc[0], scale_tril=population.scale_tril[0])

    def log_prob(self, z, population, voxels=None):
        if self.is_written_by(GaussianPrior):
            return GaussianMixture(*population).log_prob(z)  # by one product of matrices
        return super().log_prob(z, population, voxels)


@functools.cache
def _looks_at_voxels(function: Callable[..., Any]) -> bool:
    return "voxels" in inspect.signature(function).parameters


def _given(call: Callable[..., Any], population: Population, voxels: Any, by: Callable[..., Any] | None = None) -> Any:
    """Result of ``call``, which is handed the voxels where it, or the method behind it, asks for them."""
    method = call if by is None else by
    if _looks_at_voxels(getattr(method, "__func__", method)):
        try:
            return call(population, voxels)
        except (KeyError, TypeError, AttributeError) as error:
            said = _missing(method, voxels, error)
            if said is None:
                raise
            raise InputError(said) from error
    return call(population)


def _missing(method: Callable[..., Any], voxels: Any, error: Exception) -> str | None:
    """What a prior that looks at voxels did not find in them; None where the error is the prior's own."""
    name = type(getattr(method, "__self__", method)).__name__
    if isinstance(error, KeyError) and error.args and error.args[0] not in getattr(voxels, "covariates", ()):
        wanted = error.args[0]
        return (
            f"prior {name} asks for the covariate {wanted!r}, which these voxels come without; give "
            f"covariates={{{wanted!r}: ...}} where the voxels are given, or a posterior made with it"
        )
    if not isinstance(error, KeyError) and "NoneType" in str(error) and getattr(voxels, "position", None) is None:
        return (
            f"prior {name} looks at voxels that come without what it asks for ({error}); if that is their position, "
            "give voxels= or mask= where the voxels are given"
        )
    return None


def _log_density(trace: poutine.Trace) -> Tensor:
    """Sum of the log-densities of all sites of a trace, in the shape of the latents' batch."""
    trace.compute_log_prob()
    return sum(site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample")  # type: ignore[return-value]
