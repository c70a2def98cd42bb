"""What you get on real scans: least squares and `hierarchical` on measured data, maps as pictures, medians as JSON.

    python -m inference.real_scans --data DIR --out out/real_scans
    python -m inference.real_scans --data DIR --out out/real_scans --only t1_brain

DIR holds one folder a scan. A scan is fitted in memory; `pyroqmri fit` writes the same maps as NIfTI with a report.
The page that came of it is `docs/real_scans.md`.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.commands.demo.quarter import tissues
from pyroqmri.commands.noise import given_noise
from pyroqmri.io import Scan, read_scan
from pyroqmri.signals import SIGNALS

RECIPES = ("least_squares", "hierarchical")
Maps = dict[str, np.ndarray]
Region = Callable[[Scan, Maps], Maps]


def whole(_: Scan, maps: Maps) -> Maps:
    """All fitted voxels."""
    return {"all": np.isfinite(next(iter(maps.values())))}


def cord(scan: Scan, _: Maps) -> Maps:
    """Tissue, which keeps half of its signal up to the largest b; fluid and flow do not."""
    bval = scan.acquisition.bval
    assert bval is not None
    kept = scan.y[:, int(bval.argmax())] / np.maximum(scan.y[:, int(bval.argmin())], 1e-6)
    return {"keeps half its signal": kept > 0.5, "loses more": kept <= 0.5}


def brain_by_tensor(scan: Scan, _: Maps) -> Maps:
    """White matter, by the tensor of the lower b-values."""
    return {"white matter": tissues(scan)["white matter"]}


def brain_by_t1(_: Scan, maps: Maps) -> Maps:
    """The two peaks of T1: between 500 and 1,000 ms, and between 1,000 and 1,600 ms."""
    T1 = maps["T1"]
    return {"T1 500-1000 ms": (T1 > 500) & (T1 < 1000), "T1 1000-1600 ms": (T1 > 1000) & (T1 < 1600)}


@dataclass(frozen=True)
class Case:
    """A scan, how it is fitted, what is shown of it, and where medians are taken."""

    folder: str
    image: str
    signal: str
    shown: dict[str, tuple[float, float]]
    regions: Region = whole
    mask: str | None = None
    largest_b: float | None = None
    times: dict[str, float] = field(default_factory=dict)  # settings that no file holds, the same for every volume
    arguments: dict[str, Any] = field(default_factory=dict)
    slice: int = 0
    air: bool = True  # what lies outside the mask may be taken for noise


CASES = {
    "ivim_cord": Case(
        "ivim_spinalcord_7T", "dwi_rl.nii.gz", "ivim", {"f": (0, 0.5), "D_fast": (0, 40), "D_slow": (0, 2)},
        cord, "mask_rl.nii.gz", arguments={"s0": "inferred"}, slice=2,
    ),
    "t1_brain": Case(
        "t1_ir_brain_santini", "data.nii.gz", "t1_inversion_signed", {"T1": (0, 3000), "inv_eff": (0.8, 1.1)},
        brain_by_t1, "mask_derived.nii.gz", times={"tr": 15000.0}, arguments={"likelihood": "gaussian"},
    ),
    "t2_brain": Case(
        "t2_se_brain_santini", "data.nii.gz", "t2_decay", {"T2": (0, 200)}, mask="mask_derived.nii.gz",
    ),
    "t2_prostate": Case(
        "t2_mese_prostate_bolan", "data.nii.gz", "t2_decay", {"T2": (0, 250)},
        arguments={"settings": {"data.first_echo": 2}}, air=False,
    ),
    "t1_brain_ab": Case(
        "t1_ir_brain_santini", "data.nii.gz", "t1_inversion_ab_signed", {"T1": (0, 3000)}, brain_by_t1,
        "mask_derived.nii.gz", arguments={"likelihood": "gaussian"},
    ),
    "t2_prostate_epg": Case(
        "t2_mese_prostate_bolan", "data.nii.gz", "t2_epg", {"T2": (0, 250), "B1": (0.4, 1.0)}, air=False,
    ),
    "dti_brain": Case(
        "mdt_b1k_b2k", "dwi.nii.gz", "dti", {"FA": (0, 1), "MD": (0, 2), "AD": (0, 2.5)}, brain_by_tensor,
        "mask.nii.gz", largest_b=1.2,
    ),
    "msdki_brain": Case(
        "mdt_multishell_b6k", "dwi.nii.gz", "msdki", {"D": (0, 2), "K": (0, 1.5)}, brain_by_tensor, "mask.nii.gz",
        largest_b=2.5,
    ),
}  # fmt: skip


def read_case(case: Case, data: Path) -> Scan:
    """The scan, with its volumes up to the largest b-value."""
    folder = data / case.folder
    signal = SIGNALS[case.signal]
    mask = None if case.mask is None else folder / case.mask
    scan = read_scan(folder / case.image, mask=mask, need=signal.requires)
    settings, y = scan.acquisition.settings(), scan.y
    settings |= {name: torch.full((len(scan.acquisition),), value) for name, value in case.times.items()}
    acquisition = pq.Acquisition(**settings)
    if case.largest_b is not None:
        assert acquisition.bval is not None
        kept = acquisition.bval < case.largest_b
        acquisition, y = acquisition[kept], y[:, kept.numpy()]
    return Scan(y, scan.mask, acquisition, scan.ref, scan.notes, scan.background)


def fit_case(case: Case, scan: Scan, recipe: str) -> tuple[Maps, Maps, dict[str, Any]]:
    """Means and standard deviations by parameter ``(N,)``, and what is worth noting."""
    begin = time.monotonic()
    arguments = case.arguments if recipe != "least_squares" else {**case.arguments, "likelihood": "gaussian"}
    sigma = given_noise(scan, "estimate") if case.air else None
    fit = pq.fit(scan.y, scan.acquisition, signal=case.signal, recipe=recipe, sigma=sigma, **arguments)
    posterior = fit.posterior(scan.y)
    codes, counts = np.unique(posterior.status.numpy(), return_counts=True)
    said = {
        "seconds": round(time.monotonic() - begin, 1),
        "voxels": len(scan.y),
        "sigma": fit.sigma_record,
        "status": {str(code): round(float(n) / len(scan.y), 4) for code, n in zip(codes, counts, strict=True)},
    }
    mean, sd = ({k: v.numpy() for k, v in found.items()} for found in (posterior.mean, posterior.sd))
    return mean, sd, said


def run_case(name: str, data: Path, out: Path) -> dict[str, Any]:
    """Fit a scan with every recipe; draw its maps, and note medians by region."""
    case = CASES[name]
    scan = read_case(case, data)
    record: dict[str, Any] = {}
    drawn = {}
    regions = None
    for recipe in RECIPES:
        mean, sd, said = fit_case(case, scan, recipe)
        drawn[recipe] = mean, sd
        regions = case.regions(scan, mean) if regions is None else regions
        record[recipe] = said | {
            region: {p: summary(mean[p][where], sd[p][where]) for p in case.shown} | {"n": int(where.sum())}
            for region, where in regions.items()
        }
        print(name, recipe, json.dumps(record[recipe]), flush=True)
    draw(out / f"{name}.png", case, scan, drawn)
    return record


def summary(mean: np.ndarray, sd: np.ndarray) -> dict[str, float]:
    """Median and quartiles of the estimates, and the median of their standard deviations."""
    first, median, third = np.nanquantile(mean, [0.25, 0.5, 0.75])
    return {"median": float(median), "q25": float(first), "q75": float(third), "sd": float(np.nanmedian(sd))}


def draw(path: Path, case: Case, scan: Scan, drawn: dict[str, tuple[Maps, Maps]]) -> None:
    """One row a recipe; a parameter's map and its standard deviation, a quarter of the range, side by side."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(drawn), 2 * len(case.shown), figsize=(4.2 * len(case.shown), 4.6), squeeze=False)
    for row, (recipe, (mean, sd)) in zip(axes, drawn.items(), strict=True):
        for i, (p, (low, high)) in enumerate(case.shown.items()):
            for ax, values, ends, title in (
                (row[2 * i], mean[p], (low, high), p),
                (row[2 * i + 1], sd[p], (0, (high - low) / 4), f"sd of {p}"),
            ):
                volume = np.full(scan.mask.shape, np.nan)
                volume[scan.mask] = values
                picture = volume[:, :, case.slice].T
                shown = ax.imshow(picture, origin="lower", vmin=ends[0], vmax=ends[1], cmap="viridis")
                ax.set_title(f"{title}, {recipe.replace('_', ' ')}", fontsize=7)
                ax.axis("off")
                figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.02).ax.tick_params(labelsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Fit every scan, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the scans")
    parser.add_argument("--out", type=Path, default=Path("out/real_scans"))
    parser.add_argument("--only", nargs="*", choices=[*CASES], default=[*CASES])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "real_scans.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.only:
        record[name] = run_case(name, arguments.data, arguments.out)
        path.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
