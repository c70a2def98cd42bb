"""Mixture of full-covariance Gaussians: what every guide says of a voxel's latent."""

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class GaussianMixture(TorchDistribution):
    r"""Mixture of C multivariate normals over L latents; a plain normal when C is 1.

    .. math:: p(z) = \sum_c \pi_c\, \mathcal N(z; m_c, T_c T_c^\top)

    Parameters
    ----------
    logits
        Log weights ``(..., C)``, normalised or not.
    loc
        Means ``(..., C, L)``.
    scale_tril
        Cholesky factors ``(..., C, L, L)``.
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale_tril": constraints.independent(constraints.lower_cholesky, 1),
    }
    support = constraints.real_vector

    def __init__(self, logits: Tensor, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits.log_softmax(-1)
        self.loc, self.scale_tril = loc, scale_tril
        super().__init__(loc.shape[:-2], loc.shape[-1:], validate_args=validate_args)

    @classmethod
    def single(cls, loc: Tensor, scale_tril: Tensor) -> "GaussianMixture":
        """One normal with means ``(..., L)`` and Cholesky factors ``(..., L, L)``."""
        return cls(loc.new_zeros(*loc.shape[:-1], 1), loc.unsqueeze(-2), scale_tril.unsqueeze(-3))

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(GaussianMixture, _instance)
        batch_shape = torch.Size(batch_shape)
        for name, event in (("logits", 1), ("loc", 2), ("scale_tril", 3)):
            value = getattr(self, name)
            setattr(new, name, value.expand(batch_shape + value.shape[-event:]))
        super(GaussianMixture, new).__init__(batch_shape, self.event_shape, validate_args=False)  # type: ignore[arg-type]
        return new

    def __getitem__(self, index: slice) -> "GaussianMixture":
        """The mixtures at ``index`` of the first batch axis."""
        return GaussianMixture(self.logits[index], self.loc[index], self.scale_tril[index])

    @property
    def probs(self) -> Tensor:
        """Weights ``(..., C)``."""
        return self.logits.exp()

    @property
    def mean(self) -> Tensor:
        return (self.probs.unsqueeze(-1) * self.loc).sum(-2)

    @property
    def variance(self) -> Tensor:
        within = self.scale_tril.square().sum(-1)
        between = (self.loc - self.mean.unsqueeze(-2)).square()
        return (self.probs.unsqueeze(-1) * (within + between)).sum(-2)

    def component_sd(self) -> Tensor:
        """Marginal standard deviations of the components ``(..., C, L)``."""
        return self.scale_tril.square().sum(-1).sqrt()

    def transport(self, base: Tensor) -> Tensor:
        """Draws ``(S, ..., L)`` from points ``(S, L + 1)``: a uniform that picks the component, L standard normals.

        The same points serve every voxel, so that maps of the draws carry no speckle.
        """
        uniform, normal = base[:, 0], base[:, 1:]
        ones = (1,) * len(self.batch_shape)
        if self.loc.shape[-2] == 1:
            loc, tril = self.loc.squeeze(-2), self.scale_tril.squeeze(-3)
        else:
            edges = self.probs.cumsum(-1)[..., :-1]
            pick = (uniform.view(-1, *ones, 1) > edges).sum(-1)
            index = pick[..., None, None]
            loc = torch.take_along_dim(self.loc.expand(len(base), *self.loc.shape), index, -2).squeeze(-2)
            tril = self.scale_tril.expand(len(base), *self.scale_tril.shape)
            tril = torch.take_along_dim(tril, index.unsqueeze(-1), -3).squeeze(-3)
        return loc + (tril @ normal.view(len(base), *ones, -1, 1)).squeeze(-1)

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(sample_shape)
            index = torch.distributions.Categorical(logits=self.logits).sample(sample_shape)[..., None, None]
            loc = torch.take_along_dim(self.loc.expand(*shape[:-1], *self.loc.shape[-2:]), index, -2).squeeze(-2)
            tril = self.scale_tril.expand(*shape[:-1], *self.scale_tril.shape[-3:])
            tril = torch.take_along_dim(tril, index.unsqueeze(-1), -3).squeeze(-3)
            return loc + (tril @ torch.randn(*shape, 1, dtype=loc.dtype, device=loc.device)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        difference = (value.unsqueeze(-2) - self.loc).unsqueeze(-1)
        white = torch.linalg.solve_triangular(
            self.scale_tril.expand(*difference.shape[:-1], difference.shape[-2]), difference, upper=False
        ).squeeze(-1)
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        n_latents = value.shape[-1]
        component = -white.square().sum(-1) / 2 - log_det - n_latents / 2 * math.log(2 * math.pi)
        return torch.logsumexp(self.logits + component, -1)


def normal_points(n: int, n_latents: int, seed: int) -> Tensor:
    """Scrambled Sobol points ``(n, n_latents + 1)`` for ``GaussianMixture.transport``: one uniform, then normals."""
    points = torch.quasirandom.SobolEngine(n_latents + 1, scramble=True, seed=seed).draw(n)
    points = points.clamp(1e-6, 1 - 1e-6)
    return torch.cat([points[:, :1], torch.special.ndtri(points[:, 1:])], -1)
