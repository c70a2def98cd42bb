"""Approximate posteriors."""

from pyroqmri.guides.base import GaussianGuide, Guide
from pyroqmri.guides.encoder import Encoder
from pyroqmri.guides.map_started import MapStarted
from pyroqmri.guides.structured import Structured

GUIDES: dict[str, type[Guide]] = {"encoder": Encoder, "map_started": MapStarted, "structured": Structured}

__all__ = ["GUIDES", "Encoder", "GaussianGuide", "Guide", "MapStarted", "Structured"]
