"""The one file that knows which ArviZ is installed: 0.23 has InferenceData, 1.x has DataTree."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyroqmri.whole_files import whole_file

Groups = Mapping[str, Mapping[str, np.ndarray]]


def arviz_major() -> int:
    """Major version of the installed ArviZ."""
    from importlib.metadata import version

    return int(version("arviz").split(".")[0])


def import_arviz() -> Any:
    """ArviZ without the announcement that 0.23 makes at import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    return arviz


def from_groups(
    groups: Groups,
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Any],
    attrs: Mapping[str, Any],
    units: Mapping[str, Mapping[str, str]] | None = None,
) -> Any:
    """Named groups of arrays as ArviZ's container; no array is copied.

    Parameters
    ----------
    groups
        Arrays by group and name. One with two axes more than its ``dims`` leads with (chain, draw).
    dims
        Names of the other axes of each array, by its name or by ``group/name``; none when left out.
    coords
        Labels by name: an array along the dimension of that name, or ``(dims, array)``.
        A group gets those whose dimensions it has.
    attrs
        Of the whole container.
    units
        Attributes of the arrays by name, such as ``{"D": {"units": "um2/ms"}}``.
    """
    import xarray as xr

    placed = {k: v if isinstance(v, tuple) else ((k,), np.asarray(v)) for k, v in coords.items()}
    datasets = {}
    for group, arrays in groups.items():
        variables = {}
        for name, array in arrays.items():
            own = tuple(dims.get(f"{group}/{name}", dims.get(name, ())))
            sampled = array.ndim == len(own) + 2
            said = {} if units is None else dict(units.get(name, {}))
            variables[name] = (("chain", "draw", *own) if sampled else own, array, said)
        dataset = xr.Dataset(variables)
        mine = {k: v for k, v in placed.items() if set(v[0]) <= set(dataset.dims)}
        mine |= {k: ((k,), np.arange(dataset.sizes[k])) for k in ("chain", "draw") if k in dataset.dims}
        datasets[group] = dataset.assign_coords(mine)
    if arviz_major() == 0:
        return import_arviz().InferenceData(attrs=dict(attrs), **datasets)
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=dict(attrs)), **datasets})


def group_names(data: Any) -> tuple[str, ...]:
    """Names of the groups of a container."""
    return tuple(data.groups()) if arviz_major() == 0 else tuple(data.children)


def attributes(data: Any) -> dict[str, Any]:
    """Attributes of the whole container."""
    return dict(data.attrs)


def write_netcdf(data: Any, path: Path) -> None:
    """Write under a temporary name, then give it its own."""
    with whole_file(path) as partial:
        if arviz_major() == 0:
            data.to_netcdf(str(partial), engine="h5netcdf")
        else:
            data.to_netcdf(partial, engine="h5netcdf")


def read_netcdf(path: str | Path) -> Any:
    """Read what :func:`write_netcdf` of either ArviZ wrote, into memory; the file is closed again."""
    import xarray as xr

    if arviz_major() == 0:
        with import_arviz().rc_context({"data.load": "eager"}):
            return import_arviz().from_netcdf(str(path), engine="h5netcdf")
    with xr.open_datatree(path, engine="h5netcdf") as data:
        return data.load()


def stacking_weights(elpd: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Weights of a mixture of models that predicts best, by ``az.compare``, from pointwise elpd ``(n,)`` of each."""
    whole = {} if arviz_major() == 0 else {"round_to": "none"}  # 1.x rounds for print
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = import_arviz().compare({k: _elpd_data(v) for k, v in elpd.items()}, method="stacking", **whole)
    return {str(name): float(weight) for name, weight in table["weight"].items()}


def _elpd_data(values: np.ndarray) -> Any:
    """Pointwise elpd in the form that ``az.loo(pointwise=True)`` returns."""
    import xarray as xr

    n, total, se = len(values), float(values.sum()), float(np.sqrt(len(values) * values.var()))
    pointwise, shape = xr.DataArray(values, dims="voxel"), xr.DataArray(np.zeros(len(values)), dims="voxel")
    if arviz_major() == 0:
        from arviz.stats.stats_utils import ELPDData

        rows = {"elpd_loo": total, "se": se, "p_loo": 0.0, "n_samples": 1, "n_data_points": n, "warning": False}
        rows |= {"loo_i": pointwise, "pareto_k": shape, "scale": "log", "good_k": 0.7}
        return ELPDData(data=list(rows.values()), index=list(rows))
    from arviz_stats import utils  # pyright: ignore[reportMissingImports]

    rows = {"elpd": total, "se": se, "p": 0.0, "n_samples": 1, "n_data_points": n, "scale": "log", "warning": False}
    rows |= {"good_k": 0.7, "elpd_i": pointwise, "pareto_k": shape}
    if hasattr(utils, "ELPDDataLOO"):
        return utils.ELPDDataLOO(**rows)
    return utils.ELPDData(kind="loo", **rows)  # before arviz-stats 1.3
