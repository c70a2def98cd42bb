"""Approximate posteriors."""

from pyroqmri.guides.base import GaussianGuide, Guide
from pyroqmri.guides.encoder import Encoder
from pyroqmri.guides.map_started import MapStarted

GUIDES: dict[str, type[Guide]] = {"encoder": Encoder, "map_started": MapStarted}

__all__ = ["GUIDES", "Encoder", "GaussianGuide", "Guide", "MapStarted"]
