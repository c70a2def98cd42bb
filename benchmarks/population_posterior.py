"""The posterior of a population of few voxels, ``full_hierarchical``, against integration over everything.

Run ``python -m benchmarks.population_posterior``; kept in ``benchmarks/results/population_posterior.json``. Two
signals: one that is linear in its parameters, with Gaussian noise, so that the voxels integrate out in closed form, and
MS-DKI with Rician noise, whose voxels are integrated on a grid. What is left, the population's own coordinates (means,
log sds, correlations), is integrated by importance sampling from a Student-t around its mode.

Two numbers a coordinate: the posterior mean less the reference's over the reference's sd, and the ratio of the sds.
The best normal by reverse KL under the same integrals tells what a normal over the coordinates could reach at all.
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from benchmarks.protocols import protocol
from pyroqmri.acquisition import Acquisition
from pyroqmri.decoders import IdentityDecoder
from pyroqmri.guides import Structured
from pyroqmri.likelihoods import GaussianLikelihood, RicianLikelihood
from pyroqmri.measurements.voxels import Voxels
from pyroqmri.parameter import Box, Parameter
from pyroqmri.priors import FullHierarchical
from pyroqmri.priors.hierarchical import correlation_tril, hyperprior
from pyroqmri.signals import MSDKI, BoundSignal, SignalModel
from pyroqmri.simulate import simulate
from pyroqmri.svi import Training, fit_svi
from pyroqmri.voxel_model import VoxelModel

RESULTS = Path(__file__).parent / "results" / "population_posterior.json"
SHIPPED = {"steps": 300, "batch_size": 512, "lr": 5e-3, "lr_population": 2e-2}  # models/hierarchical.toml
DRAWS, NORMAL_DRAWS, GRID = 8_000, 128, 71

LogDensity = Callable[[Tensor], Tensor]


class Free(Parameter):
    """A parameter that is its own unconstrained coordinate."""

    def constrain(self, u: Tensor, box: Box | None = None) -> Tensor:
        return u

    def unconstrain(self, value: Tensor, box: Box | None = None) -> Tensor:
        return value


class Quadratic(SignalModel):
    """A signal that is linear in its parameters."""

    requires = ("te",)
    parameters = tuple(Free(name, name, "1", -50.0, 50.0, "coefficient") for name in "abc")

    @staticmethod
    def signal(acq, a, b, c):
        return a + b * acq.te + c * acq.te.square()


TE = torch.linspace(-0.6, 1.0, 8)
DESIGN = torch.stack([torch.ones(8), TE, TE.square()], -1)


def linear(n: int, seed: int, sigma: float = 0.3) -> tuple[VoxelModel, Tensor]:
    """The linear signal, and measurements ``(n, 8)`` of a population."""
    generator = torch.Generator().manual_seed(seed)
    loc, sd = torch.tensor([0.5, -0.5, 1.0]), torch.tensor([0.7, 0.5, 0.9])
    z = loc + sd * torch.randn(n, 3, generator=generator)
    y = z @ DESIGN.mT + sigma * torch.randn(n, 8, generator=generator)
    signal = BoundSignal(Quadratic, Acquisition(te=TE))
    return VoxelModel(signal, FullHierarchical(3), IdentityDecoder(3), GaussianLikelihood(), sigma), y


def msdki(n: int, seed: int, snr: float = 20.0) -> tuple[VoxelModel, Tensor]:
    """MS-DKI at 18 measurements, and Rician measurements ``(n, 18)`` of a normal population."""
    acq = Acquisition(bval=protocol("A288").bval[::16])
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 2, generator=generator)
    theta = {"D": 1.1 + 0.15 * z[:, 0], "K": 0.9 + 0.25 * (0.8 * z[:, 1] - 0.6 * z[:, 0])}
    y = simulate(MSDKI, acq, theta, snr=snr, seed=seed + 1)
    return VoxelModel(BoundSignal(MSDKI, acq), FullHierarchical(2), IdentityDecoder(2), RicianLikelihood(), 1 / snr), y


def log_prior(c: Tensor, p: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log prior of coordinates ``(S, D)``, with the population's means and Cholesky factors."""
    m, s, corr = c[:, :p], c[:, p : 2 * p].exp(), correlation_tril(c[:, 2 * p :], p)
    k = torch.arange(p)
    slope = ((k + 2) * corr.diagonal(dim1=-2, dim2=-1).log())[:, 1:].sum(-1)
    return hyperprior(m, s, corr) + s.log().sum(-1) + slope, m, s.unsqueeze(-1) * corr


def linear_density(model: VoxelModel, y: Tensor) -> LogDensity:
    """Log posterior of the population's coordinates, the voxels integrated out in closed form."""
    design, noise = DESIGN.double(), float(model.sigma) ** 2 * torch.eye(8, dtype=torch.float64)
    y = y.double()

    def density(c: Tensor) -> Tensor:
        prior, m, tril = log_prior(c, 3)
        spread = design @ tril
        marginal = MultivariateNormal(m @ design.mT, spread @ spread.mT + noise)
        return prior + marginal.log_prob(y.unsqueeze(1)).sum(0)

    return density


def grid_density(model: VoxelModel, voxels: Voxels) -> LogDensity:
    """The same with the voxels integrated on a grid of both latents."""
    assert voxels.mode is not None
    low, high = voxels.mode.quantile(0.02, 0) - 1.2, voxels.mode.quantile(0.98, 0) + 1.2
    axes = [torch.linspace(float(a), float(b), GRID) for a, b in zip(low, high, strict=True)]
    z = torch.cartesian_prod(*axes)
    with torch.no_grad():
        logs = [model.y_dist(part[:, None].expand(-1, len(voxels), -1), voxels).log_prob(voxels.y)
                for part in z.split(2000)]  # fmt: skip
    table = torch.cat(logs).double()  # (G, N)
    highest = table.amax(0)
    likelihood, z = (table - highest).exp(), z.double()

    def density(c: Tensor) -> Tensor:
        prior, m, tril = log_prior(c, 2)
        offset = torch.linalg.solve_triangular(tril, (z - m.unsqueeze(1)).mT, upper=False)
        weight = (-offset.square().sum(1) / 2).exp() / tril.diagonal(dim1=-2, dim2=-1).prod(-1, keepdim=True)
        return prior + (weight @ likelihood + 1e-300).log().sum(-1)

    return density


def reference(density: LogDensity, start: Tensor, seed: int = 0) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Exact mean and sd of each coordinate with the effective number of draws, and mode and Cholesky factor."""
    c = start.double()[None].clone().requires_grad_()
    optimizer = torch.optim.LBFGS([c], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = -density(c).sum()
        value.backward()
        return value

    optimizer.step(closure)
    mode = c.detach()[0]
    hessian = torch.autograd.functional.hessian(lambda x: -density(x[None]).sum(), mode)
    tril = torch.linalg.cholesky(torch.linalg.inv(hessian))
    generator, d = torch.Generator().manual_seed(seed), len(mode)
    normal = torch.randn(DRAWS, d, generator=generator, dtype=mode.dtype)
    chi2 = torch.randn(DRAWS, 6, generator=generator, dtype=mode.dtype).square().sum(-1, keepdim=True)
    standard = 1.1 * normal * (6 / chi2).sqrt()
    log_q = -(6 + d) / 2 * (standard.square().sum(-1) / 1.21 / 6).log1p()
    draws = mode + standard @ tril.mT
    log_w = torch.cat([density(part) for part in draws.split(250)]) - log_q
    w = log_w.softmax(0)
    mean = w @ draws
    found = {"mean": mean, "sd": (w @ (draws - mean).square()).sqrt(), "effective": 1 / w.square().sum()}
    return found, mode, tril


def best_normal(density: LogDensity, mode: Tensor, tril: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd of the normal of least reverse KL, over a fixed set of draws in pairs."""
    half = torch.randn(NORMAL_DRAWS // 2, len(mode), generator=torch.Generator().manual_seed(0), dtype=mode.dtype)
    half = half - half.mean(0)
    half = half @ torch.linalg.inv(torch.linalg.cholesky(half.mT @ half / len(half))).mT  # unit covariance
    eps = torch.cat([half, -half])
    shift, factor = torch.zeros_like(mode).requires_grad_(), torch.eye(len(mode), dtype=mode.dtype).requires_grad_()
    optimizer = torch.optim.LBFGS([shift, factor], max_iter=40, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        own = factor.tril()
        value = -density(mode + (shift + eps @ own.mT) @ tril.mT).mean() - own.diagonal().abs().log().sum()
        value.backward()
        return value

    optimizer.step(closure)
    own = tril @ factor.detach().tril()
    return mode + tril @ shift.detach(), own.square().sum(-1).sqrt()


def shipped(model: VoxelModel, y: Tensor, seed: int, **settings: Any) -> tuple[Tensor, Tensor, Voxels]:
    """Mean and sd of each coordinate by the training of the recipe."""
    torch.manual_seed(seed)
    guide = Structured(model, y.shape[1])
    voxels = guide.prepare(y)
    model.start(voxels)
    guide.start(voxels)
    fit_svi(model, guide, voxels, Training(**SHIPPED | settings), seed=seed)
    q = model.prior.population_dist()
    return q.mean.detach().double(), q.stddev.detach().double(), voxels


def compare(signal: str, n: int, seed: int, trainings: int, **settings: Any) -> dict[str, Any]:
    """One data set: what the reference, the best normal and some trainings have of it."""
    make = {"linear": linear, "msdki": msdki}[signal]
    rows = []
    for training in range(trainings):
        model, y = make(n, seed)
        mean, sd, voxels = shipped(model, y, training, **settings)
        rows.append((mean, sd))
    density = linear_density(model, y) if signal == "linear" else grid_density(model, voxels)
    exact, mode, tril = reference(density, rows[0][0])
    normal_mean, normal_sd = best_normal(density, mode, tril)
    p = 2 * model.prior.n_tissue  # correlations are no sds; their coordinates have no unit to compare in
    return {
        "signal": signal, "voxels": n, "seed": seed, "settings": settings,
        "effective_draws": round(float(exact["effective"])),
        "mean_off": [((m - exact["mean"]) / exact["sd"])[:p].tolist() for m, _ in rows],
        "sd_ratio": [(s / exact["sd"])[:p].tolist() for _, s in rows],
        "normal_mean_off": ((normal_mean - exact["mean"]) / exact["sd"])[:p].tolist(),
        "normal_sd_ratio": (normal_sd / exact["sd"])[:p].tolist(),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over data sets and trainings, by kind of coordinate."""
    found: dict[str, Any] = {}
    for key in ("mean_off", "sd_ratio", "normal_mean_off", "normal_sd_ratio"):
        each = torch.tensor([r[key] for r in rows])
        each = each.unsqueeze(1) if each.ndim == 2 else each
        p = each.shape[-1] // 2
        for name, part in (("m", each[..., :p]), ("log s", each[..., p:])):
            found[f"{key}, {name}"] = [round(float(part.mean()), 3), round(float(part.std()), 3)]
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", nargs="+", default=["linear", "msdki"])
    parser.add_argument("--voxels", nargs="+", type=int, default=[30, 100])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trainings", type=int, default=2)
    parser.add_argument("--label", default="shipped")
    parser.add_argument("--held-out", type=int)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {k: v for k, v in (("held_out", args.held_out), ("steps", args.steps)) if v is not None}
    for signal in args.signals:
        for n in args.voxels:
            rows = [compare(signal, n, 100 * seed, args.trainings, **settings) for seed in range(args.seeds)]
            entry = {"signal": signal, "voxels": n, "label": args.label, **summary(rows), "data_sets": rows}
            kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
            key = ("signal", "voxels", "label")
            new = {tuple(r[k] for k in key): r for r in [*kept, entry]}
            made = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1}
            RESULTS.write_text(json.dumps({"made": made, "rows": list(new.values())}, indent=1) + "\n")
            print(json.dumps({k: v for k, v in entry.items() if k != "data_sets"}), flush=True)


if __name__ == "__main__":
    main()
