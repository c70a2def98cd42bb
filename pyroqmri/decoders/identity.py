"""The latent is the physical parameters themselves."""

from pyroqmri.decoders.base import Decoder


class IdentityDecoder(Decoder):
    """The unconstrained physical parameters are the latent: what hierarchical models use."""

    def __init__(self, n_tissue: int, n_direction: int = 0) -> None:
        super().__init__()
        self.n_tissue_latents = n_tissue

    def forward(self, z):
        return z
