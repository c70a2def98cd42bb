"""How much a Pyro SVI step costs over a hand-written torch loss: the same VAE, paired in one process, one thread.

Run ``python -m benchmarks.svi_step``; the ratios are kept in ``benchmarks/results/svi_step.json``.
"""

import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import pyro
import torch

from benchmarks.protocols import protocol
from pyroqmri.acquisition import Acquisition
from pyroqmri.decoders import NetworkDecoder
from pyroqmri.distributions import Rician, log_i0e
from pyroqmri.guides import Encoder
from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.priors import StandardNormal
from pyroqmri.signals import MSDKI, BoundSignal
from pyroqmri.svi import SVILoop, Training
from pyroqmri.voxel_model import VoxelModel

SIGMA = 0.05


def voxels_of(signal: BoundSignal, n: int) -> Voxels:
    """Simulated MS-DKI voxels."""
    theta = {"D": 0.8 + 0.8 * torch.rand(n), "K": 0.5 + 0.7 * torch.rand(n)}
    y = Rician(signal(theta), torch.tensor(SIGMA)).sample()
    return Voxels(y, torch.full((n, 1), SIGMA))


def pair(signal: BoundSignal, rician: bool) -> tuple[VoxelModel, Encoder]:
    """A VAE-UniG with an encoder of two layers of 64."""
    likelihood = RicianLikelihood() if rician else GaussianLikelihood()
    model = VoxelModel(signal, StandardNormal(2), NetworkDecoder(2), likelihood, SIGMA)
    return model, Encoder(model, len(signal.acquisition))


class HandWritten:
    """The same loss without Pyro: one fused Adam, the closed-form terms written out."""

    def __init__(self, model: VoxelModel, guide: Encoder, voxels: Voxels, rician: bool) -> None:
        self.model, self.guide, self.voxels, self.rician = model, guide, voxels, rician
        self.parameters = [*model.parameters(), *guide.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-4, fused=True)

    def loss(self, batch: Voxels) -> torch.Tensor:
        """Minus ELBO a voxel from one draw."""
        q = self.guide.z_dist(batch)
        loc, tril = q.loc.squeeze(-2), q.scale_tril.squeeze(-3)
        noise = torch.randn_like(loc)
        z = loc + (tril @ noise.unsqueeze(-1)).squeeze(-1)
        log_q = -noise.square().sum(-1) / 2 - tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_prior = -z.square().sum(-1) / 2
        x, a = batch.y / batch.sigma, self.model.simulate(z, batch) / batch.sigma
        log_lik = -(x - a).square() / 2
        if self.rician:
            log_lik = log_lik + log_i0e(x * a)
        return -(log_lik.sum(-1) + log_prior - log_q).mean()

    def one_step(self, n: int) -> None:
        """Draw a batch and follow its gradient."""
        index = torch.randint(len(self.voxels), (n,))
        loss = self.loss(self.voxels[index])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 10.0)
        self.optimizer.step()


def acquisition(repeated: bool) -> Acquisition:
    """The 288 volumes of A288; without repeats no two b-values are quite the same, so nothing is compressed."""
    acq = protocol("A288")
    return acq if repeated else Acquisition(bval=acq.bval + torch.linspace(0, 0.01, len(acq)))


def compare(batch_size: int, rician: bool, rounds: int, steps: int, repeated: bool = False) -> dict[str, Any]:
    """Median and range over rounds of the time of a Pyro step over a hand-written one, the two in turn."""
    torch.manual_seed(0)
    signal = BoundSignal(MSDKI, acquisition(repeated))
    voxels = voxels_of(signal, 20_000)
    model, guide = pair(signal, rician)
    voxels = guide.prepare(voxels)
    training = Training(batch_size=batch_size, lr=1e-4, lr_decoder=1e-4, held_out=0)
    loop = SVILoop(model, guide, voxels, training, seed=0)
    hand = HandWritten(*pair(signal, rician), voxels, rician)
    ratios, ours = [], []
    with pyro.validation_enabled(False):
        for i in range(rounds + 1):
            begin = time.perf_counter()
            for _ in range(steps):
                loop.one_step()
            middle = time.perf_counter()
            for _ in range(steps):
                hand.one_step(batch_size)
            end = time.perf_counter()
            if i:
                ratios.append((middle - begin) / (end - middle))
                ours.append((middle - begin) / steps)
    return {
        "batch": batch_size,
        "likelihood": "rician" if rician else "gaussian",
        "repeats compressed": repeated,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ms_per_step": 1e3 * statistics.median(ours),
    }


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    rows = []
    for batch, rounds, steps in ((128, 9, 40), (1024, 9, 12), (8192, 7, 3)):
        for rician in (False, True):
            rows.append(compare(batch, rician, rounds, steps))
            print(rows[-1], flush=True)
    rows.append(compare(1024, True, 5, 12, repeated=True))
    print(rows[-1])
    made = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    made |= {"pyro": pyro.__version__, "threads": 1, "what": "SVI step over hand-written torch step, paired rounds"}
    path = Path(__file__).parent / "results" / "svi_step.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"made": made, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
