"""Approximate posteriors."""

from pyroqmri.guides.base import GaussianGuide, Guide
from pyroqmri.guides.counted import Counted
from pyroqmri.guides.decoded import StructuredDecoded
from pyroqmri.guides.decoded_relaxed import RelaxedDecoded
from pyroqmri.guides.encoder import Encoder
from pyroqmri.guides.forward import ForwardGaussian, ForwardMixture
from pyroqmri.guides.free import Free
from pyroqmri.guides.map_started import MapStarted
from pyroqmri.guides.mixture_encoder import MixtureEncoder, RelaxedEncoder
from pyroqmri.guides.structured import Structured

GUIDES: dict[str, type[Guide]] = {
    "encoder": Encoder,
    "map_started": MapStarted,
    "mixture_encoder": MixtureEncoder,
    "relaxed_encoder": RelaxedEncoder,
    "structured": Structured,
    "structured_decoded": StructuredDecoded,
    "relaxed_decoded": RelaxedDecoded,
    "forward_gaussian": ForwardGaussian,
    "forward_mixture": ForwardMixture,
    "free": Free,
    "counted": Counted,
}

__all__ = [
    "GUIDES",
    "Counted",
    "Encoder",
    "ForwardGaussian",
    "ForwardMixture",
    "Free",
    "GaussianGuide",
    "Guide",
    "MapStarted",
    "MixtureEncoder",
    "RelaxedDecoded",
    "RelaxedEncoder",
    "Structured",
    "StructuredDecoded",
]
