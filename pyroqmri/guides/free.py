"""One normal a voxel with no network between: for small data."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pyroqmri.distributions import GaussianMixture, normal_points
from pyroqmri.errors import InputError
from pyroqmri.guides.base import GaussianGuide, tril_from
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import Population
from pyroqmri.voxel_model import VoxelModel

CHUNK_VALUES = 2_000_000  # numbers that the signals of a chunk's points may hold


class Free(GaussianGuide):
    r"""A full-covariance normal of each voxel's own, started at its Laplace approximation.

    .. math:: q(z_n \mid y_n) = \mathcal N(\hat u_n + T_n o_n, \; T_n R_n R_n^\top T_n^\top)

    with the mode :math:`\hat u_n` under the uniform prior of the box, the factor :math:`T_n` of its covariance and free
    :math:`o_n, R_n`. There is no network that could be too small, and nothing is shared but the population. In training
    every voxel has to be visited many times, so this is for some thousand voxels.

    The trained normals serve the population. Posteriors, of training voxels and others alike, are optimised anew
    at the population that was learned, with fixed points in place of random draws.

    Parameters
    ----------
    model
        The voxel model of the pair.
    n_measurements
        Length of a voxel's measurements.
    steps, points
        When predicting: steps of the optimiser, and points that stand for each normal.

    Raises
    ------
    InputError
        When the latents are not the physical parameters, or the component of a mixture is relaxed.
    """

    points: Tensor
    needs_mode = True
    any_protocol = True

    def __init__(self, model: VoxelModel, n_measurements: int, steps: int = 120, points: int = 32) -> None:
        super().__init__(model)
        del n_measurements
        if not model.is_identity:
            raise InputError("guide free needs the identity decoder: a network's latents have no mode to start at")
        if hasattr(model.prior, "temperature"):
            raise InputError("guide free has no relaxed component; use prior mixture, or guide relaxed_encoder")
        n = model.n_latents
        self.steps = steps
        self.shift = nn.Parameter(torch.zeros(0, n))
        self.raw = nn.Parameter(torch.zeros(0, n * (n + 1) // 2))
        self.register_buffer("points", balanced_points(points, n), persistent=False)

    def start(self, voxels):
        for parameter in (self.shift, self.raw):
            parameter.data = parameter.new_zeros(len(voxels), parameter.shape[1])

    def training_set(self, voxels):
        """The same voxels, numbered: each has its own parameters."""
        return replace(voxels, index=torch.arange(len(voxels), device=voxels.y.device))

    def forward(self, y: Tensor | Voxels, size: int | None = None) -> None:
        """Sample the latents of numbered voxels: the Pyro program."""
        voxels = self.prepare(y)
        if voxels.index is None:
            raise InputError(
                "guide free keeps a Gaussian for each training voxel and was given voxels without a number: take them "
                "from guide.training_set(guide.prepare(y))"
            )
        super().forward(voxels, size)

    def z_dist(self, voxels):
        if voxels.index is not None:
            return self._placed(voxels, self.shift[voxels.index], self.raw[voxels.index])
        n = max(1, CHUNK_VALUES // (len(self.points) * voxels.y.shape[1]))
        parts = [self._optimised(voxels[i : i + n]) for i in range(0, max(len(voxels), 1), n)]
        logits, loc, tril = (torch.cat([getattr(q, k) for q in parts]) for k in ("logits", "loc", "scale_tril"))
        return GaussianMixture(logits, loc, tril)

    def _placed(self, voxels: Voxels, shift: Tensor, raw: Tensor) -> GaussianMixture:
        assert voxels.mode is not None and voxels.scale_tril is not None
        loc = voxels.mode + (voxels.scale_tril @ shift.unsqueeze(-1)).squeeze(-1)
        return GaussianMixture.single(loc, voxels.scale_tril @ tril_from(raw, loc.shape[-1]))

    def _optimised(self, voxels: Voxels) -> GaussianMixture:
        """The normal of each voxel that maximises its ELBO at the current population, by Adam on fixed points."""
        prior, population = self.model.prior, Population(*(t.detach() for t in self.model.prior.classes()))
        free = [voxels.y.new_zeros(len(voxels), p.shape[1], requires_grad=True) for p in (self.shift, self.raw)]
        optimizer = torch.optim.Adam(free, lr=0.1)
        with torch.enable_grad():
            for step in range(self.steps):
                optimizer.param_groups[0]["lr"] = 0.1 * 0.01 ** (step / self.steps)
                q = self._placed(voxels, *free)
                loc, tril = q.loc.squeeze(-2), q.scale_tril.squeeze(-3)
                z = loc + (tril @ self.points[:, None, :, None]).squeeze(-1)
                joint = self.model.y_dist(z, voxels).log_prob(voxels.y) + prior.log_prob(z, population, voxels)
                entropy = tril.diagonal(dim1=-2, dim2=-1).log().sum()
                gradients = torch.autograd.grad(-joint.mean(0).sum() - entropy, free)
                for value, gradient in zip(free, gradients, strict=True):
                    value.grad = gradient
                optimizer.step()
        return self._placed(voxels, *(value.detach() for value in free))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        # how many voxels there were is known from the weights alone
        for name in ("shift", "raw"):
            if prefix + name in state_dict:
                getattr(self, name).data = torch.empty_like(state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *rest)


def balanced_points(n: int, n_latents: int) -> Tensor:
    """Points ``(n, L)`` that stand for a standard normal: its mean, its covariance and its symmetry exactly."""
    half = normal_points((n + 1) // 2, n_latents, seed=0)[:, 1:]
    factor = torch.linalg.cholesky(half.mT @ half / len(half))
    half = torch.linalg.solve_triangular(factor, half.mT, upper=False).mT
    return torch.cat([half, -half])
