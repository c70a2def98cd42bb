"""Write the files that ``read.py`` looks at: a posterior of 20 voxels, and a plain Pyro pair.

python tests/arviz1/write.py FOLDER
"""

import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal

import pyroqmri as pq
from pyroqmri.diagnostics import from_pyro_svi, write_netcdf
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import simulate, tissue_classes


def line(x, y=None):
    """A regression with 40 points."""
    a = pyro.sample("a", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("points", len(x)):
        pyro.sample("y", dist.Normal(a[0] + a[1] * x, 0.3), obs=y)


def main(folder: Path) -> None:
    """Fit both, write both."""
    folder.mkdir(parents=True, exist_ok=True)
    acq = pq.Acquisition(bval=[0.0] * 4 + [1.0] * 8 + [2.0] * 8)
    truth, _ = tissue_classes(SIGNALS["msdki"]).sample(300, 0)
    y = simulate(SIGNALS["msdki"], acq, truth, snr=30, seed=1)
    fit = pq.fit(y, acq, signal="msdki", recipe="hierarchical_mixture", settings={"training.steps": 60}, sigma=1 / 30)
    write_netcdf(fit.posterior(y).to_arviz(slice(0, 20), n_draws=400), folder / "posterior.nc")
    x = torch.linspace(-1, 1, 40)
    data = 1.0 + 2.0 * x + 0.3 * torch.randn(40, generator=torch.Generator().manual_seed(0))
    guide = AutoMultivariateNormal(line)
    svi = SVI(line, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(4))
    losses = [svi.step(x, data) for _ in range(300)]
    kept = from_pyro_svi(line, guide, x, data, n_draws=400, losses=losses, dims={"y": ["point"], "a": ["coefficient"]})
    write_netcdf(kept, folder / "pyro.nc")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
