"""The structured guide where a network decodes the latent."""

import torch
from torch import Tensor

from pyroqmri.errors import InputError
from pyroqmri.guides.structured import Structured
from pyroqmri.laplace.mode import Expansion, find_mode, jacobian
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.voxel_model import VoxelModel

ROUNDS, N_VOXELS = 15, 2000
PRIOR_COUNT, PRIOR_SD = 5, 0.3  # a covariance is drawn this much towards a third of the box


class StructuredDecoded(Structured):
    r"""Laplace approximation in the latent of a network decoder f, under every class, corrected.

    What a voxel's measurements say of its parameters, a quadratic around its own mode, is carried through the decoder:

    .. math:: z_c = \arg\max_z \; \log \tilde p(y \mid f(z)) - \tfrac12 (z - m_c)^\top C_c (z - m_c)

    From there the steps of :class:`Structured` climb the likelihood itself. Modes follow the decoder as it is
    learned; a start in the parameters would lose them.

    Where the prior is fixed, the decoder starts at a normal population of the parameters, so that draws from
    the latent's prior are tissue from the first step on.

    Parameters
    ----------
    model, n_measurements, width, depth, steps, final_steps
        As in :class:`Structured`.
    decoder_steps
        Steps through the decoder alone.

    Raises
    ------
    InputError
        When there is no network to decode the latent.
    """

    def __init__(
        self,
        model: VoxelModel,
        n_measurements: int,
        width: int = 64,
        depth: int = 2,
        steps: int = 2,
        final_steps: int = 12,
        decoder_steps: int = 6,
    ) -> None:
        if model.is_identity:
            raise InputError("guide structured_decoded needs decoder network; with identity, use guide structured")
        super().__init__(model, n_measurements, width, depth, steps, final_steps)
        self.decoder_steps = decoder_steps

    def start(self, voxels):
        if any(p.requires_grad for p in self.model.prior.parameters()):
            super().start(voxels)
        else:
            self.model.decoder.centre(*normal_population(voxels, self.model.signal.n_tissue))

    def starts(self, voxels, loc, precision):
        mean = loc.expand(loc.shape[0], len(voxels), -1)
        assert voxels.mode is not None
        assert voxels.scale_tril is not None
        mode, information = voxels.mode, likelihood_information(voxels.scale_tril)

        def evaluate(z: Tensor) -> Expansion:
            u, slope = jacobian(self.model.decoder, z)
            offset = u - mode
            pull = (information @ offset.unsqueeze(-1)).squeeze(-1)
            # at a mode under N(0, I) the likelihood's own gradient is the mode itself
            gradient = (slope.mT @ (mode - pull).unsqueeze(-1)).squeeze(-1)
            return Expansion((offset * (mode - pull / 2)).sum(-1), gradient, slope.mT @ information @ slope)

        return [mean, find_mode(evaluate, mean, loc, precision, self.decoder_steps).z]


def likelihood_information(scale_tril: Tensor) -> Tensor:
    """Information ``(..., L, L)`` of the measurements alone, of the factor of a covariance under the prior N(0, I)."""
    identity = torch.eye(scale_tril.shape[-1], dtype=scale_tril.dtype, device=scale_tril.device)
    return torch.cholesky_inverse(scale_tril) - identity


@torch.no_grad()
def normal_population(voxels: Voxels, n_tissue: int) -> tuple[Tensor, Tensor]:
    """Mean ``(P,)`` and covariance ``(P, P)`` of the unconstrained tissue parameters of many voxels.

    Expectation-maximisation with each voxel's likelihood as a quadratic around its mode.
    """
    index = torch.linspace(0, len(voxels) - 1, min(N_VOXELS, len(voxels))).long()
    part = voxels[index.to(voxels.y.device)]
    assert part.mode is not None
    assert part.scale_tril is not None
    mode, rows = part.mode[:, :n_tissue], part.scale_tril[:, :n_tissue]
    information = likelihood_information(torch.linalg.cholesky(rows @ rows.mT))
    identity = torch.eye(n_tissue, dtype=mode.dtype, device=mode.device)
    target = (information + identity) @ mode.unsqueeze(-1)
    loc, covariance = mode.median(0).values, PRIOR_SD**2 * identity
    for _ in range(ROUNDS):
        precision = torch.linalg.inv(covariance)
        spread = torch.linalg.inv(information + precision + 1e-4 * identity)
        z = (spread @ (target + precision @ loc.unsqueeze(-1))).squeeze(-1)
        loc = z.mean(0)
        scatter = spread.sum(0) + (z - loc).mT @ (z - loc)
        covariance = (scatter + PRIOR_COUNT * PRIOR_SD**2 * identity) / (len(z) + PRIOR_COUNT)
    return loc, covariance
