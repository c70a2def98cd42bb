"""Populations of prostate tissue: `hierarchical` on the decays of 149 regions, by zone, tumour and Gleason grade.

    python -m inference.prostate_rois --data DIR/prostate_multib_roi_bwh --out out/prostate_rois.json

Each group of regions is a population of its own with a learned mean and covariance of D and K (`msdki`, b up to
2 ms/um2, where the expansion holds). What is printed is the population's median with the standard error of its mean:
regions count by what they say, Fisher's information of a hierarchical normal, sum of 1 / (s^2 + v_i) over regions,
with s the population's sd and v_i the variance of a region's own estimate. It takes s for known and regions for
independent; some patients have several.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.fitting.train import MIN_VOXELS

GROUPS = {
    "normal PZ": ("normal_pz_s2", None),
    "normal TZ": ("normal_tz_s3", None),
    "tumour PZ": ("tumor_pz_s1", None),
    "tumour TZ": ("tumor_tz_s1", None),
    "tumour, 3+3 and below": ("tumor", ("3+3", "2+3", "hgpin", "0+0", "")),
    "tumour, 3+4": ("tumor", ("3+4",)),
    "tumour, 4+3 and above": ("tumor", ("4+3", "4+3+5", "4+4", "3+5")),
}
LARGEST_B = 2.01


def read_regions(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Decays over their b = 0 ``(N, M)``, b-values in ms/um2, and each region's place and patient's grade."""
    patients = json.loads((folder / "signal_decays.json").read_text())
    with (folder / "metadata.csv").open() as file:
        grades = {row["patient_id"]: row["gs"] for row in csv.DictReader(file)}
    decays, places, found = [], [], []
    bval = np.zeros(0)
    for patient, regions in patients.items():
        for region in regions.values():
            if "Neglected" in region["anatomical_region"]:
                continue
            bval = np.array(region["b_values"]) / 1000
            decays.append(np.array(region["signal_values"]) / region["signal_values"][0])
            places.append(region["anatomical_region"])
            found.append(grades.get(patient, ""))
    return np.array(decays), bval, places, found


def population(y: np.ndarray, acq: pq.Acquisition, sigma: float, seed: int) -> dict[str, Any]:
    """Median of a population, its spread, and the interval of its median, by parameter."""
    fit = pq.fit(y, acq, signal="msdki", recipe="hierarchical", likelihood="gaussian", sigma=sigma, s0="inferred",
                 seed=seed, settings={"training.steps": 400})  # fmt: skip
    assert fit.model is not None
    with torch.no_grad():
        classes = fit.model.prior.classes()
        z = classes.loc[0] + torch.randn(20_000, len(classes.loc[0])) @ classes.scale_tril[0].T
        drawn = fit.signal.constrain_tissue(z)
    single = pq.fit(y, acq, signal="msdki", recipe="least_squares", sigma=sigma, s0="inferred").posterior(y)
    record: dict[str, Any] = {"n": len(y)}
    for p in fit.signal.tissue[:2]:
        at, sd = float(drawn[p.name].median()), float(drawn[p.name].std())
        error = float((1 / (sd**2 + single.sd[p.name].square())).sum() ** -0.5)
        low, high = at - 1.64 * error, at + 1.64 * error
        record[p.name] = {"median": at, "sd": sd, "error": error, "90%": [low, high]}
        record[p.name]["least squares"] = {"median": float(single.mean[p.name].median()),
                                           "sd": float(single.mean[p.name].std())}  # fmt: skip
    return record


def main() -> None:
    """Fit each group and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the decays")
    parser.add_argument("--out", type=Path, default=Path("out/prostate_rois.json"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    decays, bval, places, grades = read_regions(arguments.data)
    kept = bval < LARGEST_B
    y, acq = decays[:, kept].astype(np.float32), pq.Acquisition(bval=bval[kept])
    # one noise level for all: what least squares leaves of all regions together
    sigma = pq.fit(y, acq, signal="msdki", recipe="least_squares", s0="inferred").sigma
    record: dict[str, Any] = {"sigma": sigma, "n": len(y)}
    for name, (place, wanted) in GROUPS.items():
        inside = [p.startswith(place) and (wanted is None or g in wanted) for p, g in zip(places, grades, strict=True)]
        if sum(inside) < MIN_VOXELS:
            record[name] = {"n": sum(inside)}
            continue
        record[name] = population(y[np.array(inside)], acq, sigma, arguments.seed)
        print(name, json.dumps(record[name]), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
