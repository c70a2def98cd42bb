"""Train a Pyro pair by hand: once with Pyro's own SVI, once with `fit_svi`, from the same start.

    python inference/train_svi.py

Copy this when you want your own loop, optimiser or ELBO. `fit.model` and `fit.guide` are torch modules whose
`forward` is a Pyro program, so everything Pyro does with a model and a guide works on them.
"""

import argparse

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Predictive
from pyro.nn.module import to_pyro_module_

import pyroqmri as pq
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.signals import SIGNALS
from pyroqmri.simulate import clusters, simulate
from pyroqmri.svi import Training, fit_svi


def measurements(n_voxels: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, pq.Acquisition]:
    """White and grey matter with known D and K, measured at SNR 20: truth, y (N, M) and the protocol."""
    acq = pq.Acquisition(bval=np.repeat([0.0, 1.0, 2.0, 3.0], [6, 20, 20, 20]))
    truth, _ = clusters(n_voxels, seed=0, classes=("white matter", "grey matter"))
    return truth, simulate(SIGNALS["msdki"], acq, truth, snr=20, seed=1), acq


def untrained(y: torch.Tensor, acq: pq.Acquisition) -> tuple[pq.Fit, Voxels]:
    """A recipe's pair after one step, and the voxels as the pair sees them: scaled, with each one's own mode."""
    fit = pq.fit(y, acq, signal="msdki", recipe="hierarchical", s0="inferred", settings={"training.steps": 1})
    seen = fit.preparation(y, torch.tensor(fit.sigma), acq)
    return fit, fit.guide.prepare(seen.voxels)


def by_pyro(fit: pq.Fit, voxels: Voxels, steps: int) -> None:
    """Vanilla Pyro: `SVI.step` on batches. The modules have to become Pyro modules first."""
    to_pyro_module_(fit.model)
    to_pyro_module_(fit.guide)
    optimizer = pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.01 ** (1 / steps)})
    # the prior says which ELBO it needs: a mixture sums its classes out
    svi = SVI(fit.model, fit.guide, optimizer, fit.model.prior.elbo())
    for _ in range(steps):
        batch = voxels[torch.randint(len(voxels), (min(1024, len(voxels)),))]
        svi.step(batch, size=len(voxels))


def by_fit_svi(fit: pq.Fit, voxels: Voxels, steps: int) -> None:
    """The package's loop: one fused optimiser, no parameter store, clipping, a held-out loss, checkpoints."""
    fit_svi(fit.model, fit.guide, voxels, Training(steps=steps, batch_size=1024))


def elbo(fit: pq.Fit, voxels: Voxels) -> float:
    """ELBO a voxel in nats, over 20 draws."""
    torch.manual_seed(0)
    with torch.no_grad():
        return -fit.model.prior.elbo(n_particles=20).loss(fit.model, fit.guide, voxels) / len(voxels)


def main(n_voxels: int = 2000, steps: int = 400) -> dict[str, dict[str, float]]:
    """Train both ways and print what each one reached."""
    truth, y, acq = measurements(n_voxels)
    found = {}
    for name, train in {"pyro.infer.SVI": by_pyro, "pyroqmri.svi.fit_svi": by_fit_svi}.items():
        torch.manual_seed(0)
        fit, voxels = untrained(y, acq)
        before = elbo(fit, voxels)
        train(fit, voxels, steps)
        mean = fit.posterior(y).mean
        rmse = {f"rmse {k}": float((mean[k] - truth[k]).square().mean().sqrt()) for k in truth}
        found[name] = {"elbo before": before, "elbo": elbo(fit, voxels), **rmse}
        print(f"{name:22}", "  ".join(f"{k} {v:.3f}" for k, v in found[name].items()))
    draws = Predictive(fit.model, guide=fit.guide, num_samples=8)(voxels)
    print("Predictive draws, by site:", {site: tuple(values.shape) for site, values in draws.items()})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small batches run faster on one thread than on several
    main(arguments.voxels, arguments.steps)
