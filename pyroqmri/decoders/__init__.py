"""Maps from a voxel's latent to its physical parameters."""

from pyroqmri.decoders.base import Decoder
from pyroqmri.decoders.identity import IdentityDecoder
from pyroqmri.decoders.network import NetworkDecoder

DECODERS: dict[str, type[Decoder]] = {"identity": IdentityDecoder, "network": NetworkDecoder}

__all__ = ["DECODERS", "Decoder", "IdentityDecoder", "NetworkDecoder"]
