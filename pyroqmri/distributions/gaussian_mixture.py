"""Mixture of full-covariance Gaussians: what every guide says of a voxel's latent."""

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

MANY = 8  # classes from which on it matters whether they are nearly the same
_WIDER, _OFF = 3.0, 3.0  # sds over those of the first class, and sds from it, of classes that are nearly the same


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
        batch = torch.broadcast_shapes(logits.shape[:-1], loc.shape[:-2], scale_tril.shape[:-3])
        self.logits = logits.log_softmax(-1).expand(batch + logits.shape[-1:])
        self.loc, self.scale_tril = loc.expand(batch + loc.shape[-2:]), scale_tril.expand(batch + scale_tril.shape[-3:])
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

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
        new._validate_args = self._validate_args
        return new

    def __getitem__(self, index: slice | Tensor) -> "GaussianMixture":
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
        if self._validate_args:
            self._validate_sample(value)
        return torch.logsumexp(self._joint(value), -1)

    def entropy(self) -> Tensor:
        """Entropy ``(...)`` in nats of a single component; several have none in closed form."""
        if self.loc.shape[-2] > 1:
            raise NotImplementedError("the entropy of a mixture of two components or more has no closed form")
        log_det = self.scale_tril.squeeze(-3).diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det + self.loc.shape[-1] / 2 * (1 + math.log(2 * math.pi))

    def responsibilities(self, value: Tensor) -> Tensor:
        """Probability ``(..., C)`` of each component at values ``(..., L)``."""
        return self._joint(value).softmax(-1)

    def _joint(self, value: Tensor) -> Tensor:
        """Log of each component's weight times density ``(..., C)`` at values ``(..., L)``."""
        n_classes, n = self.loc.shape[-2:]
        if not self.batch_shape and n_classes >= MANY and not torch.is_grad_enabled():
            found = nearly_alike(self.logits, self.loc, self.scale_tril, value)
            if found is not None:
                return found
        # one product of matrices a voxel serves all its values and components; it is exact around the first mean
        unit = torch.eye(n, dtype=self.loc.dtype, device=self.loc.device).expand_as(self.scale_tril)
        inverse = torch.linalg.solve_triangular(self.scale_tril, unit, upper=False)
        origin = self.loc[..., :1, :]
        shift = (inverse @ (self.loc - origin).unsqueeze(-1)).squeeze(-1)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        batch_dims = len(self.batch_shape)
        points = value.expand(*shape, n).reshape(-1, *shape[len(shape) - batch_dims :], n).movedim(0, -2)
        white = (points - origin) @ inverse.flatten(-3, -2).mT
        white = white.unflatten(-1, (n_classes, n)) - shift.unsqueeze(-3)
        log_det = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        component = -white.square().sum(-1) / 2 - log_det.unsqueeze(-2) - n / 2 * math.log(2 * math.pi)
        return (self.logits.unsqueeze(-2) + component).movedim(-2, 0).reshape(*shape, n_classes)

    def marginal_quantile(self, level: float, steps: int = 40) -> Tensor:
        """Value that each coordinate lies below with probability ``level``, ``(..., L)``; exact."""
        sd = self.component_sd()
        each = self.loc + sd * torch.special.ndtri(torch.tensor(level, dtype=sd.dtype, device=sd.device))
        lower, upper = each.amin(-2), each.amax(-2)
        if self.loc.shape[-2] == 1:
            return lower
        for _ in range(steps):
            middle = (lower + upper) / 2
            below = torch.special.ndtr((middle.unsqueeze(-2) - self.loc) / sd)
            low = (self.probs.unsqueeze(-1) * below).sum(-2) < level
            lower, upper = torch.where(low, middle, lower), torch.where(low, upper, middle)
        return (lower + upper) / 2


def nearly_alike(logits: Tensor, loc: Tensor, scale_tril: Tensor, value: Tensor) -> Tensor | None:
    """Log of each weight times density ``(..., C)`` at values ``(..., L)``, of classes that are nearly the same.

    In the coordinates of the first class their log densities are short quadratics, which one product of matrices gives:
    a tenth of the time of a solution for each class. None where they differ so much that rounding would show.
    """
    n, first = loc.shape[-1], scale_tril[0].double()
    tril = torch.linalg.solve_triangular(first, scale_tril.double(), upper=False)
    offset = torch.linalg.solve_triangular(first, (loc - loc[0]).double().unsqueeze(-1), upper=False)
    spread = tril.diagonal(dim1=-2, dim2=-1).log().abs().amax() if len(tril) else tril.new_zeros(())
    if not (float(spread) < math.log(_WIDER) and float(offset.abs().amax()) < _OFF):
        return None
    precision = torch.cholesky_inverse(tril)
    pull = precision @ offset
    i, j = torch.tril_indices(n, n, device=loc.device)
    double = torch.where(i == j, 0.5, 1.0).to(tril)
    log_det = scale_tril.double().diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = logits - (offset * pull).sum((-2, -1)) / 2 - log_det - n / 2 * math.log(2 * math.pi)
    coefficients = torch.cat([-double * precision[:, i, j], pull.squeeze(-1)], -1).to(value)
    inverse = torch.linalg.solve_triangular(first, torch.eye(n).to(first), upper=False).to(value)
    x = (value - loc[0]).reshape(-1, n) @ inverse.mT
    products = torch.cat([x[:, i] * x[:, j], x], -1)
    return torch.addmm(constant.to(value), products, coefficients.mT).view(*value.shape[:-1], len(loc))


@register_kl(GaussianMixture, GaussianMixture)
def _kl_of_single_components(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Kullback-Leibler divergence ``(...)`` in nats between single components."""
    if p.loc.shape[-2] > 1 or q.loc.shape[-2] > 1:
        raise NotImplementedError("the divergence of mixtures of two components or more has no closed form")
    tril, offset = torch.broadcast_tensors(q.scale_tril, p.scale_tril)[0], (p.loc - q.loc).unsqueeze(-1)
    both = torch.cat([p.scale_tril.expand_as(tril), offset.expand(*tril.shape[:-1], 1)], -1)
    white = torch.linalg.solve_triangular(tril, both, upper=False).square().sum((-3, -2, -1))
    log_dets = (d.scale_tril.squeeze(-3).diagonal(dim1=-2, dim2=-1).log().sum(-1) for d in (q, p))
    return next(log_dets) - next(log_dets) + (white - p.loc.shape[-1]) / 2


def normal_points(n: int, n_latents: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scrambled Sobol points ``(n, n_latents + 1)`` for ``GaussianMixture.transport``: one uniform, then normals."""
    points = torch.quasirandom.SobolEngine(n_latents + 1, scramble=True, seed=seed).draw(n, dtype=dtype)
    points = points.clamp(1e-6, 1 - 1e-6)
    return torch.cat([points[:, :1], torch.special.ndtri(points[:, 1:])], -1)
