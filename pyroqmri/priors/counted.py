"""Parts of a signal that may be absent, their number enumerated."""

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions import Categorical, MultivariateNormal
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.priors.base import Population, Prior

ABSENT, ABSENT_SD = -3.5, 0.3  # latents of the fraction of a part that is not there: 0.0002 of its range


class Counted(Prior):
    r"""Voxels with 0 to K parts (sticks), each number of them a class of its own, enumerated in parallel.

    .. math:: c_n \sim \mathrm{Cat}(w), \qquad z_{ni} \sim \mathcal N(m_i, s_i^2), \qquad
              z_{nk} \mid c_n \sim \begin{cases}\mathcal N(0, 1) & k \le c_n\\ \mathcal N(-3.5, 0.3^2) & k > c_n
              \end{cases}

    A standard normal latent is a fraction that is uniform between zero and the largest value that the fractions before
    it leave; that of an absent part is 0.0002 of this range, which no scan tells from zero. Mean and sd of all other
    latents, and of the first fraction where it is there, are learned from all voxels. The weights w of the numbers are
    stated, equal unless given, and are not learned.

    Parameters
    ----------
    n_tissue, n_direction
        Latents of scalar parameters, and of directions, which are uniform.
    countable
        Which of the first are the fractions, in falling order; the last of them when empty.
    weights
        Prior probabilities of 0 to K parts, in any scale; equal when empty.

    Source: the number of fibres as a random variable, Behrens et al. 2007, doi:10.1016/j.neuroimage.2006.09.018, who
    let automatic relevance determination decide.
    """

    loc: Tensor
    sd: Tensor
    log_weights: Tensor

    def __init__(
        self, n_tissue: int, n_direction: int = 0, countable: Sequence[int] = (), weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.n_tissue, self.n_latents = n_tissue, n_tissue + n_direction
        self.countable = tuple(countable) or (n_tissue - 1,)
        n = len(self.countable) + 1
        given = torch.tensor([float(w) for w in weights] or [1.0] * n)
        if len(given) != n or not bool((given > 0).all()):
            raise InputError(f"prior.weights must be {n} numbers above zero, for 0 to {n - 1} parts, got {weights}")
        self.register_buffer("loc", torch.zeros(n_tissue))
        self.register_buffer("sd", torch.ones(n_tissue))
        self.register_buffer("log_weights", given.log().log_softmax(-1))

    def classes(self):
        n = len(self.countable) + 1
        loc = torch.nn.functional.pad(self.loc, (0, self.n_latents - self.n_tissue)).repeat(n, 1)
        sd = torch.nn.functional.pad(self.sd, (0, self.n_latents - self.n_tissue), value=1.0).repeat(n, 1)
        for k, i in enumerate(self.countable):
            loc[: k + 1, i], sd[: k + 1, i] = ABSENT, ABSENT_SD
        return Population(self.log_weights, loc, sd.diag_embed())

    def forward(self, population):
        c = pyro.sample("c", Categorical(logits=population.log_weights), infer={"enumerate": "parallel"})
        return pyro.sample("z", MultivariateNormal(population.loc[c], scale_tril=population.scale_tril[c]))

    def log_prob(self, z, population, voxels=None):
        if self.is_written_by(Counted):
            return self.z_dist(population).log_prob(z)
        return super().log_prob(z, population, voxels)

    def elbo(self, n_particles=1):
        return TraceEnum_ELBO(num_particles=n_particles, max_plate_nesting=1)

    @torch.no_grad()
    def learn(self, shares: Tensor, loc: Tensor, variance: Tensor) -> None:
        """Set mean and sd of what is learned from posteriors: shares of the classes ``(C, N)``, moments ``(C, N, L)``.

        A few voxels' worth of a wide distribution is counted in, so that a narrow sample does not close it.
        """
        for i in range(self.n_tissue):
            if i in self.countable[1:]:
                continue
            there = shares.clone()
            if i in self.countable:
                there[0] = 0.0
            total = there.sum().clamp_min(1e-6)
            mean = (there * loc[..., i]).sum() / total
            spread = (there * ((loc[..., i] - mean).square() + variance[..., i])).sum()
            self.loc[i], self.sd[i] = mean, ((spread + 2.0 * 0.3**2) / (total + 2.0)).sqrt().clamp(0.05, 1.5)
