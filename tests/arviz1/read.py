"""What ArviZ 1.x makes of netCDF files that this package wrote.

    python tests/arviz1/read.py posterior.nc pyro.nc

Needs arviz 1.x, h5netcdf, h5py and matplotlib, and no torch. Prints a line for each
thing that works, and fails at the first that does not.
"""

import importlib.util
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402

ADAPTER = Path(__file__).resolve().parents[2] / "pyroqmri" / "diagnostics" / "arviz_adapter.py"
OURS = {
    "posterior", "prior", "posterior_predictive", "prior_predictive", "log_likelihood", "observed_data",
    "sample_stats", "constant_data",
}  # fmt: skip


def adapter() -> ModuleType:
    """The adapter file by itself: the package around it wants torch."""
    spec = importlib.util.spec_from_file_location("arviz_adapter", ADAPTER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(path: Path, groups: set[str]) -> None:
    """Read, look, compute, draw, write and read again."""
    import arviz as az

    ours = adapter()
    data = ours.read_netcdf(path)
    assert type(data).__name__ == "DataTree"
    assert set(ours.group_names(data)) == groups
    print(f"{path.name}: {type(data).__name__} with {len(groups)} groups; arviz {az.__version__}")
    if "n_chains" in ours.attributes(data):
        found = ours.attributes(data)
        assert data["posterior"].sizes["chain"] == found["n_chains"] == 4
        print(f"  draws: {found['draws']}; importance weighted: {found['importance_weighted']}")
    name = next(k for k, v in data["posterior"].items() if v.ndim == 3 and k != "class_probability")
    table = az.summary(data, var_names=[name])
    print(f"  az.summary of {name}: columns {', '.join(table.columns[:4])}; first mean {table.iloc[0, 0]}")
    loo = az.loo(data, var_name="y", pointwise=True)
    k = np.asarray(loo.pareto_k)
    print(f"  az.loo: elpd {loo.elpd:.1f} +- {loo.se:.1f}, Pareto shapes above 0.7 in {(k > 0.7).mean():.1%}")
    stats = data["sample_stats"]
    fit = az.loo_approximate_posterior(
        data, log_p=stats["log_p"].sum("voxel") if "voxel" in stats["log_p"].dims else stats["log_p"],
        log_q=stats["log_q"].sum("voxel") if "voxel" in stats["log_q"].dims else stats["log_q"], var_name="y",
    )  # fmt: skip
    print(f"  az.loo_approximate_posterior: elpd {fit.elpd:.1f} +- {fit.se:.1f}")
    az.plot_ppc_dist(data, var_names=["y"])
    az.plot_forest(data, var_names=[name])
    print("  az.plot_ppc_dist, az.plot_forest: drawn")
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.nc"
        ours.write_netcdf(data, again)
        back = ours.read_netcdf(again)
        assert [p.name for p in Path(folder).iterdir()] == ["again.nc"]
    np.testing.assert_array_equal(back["posterior"][name], data["posterior"][name])
    assert back["posterior"][name].attrs == data["posterior"][name].attrs
    print("  written by 1.x and read again: the same")


def containers() -> None:
    """The adapter builds a DataTree and ranks by az.compare."""
    ours = adapter()
    rng = np.random.default_rng(0)
    tree = ours.from_groups(
        {"posterior": {"D": rng.normal(size=(1, 20, 4))}, "sample_stats": {"khat": np.zeros(4)}},
        {"D": ["voxel"], "khat": ["voxel"]}, {"voxel": np.arange(4), "i": (("voxel",), np.arange(4))}, {"signal": "X"},
        {"D": {"units": "um2/ms"}},
    )  # fmt: skip
    assert tree["posterior"]["D"].dims == ("chain", "draw", "voxel")
    good = rng.normal(size=300)
    weights = ours.stacking_weights({"good": good, "bad": good - 1 - 0.1 * rng.normal(size=300)})
    assert weights["good"] > 0.9
    print(f"from_groups: DataTree; az.compare: weights {weights}")


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.use("Agg")
    containers()
    check(Path(sys.argv[1]), OURS)
    check(Path(sys.argv[2]), OURS - {"constant_data"})
    print("ArviZ 1.x: everything holds")
