"""The guide that reaches the limit: each class's own Laplace mode, corrected by a small network."""

import pyro
import torch
from pyro.distributions import Categorical, MultivariateNormal
from pyro.ops.indexing import Vindex
from torch import Tensor

from pyroqmri.distributions import GaussianMixture
from pyroqmri.guides.base import Guide, perceptron, tril_from
from pyroqmri.guides.population_start import ends_of_ridge, start_population
from pyroqmri.laplace.mode import Expansion, Mode, find_mode, find_modes, inverse_tril
from pyroqmri.laplace.start import CHUNK
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population
from pyroqmri.voxel_model import VoxelModel, voxel_plate

MORE_STEPS = 30  # towards modes that have not converged, of classes with more than a negligible share
NEGLIGIBLE = 0.01
SAME_MODE = 0.25  # distance, over the sum of their sds, below which two modes are one
EXPLAINED = -4.0  # log Bayes factor of a given class over a standard normal from which a voxel counts as its own


class Structured(Guide):
    r"""Laplace approximation under every class of the current population, corrected.

    For class c with mean :math:`m_c` and precision :math:`C_c`, the mode
    :math:`u_c` maximises
    :math:`\log p(y \mid u) - \tfrac12 (u - m_c)^\top C_c (u - m_c)`; with the Fisher
    information there, :math:`T_c T_c^\top = (I_F + C_c)^{-1}`, a network answers
    :math:`(o, R, \delta)`:

    .. math:: q(c \mid y) \propto w_c \, p(y \mid u_c) \, p(u_c \mid c) \, |T_c| \, e^{\delta}, \qquad
              q(z \mid y, c) = \mathcal N(u_c + T_c o, \; T_c R R^\top T_c^\top)

    The network starts near zero: the guide starts as the Laplace approximation and
    follows the population as it is learned. Where the population is a point, its gradient
    does not run through the modes: training is a coordinate ascent on the ELBO, whose fixed
    point is that of the whole gradient where q is the posterior. Where the population is
    drawn, the gradient runs through the modes as well (:func:`follow`).

    Parameters
    ----------
    model
        The voxel model of the pair.
    n_measurements
        Length of a voxel's measurements; the network sees them through the modes.
    width, depth
        Of the hidden layers.
    steps, final_steps
        Steps towards each mode in training, and when predicting.
    """

    needs_mode = True
    uses_classes = True
    draws_population = True
    any_protocol = True

    def __init__(
        self,
        model: VoxelModel,
        n_measurements: int,
        width: int = 64,
        depth: int = 2,
        steps: int = 2,
        final_steps: int = 12,
    ) -> None:
        super().__init__(model)
        del n_measurements
        n, n_classes = model.n_latents, len(model.prior.classes().log_weights)
        self.steps, self.final_steps, self.n_classes = steps, final_steps, n_classes
        n_in = 3 * n + (n_classes + 1 if n_classes > 1 else 0)
        self.network = perceptron(n_in, width, depth, n + n * (n + 1) // 2 + 1, last_scale=0.01)

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample class and latent, the class enumerated: the Pyro program."""
        voxels = self.prepare(y)
        q = self.components(voxels, self.steps, self.model.prior.at(self.model.prior.draw(), voxels))
        with voxel_plate(len(voxels), size, voxels.y.device):
            if q.loc.shape[-2] == 1:
                pyro.sample("z", MultivariateNormal(q.loc.squeeze(-2), scale_tril=q.scale_tril.squeeze(-3)))
                return
            c = pyro.sample("c", Categorical(logits=q.logits), infer={"enumerate": "parallel"})
            row = torch.arange(len(voxels), device=voxels.y.device)
            loc, tril = Vindex(q.loc)[row, c], Vindex(q.scale_tril)[row, c]
            pyro.sample("z", MultivariateNormal(loc, scale_tril=tril))

    def start(self, voxels):
        prior, others = self.model.prior, list[Tensor]()
        if self.model.n_unconstrained == self.model.n_latents:
            assert voxels.mode is not None
            modes = voxels.mode[:, : prior.n_tissue]
            if prior.n_given:
                # free classes that start on the ridge of a given one stay there
                modes = modes[~self.explained(voxels)]
                prior.start(modes)
            # the posterior of a drawn population gets its spread from the start; classes find places of their own
            if self.n_classes == 1 and not prior.follows_draws:
                others = ends_of_ridge(modes)
        start_population(prior, self.laplace, voxels, others)

    def explained(self, voxels: Voxels) -> Tensor:
        """Whether a given class explains each voxel ``(N,)``: by evidence, against a standard normal.

        A distance of the modes would not do: where measurements leave a parameter open,
        the modes of a given class lie far from its mean.
        """
        given = Population(*(part[-self.model.prior.n_given :] for part in self.model.prior.classes()))
        log_weights, identity = torch.zeros_like(given.log_weights), torch.eye(self.model.n_latents).to(given.loc)
        anything = Population(log_weights[:1], torch.zeros_like(given.loc[:1]), identity[None])
        given = given._replace(log_weights=log_weights)
        rivals = Population(*(torch.cat(pair) for pair in zip(given, anything, strict=True)))
        chunks = (voxels[i : i + CHUNK] for i in range(0, len(voxels), CHUNK))
        logits = torch.cat([self.laplace(chunk, rivals, self.final_steps)[1] for chunk in chunks], -1)
        return (logits[:-1] - logits[-1]).amax(0) > EXPLAINED

    def z_dist(self, voxels):
        population = self.model.prior.at(self.model.prior.classes(), voxels)
        if self.model.signal.signal.n_modes == 1:
            return self.components(voxels, self.final_steps, population)
        starts = self.starts(voxels, by_voxel(population.loc, 1), precision_of(population))
        return joined([self._components(voxels, self.final_steps, population, start) for start in starts])

    def components(self, voxels: Voxels, steps: int, population: Population) -> GaussianMixture:
        """Posterior of each voxel given a population, one component a class."""
        return GaussianMixture(*self._components(voxels, steps, population))

    def _components(
        self, voxels: Voxels, steps: int, population: Population, start: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights ``(N, C)``, means and factors, from the best start where none is given."""
        modes, logits = self.laplace(voxels, population, steps, start, only_near=start is not None)
        z, tril = modes.z, modes.scale_tril
        out = self.network(self._features(z, tril, logits, population))
        if self.model.prior.follows_draws:
            z, tril = follow(modes, population)
        n = self.model.n_latents
        loc = z + (tril @ out[..., :n, None]).squeeze(-1)
        scale = tril @ tril_from(out[..., n:-1], n)
        order = (loc.movedim(0, 1), scale.movedim(0, 1))
        return (logits + out[..., -1]).movedim(0, 1), *order

    @torch.no_grad()
    def laplace(
        self, voxels: Voxels, population: Population, steps: int, near: Tensor | None = None, only_near: bool = False
    ) -> tuple[Mode, Tensor]:
        """Modes ``(C, N, L)`` under each class, and log weights of the classes ``(C, N)``.

        ``near`` ``(C, N, L)`` is one more point to start from, or the only one. With ``final_steps`` or more, modes
        that have not converged then go on.
        """
        short = voxels.short
        assert short is not None
        precision = precision_of(population)
        loc = by_voxel(population.loc, 1)
        starts = ([] if only_near else self.starts(voxels, loc, precision)) + ([] if near is None else [near])
        start = self._best_start(voxels, loc, precision, starts)

        def evaluate(z: Tensor, index: Tensor) -> Expansion:
            return self.model.expand_short(z, short if len(index) == len(short) else short[index])

        shared = len(loc[0]) == 1  # by all voxels, any of which may leave
        modes = find_modes(evaluate, start, loc, precision, steps, leave=shared)
        logits = _log_evidence(modes, population)
        if steps >= self.final_steps:
            left = torch.nonzero((~modes.converged & (logits.softmax(0) > NEGLIGIBLE)).any(0)).squeeze(-1)
            if len(left):
                at = modes.z[:, left]
                mine, its = (loc, precision) if shared else (loc[:, left], precision[:, left])
                modes.put(left, find_mode(lambda z: evaluate(z, left), at, mine, its, MORE_STEPS))
                logits = _log_evidence(modes, population)
        return modes, logits

    def starts(self, voxels: Voxels, loc: Tensor, precision: Tensor) -> list[Tensor]:
        """Latents ``(C, N, L)`` to start from: class mean, the voxel's quadratic likelihood pulled to it, own mode."""
        starts = [loc.expand(loc.shape[0], len(voxels), -1)]
        if voxels.mode is not None and self.model.n_unconstrained == self.model.n_latents:
            assert voxels.scale_tril is not None
            weak = torch.eye(self.model.n_latents, dtype=loc.dtype, device=loc.device)
            curvature = torch.cholesky_inverse(voxels.scale_tril)
            target = (curvature @ voxels.mode.unsqueeze(-1)) + precision @ loc.unsqueeze(-1)
            pulled = torch.linalg.solve(curvature - weak + precision + 1e-4 * weak, target).squeeze(-1)
            starts += [pulled, voxels.mode.expand(starts[0].shape)]
        return starts

    def _best_start(self, voxels: Voxels, loc: Tensor, precision: Tensor, starts: list[Tensor]) -> Tensor:
        """The likeliest of the starts, by voxel and class."""
        short = voxels.short
        assert short is not None
        best, highest = loc, None
        for start in starts:
            signal = self.model.simulate_short(start, short)
            value = self.model.seen(signal, short).log_prob.sum(-1)
            offset = start - loc
            value = value - (offset * (precision @ offset.unsqueeze(-1)).squeeze(-1)).sum(-1) / 2
            if highest is None:
                best, highest = start, value
            else:
                best = torch.where((value > highest).unsqueeze(-1), start, best)
                highest = torch.maximum(value, highest)
        return best

    def _features(self, z: Tensor, tril: Tensor, logits: Tensor, population: Population) -> Tensor:
        """What the network sees ``(C, N, F)``: where the mode lies in the box and in the class, and how sure it is."""
        prior = by_voxel(population.scale_tril, 2).detach()
        offset = torch.linalg.solve_triangular(
            prior.expand(*z.shape, z.shape[-1]), (z - by_voxel(population.loc, 1).detach()).unsqueeze(-1), upper=False
        ).squeeze(-1)
        shrink = _log_diagonal_each(tril) - _log_diagonal_each(prior)
        columns = [z, offset, shrink]
        if self.n_classes > 1:
            eye = torch.eye(self.n_classes, dtype=z.dtype, device=z.device).unsqueeze(1)
            columns += [eye.expand(*z.shape[:2], -1), logits.log_softmax(0).unsqueeze(-1) / 4]
        return torch.cat(columns, -1).clamp(-5, 5)


def precision_of(population: Population) -> Tensor:
    """Precision of each class ``(C, 1, L, L)``, or of each class in each voxel ``(C, N, L, L)``."""
    return torch.cholesky_inverse(by_voxel(population.scale_tril, 2))


def by_voxel(values: Tensor, n_event: int) -> Tensor:
    """Values of classes ``(C, 1, ...)``, or of classes in each voxel as they are ``(C, N, ...)``."""
    return values if values.dim() == n_event + 2 else values.unsqueeze(1)


def joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> GaussianMixture:
    """One mixture of the components that several starts have led to; a mode that several have reached counts once."""
    loc, tril = torch.stack([part[1] for part in parts]), torch.stack([part[2] for part in parts])
    sd = tril.square().sum(-1).sqrt()
    same = ((loc - loc.unsqueeze(1)).abs() < SAME_MODE * (sd + sd.unsqueeze(1))).all(-1).sum(1)
    logits = torch.stack([part[0] for part in parts]) - same.log()
    return GaussianMixture(torch.cat(list(logits), 1), torch.cat(list(loc), 1), torch.cat(list(tril), 1))


def follow(modes: Mode, population: Population) -> tuple[Tensor, Tensor]:
    """Modes and factors of their covariances as they are, with their derivatives in the population.

    A Newton step at the mode with gradients through the population alone moves nothing, and by the implicit function
    theorem its derivative is that of the mode; with the Fisher information in place of the Hessian.
    """
    precision = precision_of(population)
    tril = inverse_tril(modes.precision + (precision - precision.detach()))
    pull = precision @ (population.loc.unsqueeze(1) - modes.z).unsqueeze(-1)
    return modes.z + (tril @ (tril.mT @ (pull - pull.detach()))).squeeze(-1), tril


def _log_evidence(modes: Mode, population: Population) -> Tensor:
    """Laplace's log weight times evidence of each class ``(C, N)``, up to a constant a voxel."""
    log_det = modes.precision.logdet().nan_to_num(1e3) + 2 * _log_diagonal(by_voxel(population.scale_tril, 2))
    return by_voxel(population.log_weights, 0) + modes.objective - log_det / 2


def _log_diagonal_each(tril: Tensor) -> Tensor:
    return tril.diagonal(dim1=-2, dim2=-1).log()


def _log_diagonal(tril: Tensor) -> Tensor:
    return _log_diagonal_each(tril).sum(-1)
