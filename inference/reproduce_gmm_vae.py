"""The figures of the GMM-VAE paper (Xu et al. 2024, arXiv:2411.10772) made again, as honest figures of our own.

    python -m inference.reproduce_gmm_vae --out out/gmm_vae
    python -m inference.reproduce_gmm_vae --out out/gmm_vae --quick

Truth against estimate by SNR (figures 1 and 7), latent size and strength of the KL term with several seeds, so that
noise is seen (figure 6), learned latents (figure 3), and maps of a real brain (figures 2 and 5). Every fit is kept in
OUT/fits under a name that says how it was made and is not made twice: an interrupted run goes on where it was.
OUT/summary.json holds the numbers. `--quick` takes minutes and shows that all of it works; its figures mean little.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from inference import gmm_vae_figures as figures
from pyroqmri.datasets import fetch
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.io import read_scan
from pyroqmri.signals import MSDKI
from pyroqmri.simulate import CLASSES, clusters, simulate

ESTIMATORS = ("least_squares", "self_supervised", "vae_unig", "vae_gmm")
PROTOCOL = np.repeat([0.0, 1.0, 2.0, 3.0], [18, 90, 90, 90])  # b in ms/um2: 288 volumes, as HCP has
WEIGHTS = (0.5, 0.4, 1.0)
SENSITIVITY_SNR = 20.0
MAPPED = {"msdki": ("D", "K"), "ball_stick": ("f", "D_par", "D_iso")}
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """How much is done: simulated voxels, seeds, noise levels, latent sizes, KL weights, and training steps."""

    voxels: int = 2000
    seeds: tuple[int, ...] = (0, 1)
    snrs: tuple[float, ...] = (10.0, 20.0, 50.0)
    latents: tuple[int, ...] = (1, 2, 3, 4)
    kl_weights: tuple[float, ...] = (0.01, 0.1, 1.0, 3.0)
    steps: int | None = None  # the recipe's own
    every: int = 1  # of the real brain's voxels in training


QUICK = Plan(voxels=300, seeds=(0, 1), snrs=(20.0,), latents=(1, 2), kl_weights=(0.1, 1.0), steps=20, every=10)


def kept(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """What an earlier run kept, or made now and kept."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made, temporary = make(), path.with_suffix(".part")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **made)  # type: ignore[arg-type]
        os.replace(temporary, path)
        print(f"{path.stem:45} {float(made['seconds']):6.1f} s", flush=True)
    with np.load(path) as found:
        return dict(found)


def estimate(y: Any, acq: pq.Acquisition, names: tuple[str, ...], every: int, call: Mapping[str, Any]) -> Arrays:
    """Fit, and what it says of all voxels: means, sds and 90 % intervals where it has them, and its latents."""
    begin = time.process_time()
    fit = pq.fit(y[::every], acq, **call)
    posterior = fit.posterior(y)
    found = {f"mean {k}": posterior.mean[k].numpy() for k in names}
    if fit.model is not None and fit.guide is not None:
        interval = posterior.interval(0.9)
        found |= {f"interval {k}": interval[k].numpy() for k in names}
        found |= {f"sd {k}": posterior.sd[k].numpy() for k in names}
        found |= latents(fit, posterior)
    return found | {"seconds": np.array(time.process_time() - begin)}


@torch.no_grad()
def latents(fit: pq.Fit, posterior: Any) -> Arrays:
    """Posterior mean of each fitted voxel's latent, and the classes of the prior: weights, means, sds."""
    assert fit.model is not None
    assert fit.guide is not None
    q = fit.guide.z_dist(fit.guide.prepare(posterior.batch.voxels))
    classes = fit.model.prior.classes()
    return {
        "z": posterior.scatter((q.probs.unsqueeze(-1) * q.loc).sum(-2)).numpy(),
        "weights": classes.log_weights.exp().numpy(),
        "loc": classes.loc.numpy(),
        "scale": classes.scale_tril.diagonal(dim1=-2, dim2=-1).numpy(),
    }


def trained(recipe: str, steps: int | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a recipe; fewer steps, or epochs, for a quick look.

    A network starts at random weights, as the paper's baseline does.
    """
    kind = load_recipe(recipe).estimator
    found = {**settings, **({"training.starts": 0} if kind == "network" else {})}
    short = {"voxel_model": {"training.steps": steps}, "network": {"training.epochs": steps}}.get(kind, {})
    return found | (short if steps is not None else {})


def simulated(folder: Path, plan: Plan, recipe: str, snr: float, seed: int, **settings: Any) -> Arrays:
    """An estimator on the three clusters: its answers, the truth and the tissue of each voxel."""
    truth, tissue = clusters(plan.voxels, seed, weights=WEIGHTS)
    said = "".join(f"_{k}-{v}" for k, v in settings.items())
    entries = trained(recipe, plan.steps, {k.replace("__", "."): v for k, v in settings.items()})

    def make() -> Arrays:
        acq = pq.Acquisition(bval=PROTOCOL)
        y = simulate(MSDKI, acq, truth, snr=snr, seed=seed + 1000)
        call = {"signal": "msdki", "recipe": recipe, "sigma": 1 / snr, "s0": 1.0, "seed": seed, "settings": entries}
        return estimate(y, acq, ("D", "K"), 1, call)

    size = f"n-{plan.voxels}" + ("" if plan.steps is None else f"_steps-{plan.steps}")
    found = kept(folder / f"sim_{recipe}_snr-{snr:g}_seed-{seed}{said}_{size}.npz", make)
    return found | {"D": truth["D"].numpy(), "K": truth["K"].numpy(), "tissue": np.asarray(tissue)}


def brain(folder: Path, plan: Plan, recipe: str, signal: str) -> tuple[Arrays, Any]:
    """An estimator on the real slices."""
    data = fetch("b1k_b2k")
    scan = read_scan(data.image, bval=data.bval, bvec=data.bvec, mask=data.mask)

    def make() -> Arrays:
        settings = trained(recipe, plan.steps, {})
        call = {"signal": signal, "recipe": recipe, "seed": 0, "settings": settings}
        return estimate(scan.y, scan.acquisition, MAPPED[signal], plan.every, call)

    size = f"every-{plan.every}" + ("" if plan.steps is None else f"_steps-{plan.steps}")
    return kept(folder / f"real_{signal}_{recipe}_{size}.npz", make), scan


def scores(found: Arrays) -> dict[str, float]:
    """RMSE by tissue and parameter, and coverage of the 90 % intervals."""
    out = {}
    for k, name in enumerate(CLASSES):
        here = found["tissue"] == k
        for p in ("D", "K"):
            out[f"rmse {p} {name}"] = float(np.sqrt(np.mean((found[f"mean {p}"] - found[p])[here] ** 2)))
            if f"interval {p}" in found:
                low, high = found[f"interval {p}"][here].T
                out[f"cover {p} {name}"] = float(np.mean((low < found[p][here]) & (found[p][here] < high)))
    return out | {"seconds": float(found["seconds"])}


def main() -> None:
    """Fit what is not kept yet, draw, and write the numbers down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/gmm_vae"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", nargs="+", default=["truth", "sensitivity", "brain"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    reproduce(given.out, QUICK if given.quick else Plan(), given.parts)


def reproduce(out: Path, plan: Plan, parts: list[str]) -> dict[str, Any]:
    """Make the parts asked for; the numbers, which are written to OUT/summary.json as well."""
    fits, path = out / "fits", out / "summary.json"
    out.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if "truth" in parts:
        runs = {(r, snr, s): simulated(fits, plan, r, snr, s)
                for s in plan.seeds for snr in plan.snrs for r in ESTIMATORS}  # fmt: skip
        summary["truth"] = [{"recipe": r, "snr": n, "seed": s} | scores(v) for (r, n, s), v in runs.items()]
        figures.truth_against_estimate(out, runs, ESTIMATORS, plan.snrs, plan.seeds[0])
    if "sensitivity" in parts:
        sizes = {(n, s): scores(simulated(fits, plan, "vae_unig", SENSITIVITY_SNR, s, decoder__latents=n))
                 for s in plan.seeds for n in plan.latents}  # fmt: skip
        weights = {(w, s): scores(simulated(fits, plan, "vae_unig", SENSITIVITY_SNR, s, training__kl_weight=w))
                   for s in plan.seeds for w in plan.kl_weights}  # fmt: skip
        summary["latents"] = [{"latents": n, "seed": s} | v for (n, s), v in sizes.items()]
        summary["kl_weight"] = [{"kl_weight": w, "seed": s} | v for (w, s), v in weights.items()]
        figures.sensitivity(out, sizes, weights)
    if "brain" in parts:
        for signal in MAPPED:
            maps = {r: brain(fits, plan, r, signal) for r in ESTIMATORS}
            figures.maps(out, signal, {r: v for r, (v, _) in maps.items()}, maps["vae_gmm"][1])
            if signal == "msdki":
                real = {r: maps[r][0] for r in ("vae_unig", "vae_gmm")}
                toy = {r: simulated(fits, plan, r, plan.snrs[-1], plan.seeds[0]) for r in real}
                figures.latents(out, toy, real)
    path.write_text(json.dumps(summary, indent=1) + "\n")
    return summary


if __name__ == "__main__":
    main()
