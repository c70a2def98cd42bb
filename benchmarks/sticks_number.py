"""How often the number of sticks is found, and how often it could be: truth and noise in numpy, from the physics.

    python -m benchmarks.sticks_number [--voxels N] [--seed S] [--points P] [--signal ball_sticks]

0 to 3 sticks in equal parts at any angle, 6 b0 and 3 x 60 volumes at b = 1, 2, 3, SNR 20. The limit is that of the
true population: the exact posterior of the number by importance sampling with many points, whose prior is what the
voxels were drawn from. The package itself knows neither the population of D and f1 nor the least fractions.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pyroqmri as pq
from benchmarks.noise_conditions import directions
from pyroqmri.posterior.importance import wide
from pyroqmri.posterior.psis import efficiency, smoothed

RESULTS = Path(__file__).parent / "results" / "sticks_number.json"
D, F1, SHARE2, SHARE3 = (0.7, 1.7), (0.2, 0.6), (0.05, 1.0), (0.1, 1.0)  # uniform; shares of what is left
SNR, CLEAR, CHUNK = 20.0, 0.15, 4096


def scan(n: int, seed: int) -> tuple[np.ndarray, pq.Acquisition, dict[str, np.ndarray]]:
    """Measurements, settings and truth."""
    rng, g = np.random.default_rng(seed), directions(60)
    b = np.repeat([0.0, 1.0, 2.0, 3.0], [6, 60, 60, 60])
    g = np.concatenate([np.zeros((6, 3)), g, g, g])
    k, d, f = np.arange(n) % 4, rng.uniform(*D, n), np.zeros((n, 3))
    f[:, 0] = rng.uniform(*F1, n)
    f[:, 1] = rng.uniform(*SHARE2, n) * np.minimum(f[:, 0], 1 - f[:, 0])
    f[:, 2] = rng.uniform(*SHARE3, n) * np.minimum(f[:, 1], 1 - f[:, 0] - f[:, 1])
    f[np.arange(3) >= k[:, None]] = 0
    axes = rng.standard_normal((n, 3, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    y = (1 - f.sum(1))[:, None] * np.exp(-b * d[:, None])
    for j in range(3):
        y = y + f[:, j, None] * np.exp(-b * d[:, None] * (axes[:, j] @ g.T) ** 2)
    y = 100 * np.hypot(y + rng.standard_normal(y.shape) / SNR, rng.standard_normal(y.shape) / SNR)
    acq = pq.Acquisition(bval=torch.from_numpy(b), bvec=torch.from_numpy(g))
    return y, acq, {"k": k, "D": d, "f1": f[:, 0], "f2": f[:, 1], "f3": f[:, 2], "axes": axes}


def of_number(p: np.ndarray, k: np.ndarray, clear: np.ndarray) -> dict[str, Any]:
    """What a posterior of the number ``(N, 4)`` is worth."""
    right, two = p.argmax(-1) == k, p[:, 2:].sum(-1)
    place = np.minimum((10 * two).astype(int), 9)
    gap = sum((place == i).mean() * abs(two[place == i].mean() - (k >= 2)[place == i].mean()) for i in np.unique(place))
    return {
        "right": [round(float(right[k == i].mean()), 3) for i in np.unique(k)],
        "right where f2 > 0.15": round(float(right[clear].mean()), 3),
        "by number": [round(float(right[clear & (k == i)].mean()), 3) for i in (2, 3)],
        "expected right there": round(float(p.max(-1)[clear].mean()), 3),
        "gap of P(n >= 2)": round(float(gap), 3),
        "mean probability": [round(float(x), 3) for x in p.mean(0)],
        "log score": round(float(np.log(p[np.arange(len(k)), k] + 1e-6).mean()), 3),
    }


def true_log_prior(model: Any, theta: dict[str, Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Log-density of latents ``(S, N, L)`` with each number of sticks ``(S, N, 4)``, in truth and as the fit has it."""
    f1, f2, f3 = (theta[f"f{i}"].double() for i in (1, 2, 3))
    two, three = torch.minimum(f1, 1 - f1), torch.minimum(f2, 1 - f1 - f2)
    own = model.prior.classes()
    table = {
        0: (theta["D"].double(), D, 3.95),
        1: (f1, F1, 1.0),
        2: (f2 / two, SHARE2, 1.0),
        3: (f3 / three, SHARE3, 1.0),
    }
    true, fitted = [], []
    for c in range(4):
        one, other = torch.zeros(z.shape[:-1]).double(), torch.zeros(z.shape[:-1]).double()
        for i, (value, (low, high), span) in table.items():
            normal = torch.distributions.Normal(own.loc[c, i], own.scale_tril[c, i, i]).log_prob(z[..., i]).double()
            other = other + normal
            if i <= c:  # a standard normal latent is uniform in the bounds
                uniform = -z[..., i].double().square() / 2 - math.log(2 * math.pi) / 2 + math.log(span / (high - low))
                one = one + torch.where((value > low) & (value < high), uniform, -torch.inf)
            else:
                one = one + normal
        true.append(one)
        fitted.append(other)
    return torch.stack(true, -1) - math.log(4), torch.stack(fitted, -1) + own.log_weights


def limit(fit: pq.Fit, y: np.ndarray, n_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each number under the true population ``(N, 4)``, and efficiency of its weights ``(N,)``."""
    found, good = [], []
    for i in range(0, len(y), 24):
        voxels = fit.guide.prepare(fit.prepare(y[i : i + 24]))
        proposal, parts = wide(fit.guide.z_dist(voxels)), []
        torch.manual_seed(i)
        for _ in range(0, n_points, CHUNK):
            z = proposal.sample(torch.Size([CHUNK]))
            true, own = true_log_prior(fit.model, fit.model.theta(z, voxels), z)
            plain = fit.model.log_joint(z, voxels, 1_000_000) - proposal.log_prob(z)
            parts.append(plain.double().unsqueeze(-1) - own.logsumexp(-1, keepdim=True) + true)
        each = torch.cat(parts)  # of points and numbers
        weights, _ = smoothed(each.logsumexp(-1).T.contiguous())
        found.append(torch.einsum("ns,snc->nc", weights, each.softmax(-1).nan_to_num(0.25)))
        good.append(efficiency(weights))
    return torch.cat(found).numpy(), torch.cat(good).numpy()


def run(n: int, seed: int, n_points: int, signal: str) -> dict[str, Any]:
    """A row of results."""
    y, acq, truth = scan(n, seed)
    start = time.process_time()
    fit = pq.fit(y, acq, signal=signal, recipe="hierarchical", sigma=100 / SNR)
    trained = time.process_time()
    post = fit.posterior(y)
    p, k, clear = post.n_sticks.numpy(), truth["k"], truth["f2"] > CLEAR
    done = time.process_time()
    row: dict[str, Any] = {"voxels": n, "seed": seed, "signal": signal, "fit s": round(trained - start, 1)}
    row |= {"posterior ms a voxel": round(1000 * (done - trained) / n, 1), "package": of_number(p, k, clear)}
    row["poor weights"] = round(float((post.khat > 0.7).float().mean()), 3)
    for name, least in (("D", 0), ("f1", 1), ("f2", 2), ("f3", 3)):
        low, high = post.interval(0.9)[name].T.numpy()
        inside = ((low <= truth[name]) & (truth[name] <= high))[k >= least]
        row[f"{name} inside"] = round(float(inside.mean()), 3)
    for i in (1, 2):
        there = (k >= i) & (clear if i == 2 else k > 0)
        cosine = np.abs((post.direction(f"n{i}").numpy() * truth["axes"][:, i - 1]).sum(-1)).clip(0, 1)
        angle = np.rad2deg(np.arccos(cosine))[there]
        row[f"n{i}"] = {"median angle": round(float(np.median(angle)), 2)}
        row[f"n{i}"]["in its cone"] = round(float((angle < post.cone(0.9, f"n{i}").numpy()[there]).mean()), 3)
    print(json.dumps(row), flush=True)
    if n_points and signal == "ball_sticks":
        could, good = limit(fit, y[clear], n_points)
        row["limit where f2 > 0.15"] = of_number(could, k[clear], clear[clear])
        row["package on the same"] = of_number(p[clear], k[clear], clear[clear])
        row["efficiency of the limit"] = [round(float(x), 4) for x in np.quantile(good, [0.05, 0.5])]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=320)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--points", type=int, default=16384, help="of the Bayes limit; 0: without it")
    parser.add_argument("--signal", default="ball_sticks")
    args = parser.parse_args()
    row = run(args.voxels, args.seed, args.points, args.signal)
    print(json.dumps(row, indent=1))
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")


if __name__ == "__main__":
    main()
