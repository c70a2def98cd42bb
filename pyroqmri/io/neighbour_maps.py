"""Maps of how much of what is known of each voxel its neighbours have stated, for priors that are fields."""

from collections.abc import Iterator
from typing import Any

_NEIGHBOURS = (
    "share of what is known of it that neighbouring voxels have stated: 0 where the voxel is mapped as it would be by "
    "itself, 0.75 where neighbours have halved its sd"
)
_ALONE = (
    "probability that the voxel shares nothing with its neighbours: near 1 it is mapped by itself, as by recipe "
    "hierarchical"
)


def neighbour_maps(posterior: Any) -> Iterator[tuple[Any, tuple[str, ...], dict[str, Any]]]:
    """Values ``(N,)``, name parts and sidecar of each map; none for a posterior that knows no neighbours."""
    for name, values in getattr(posterior, "neighbours", {}).items():
        doc = f"{posterior.parameters[name].doc}: {_NEIGHBOURS}"
        sidecar = {"Parameter": name, "Statistic": "neighbours", "Units": "1", "Description": doc}
        yield values, (f"param-{name}", "stat-neighbours", "dwimap"), sidecar
    alone = getattr(posterior, "alone", None)
    if alone is not None:
        yield alone, ("desc-alone", "dwimap"), {"Units": "1", "Description": _ALONE}
