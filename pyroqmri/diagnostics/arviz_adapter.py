"""The one file that knows which ArviZ is installed: 0.23 has InferenceData, 1.x has DataTree."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Groups = Mapping[str, Mapping[str, np.ndarray]]


def arviz_major() -> int:
    """Major version of the installed ArviZ."""
    from importlib.metadata import version

    return int(version("arviz").split(".")[0])


def from_groups(
    groups: Groups, dims: Mapping[str, list[str]], coords: Mapping[str, Any], attrs: Mapping[str, Any]
) -> Any:
    """Named groups of arrays as ArviZ's container; sampled groups lead with (chain, draw)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ 0.23 announces its successor at import
        import arviz as az

        plain = {name: dict(group) for name, group in groups.items()}
        kinds = {"dims": dict(dims), "coords": dict(coords)}
        if arviz_major() == 0:
            return az.from_dict(**plain, **kinds, attrs=dict(attrs))
        return az.from_dict(plain, **kinds, attrs={"/": dict(attrs)})


def write_netcdf(data: Any, path: Path) -> None:
    """Write under a temporary name, then give it its own."""
    partial = path.with_name(f".{path.name}.partial")
    if arviz_major() == 0:
        data.to_netcdf(str(partial), engine="h5netcdf")
    else:
        data.to_netcdf(partial, engine="h5netcdf")
    os.replace(partial, path)
