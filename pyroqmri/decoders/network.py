"""A network from latent to physical parameters."""

import torch
from torch import Tensor, nn

from pyroqmri.decoders.base import Decoder


class NetworkDecoder(Decoder):
    """A multilayer perceptron beside a linear map, which training starts from.

    Parameters
    ----------
    n_tissue
        Tissue parameters to decode to.
    n_direction
        Latents of a direction, passed through.
    latents
        Size of the latent; the tissue parameters when None.
    width, depth
        Of the hidden layers; depth 0 is the linear map alone.

    Source: the decoder of Xu et al. 2024, arXiv:2411.10772, is one linear layer.
    """

    def __init__(
        self, n_tissue: int, n_direction: int = 0, latents: int | None = None, width: int = 64, depth: int = 1
    ) -> None:
        super().__init__()
        self.n_direction = n_direction
        self.n_tissue_latents = n_tissue if latents is None else latents
        self.linear = nn.Linear(self.n_tissue_latents, n_tissue)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        layers: list[nn.Module] = []
        size = self.n_tissue_latents
        for _ in range(depth):
            layers += [nn.Linear(size, width), nn.SiLU()]
            size = width
        self.residual = nn.Sequential(*layers, nn.Linear(size, n_tissue)) if depth else None
        if self.residual is not None:
            nn.init.zeros_(self.residual[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.residual[-1].bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def centre(self, loc: Tensor, covariance: Tensor) -> None:
        """Start where standard normal latents give parameters of mean ``(P,)`` and covariance ``(P, P)``.

        Fewer latents than parameters span the directions of largest variance.
        """
        variance, directions = torch.linalg.eigh(covariance)
        factor = (directions * variance.clamp_min(0).sqrt()).flip(-1)
        n = min(factor.shape[-1], self.n_tissue_latents)
        self.linear.weight.zero_()
        self.linear.weight[:, :n] = factor[:, :n]
        self.linear.bias.copy_(loc)

    def forward(self, z):
        tissue = z[..., : self.n_tissue_latents]
        u = self.linear(tissue)
        if self.residual is not None:
            u = u + self.residual(tissue)
        return torch.cat([u, z[..., self.n_tissue_latents :]], -1) if self.n_direction else u
