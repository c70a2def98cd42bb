"""Classes of tissue that are learned from all voxels, some of them given."""

import pyro
import torch
from pyro.distributions import Categorical, MultivariateNormal
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

from pyroqmri.errors import InputError
from pyroqmri.priors.base import Population, Prior
from pyroqmri.priors.hierarchical import correlation_coordinates, correlation_tril, hyperprior


class Mixture(Prior):
    r"""Gaussian mixture over the latents, its component enumerated in parallel.

    .. math:: c_n \sim \mathrm{Cat}(w), \qquad z_n \mid c_n \sim \mathcal N(m_c, S_c)

    with the hyperpriors of :class:`Hierarchical` on every learned class and
    :math:`w \sim \mathrm{Dirichlet}(2)`. Given classes come after the learned ones
    and stay what they are: outside knowledge, such as free water.

    Parameters
    ----------
    n_tissue, n_direction
        Latents that are learned about, and latents of a direction.
    classes
        Number of learned classes.
    sd
        Class standard deviation to start from.
    diagonal
        Leave out the covariances, as a VAE-GMM does.
    given
        Means and standard deviations of given classes over the latents, ``(G, 2, P)``, or None.

    Source: Xu et al. 2024, arXiv:2411.10772, with the mixture in the prior.
    """

    given: Tensor

    def __init__(
        self,
        n_tissue: int,
        n_direction: int = 0,
        classes: int = 4,
        sd: float = 0.3,
        diagonal: bool = False,
        given: Tensor | None = None,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise InputError(f"prior.classes must be above zero, got {classes}")
        self.n_tissue, self.n_latents = n_tissue, n_tissue + n_direction
        self.n_learned, self.diagonal = classes, diagonal
        self.register_buffer("given", torch.zeros(0, 2, n_tissue) if given is None else given)
        self.n_given = len(self.given)
        # classes that start at one point would stay there
        self.loc = nn.Parameter(torch.linspace(-1, 1, classes).unsqueeze(-1).repeat(1, n_tissue))
        self.log_sd = nn.Parameter(torch.full((classes, n_tissue), sd).log())
        n_off = 0 if diagonal else n_tissue * (n_tissue - 1) // 2
        self.off_diagonal = nn.Parameter(torch.zeros(classes, n_off))
        self.log_weights = nn.Parameter(torch.zeros(classes + len(self.given)))

    @property
    def n_classes(self) -> int:
        """Learned and given classes."""
        return len(self.log_weights)

    def _correlation(self) -> Tensor:
        if self.diagonal:
            return torch.eye(self.n_tissue, device=self.loc.device).expand(self.n_learned, -1, -1)
        return correlation_tril(self.off_diagonal, self.n_tissue)

    def population(self):
        density = hyperprior(self.loc, self.log_sd.exp(), self._correlation()).sum()
        pyro.factor("hyperprior", density + self.log_weights.log_softmax(-1).sum())
        return self.classes()

    def classes(self):
        tissue = torch.cat([self.log_sd.exp().unsqueeze(-1) * self._correlation(), self.given[:, 1].diag_embed()])
        n_direction = self.n_latents - self.n_tissue
        tril = torch.eye(self.n_latents, dtype=tissue.dtype, device=tissue.device).repeat(self.n_classes, 1, 1)
        tril[:, : self.n_tissue, : self.n_tissue] = tissue
        loc = torch.cat([self.loc, self.given[:, 0]])
        return Population(self.log_weights.log_softmax(-1), nn.functional.pad(loc, (0, n_direction)), tril)

    def forward(self, population):
        c = pyro.sample("c", Categorical(logits=population.log_weights), infer={"enumerate": "parallel"})
        return pyro.sample("z", MultivariateNormal(population.loc[c], scale_tril=population.scale_tril[c]))

    def log_prob(self, z, population, voxels=None):
        if self.is_written_by(Mixture):
            return self.z_dist(population).log_prob(z)
        return super().log_prob(z, population, voxels)

    def elbo(self, n_particles=1):
        return TraceEnum_ELBO(num_particles=n_particles, max_plate_nesting=1)

    @torch.no_grad()
    def start(self, modes):
        """Start the learned classes at k-means centres of the modes."""
        from scipy.cluster.vq import kmeans2

        if len(modes) < 10 * self.n_learned:
            return
        spread = modes.std(0).clamp_min(1e-3)
        centres, _ = kmeans2((modes / spread).double().cpu().numpy(), self.n_learned, minit="++", rng=0)
        self.loc.copy_(torch.as_tensor(centres).to(modes) * spread)

    @torch.no_grad()
    def update(self, weights: Tensor, loc: Tensor, covariance: Tensor) -> None:
        """Set the population, ``(C,)``, ``(C, P)`` and ``(C, P, P)``; given classes keep all but their weight."""
        self.sharpen()
        self.log_weights.copy_(weights.clamp_min(1e-4).log())
        learned = covariance[: self.n_learned]
        sd = learned.diagonal(dim1=-2, dim2=-1).sqrt()
        self.loc.copy_(loc[: self.n_learned])
        self.log_sd.copy_(sd.log())
        if not self.diagonal:
            self.off_diagonal.copy_(correlation_coordinates(learned / sd.unsqueeze(-1) / sd.unsqueeze(-2)))
