"""More of :mod:`benchmarks.fits`: Rician likelihoods, real relaxometry, how time and memory grow."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyroqmri as pq
from benchmarks import scipy_fits
from benchmarks.fits import IVIM_B, Problem, magnitudes, seconds, truth
from pyroqmri.signals import IVIM, MSDKI, BoundSignal

SHARED = Path(os.environ.get("PYROQMRI_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def rician() -> dict[str, Any]:
    """Rician maximum likelihood against scipy, and the bias that it removes."""
    found: dict[str, Any] = {}
    msdki_b = np.repeat([0.0, 1.0, 2.0, 3.0], [6, 30, 30, 30])
    cases = [
        ("ivim", IVIM, IVIM_B, snr, [[0, 4, 0.01], [1.0, 1000, 4.0]], scipy_fits.ivim(IVIM_B)) for snr in (15, 30)
    ] + [("msdki", MSDKI, msdki_b, snr, [[0, -1], [4, 3]], scipy_fits.msdki(msdki_b)) for snr in (10, 20)]
    starts = {
        "ivim": [(0.1, 20.0, 1.0), (0.3, 60.0, 0.5), (0.5, 6.0, 0.3), (0.05, 150.0, 1.5)],
        "msdki": [(1.0, 0.8), (0.7, 0.3)],
    }
    for name, model, bval, snr, box, signal in cases:
        acq, bounds, n, sigma = pq.Acquisition(bval=bval), np.array(box), 1000, 1 / snr
        y = magnitudes(BoundSignal(model, acq)(truth(name, 10_000)), sigma, 1)
        problem = Problem(name, acq, y, sigma, "maximum_likelihood")
        spent, fitted = seconds(problem)
        names = [p.name for p in model.parameters]
        ours = torch.stack([fitted.theta[k] for k in names], -1).double().numpy()[:n]
        v = problem.batch.voxels.y[:n].double().numpy()
        begin = time.process_time()
        exact = [scipy_fits.maximum_likelihood(signal, one, sigma, starts[name], bounds) for one in v]
        theirs = time.process_time() - begin
        exact = [scipy_fits.polished(signal, one, sigma, e[0], bounds) for one, e in zip(v, exact, strict=True)]
        loss = np.array([scipy_fits.rician_nll(signal(t), one, sigma) for t, one in zip(ours, v, strict=True)])
        best = np.array([e[1] for e in exact])
        other = np.array([e[0] for e in exact])
        apart = np.abs(ours - other) / (bounds[1] - bounds[0])
        if name == "ivim":  # without a fast pool its diffusivity is nowhere in the signal
            apart[(ours[:, 0] < 1e-3) & (other[:, 0] < 1e-3), 1] = 0
        # parameters that the data do not determine may differ where the likelihood is as high or higher
        found[f"{name} SNR {snr}"] = {
            "voxels/s": round(len(y) / spent),
            "scipy voxels/s, all starts": round(n / theirs, 1),
            "all parameters within 1e-2 of the box of scipy's": float((apart.max(1) < 1e-2).mean()),
            "the same, or as likely to 1e-3 nats": float(((apart.max(1) < 1e-2) | (loss <= best + 1e-3)).mean()),
            "nats lower than scipy's by over 1e-3": float((loss > best + 1e-3).mean()),
            "nats higher than scipy's by over 1e-3": float((loss < best - 1e-3).mean()),
            "converged": float(fitted.converged.float().mean()),
        }
    return found | {"bias": _bias()}


def _bias() -> dict[str, Any]:
    """Median estimate minus truth of one tissue measured 4,000 times."""
    found = {}
    for name, model, bval, snr, theta in (
        ("ivim", IVIM, np.append(np.repeat(IVIM_B, 4), [1.5, 2.0, 2.5] * 4), 10, (0.15, 30.0, 1.5)),
        ("msdki", MSDKI, np.repeat([0.0, 1.0, 2.0, 3.0], [6, 30, 30, 30]), 5, (1.0, 0.8)),
    ):
        acq = pq.Acquisition(bval=bval)
        true = {p.name: torch.full((4000,), t) for p, t in zip(model.parameters, theta, strict=True)}
        y = magnitudes(BoundSignal(model, acq)(true), 1 / snr, 2)
        for recipe, settings in (("least_squares", {"method": "levenberg_marquardt"}), ("maximum_likelihood", {})):
            fitted = Problem(name, acq, y, 1 / snr, recipe)(**settings)
            found[f"{name} SNR {snr} {recipe}"] = {
                k: round(float(fitted.theta[k].median() - t), 4) for k, t in zip(true, theta, strict=True)
            }
    return found


def relaxation() -> dict[str, Any]:
    """T1 and T2 of real slices against a scipy fit of each voxel."""
    import nibabel as nib

    found: dict[str, Any] = {}
    for name, folder, times, signal in (
        ("T1", "t1_ir_brain_santini", "TI_ms.txt", "t1_inversion_signed"),
        ("T2", "t2_se_brain_santini", "TE_ms.txt", "t2_decay"),
    ):
        image = np.asarray(nib.load(SHARED / folder / "data.nii.gz").dataobj, np.float32)
        mask = np.asarray(nib.load(SHARED / folder / "mask_derived.nii.gz").dataobj) > 0
        y, t = torch.from_numpy(image[mask]), np.loadtxt(SHARED / folder / times).ravel()
        if name == "T1":
            acq, bounds = pq.Acquisition(ti=t, tr=np.full_like(t, 15000.0)), [[10, 0.4, 0], [6000, 1.5, 4]]
            reference, starts = scipy_fits.inversion(t, 15000.0), [(900, 0.95, 0.8), (2500, 0.9, 0.8), (300, 0.95, 0.5)]
        else:
            acq, bounds = pq.Acquisition(te=t), [[0.05, 0], [5000, 4]]
            reference, starts = scipy_fits.decay(t), [(80, 0.8), (300, 0.5), (20, 1.0)]
        fit = pq.fit(y, acq, signal=signal, recipe="least_squares", s0="inferred")
        spent, post = seconds(lambda f=fit, v=y: f.posterior(v))
        status = post.status.numpy()
        pick = np.flatnonzero(np.isin(status, (1, 7)))
        pick = np.random.default_rng(0).permutation(pick)[:1000]
        v, ours = y.double().numpy() / fit.preparation.scale, post.mean[name].double().numpy()
        exact = np.array([scipy_fits.least_squares(reference, v[i], starts, np.array(bounds))[0][0] for i in pick])
        found[name] = {
            "voxels": len(y),
            "us a voxel": round(1e6 * spent / len(y), 1),
            "median, ms": round(float(np.nanmedian(ours[status == 1])), 1),
            "quartiles, ms": np.nanquantile(ours[status == 1], (0.25, 0.75)).round(1).tolist(),
            "share by status": {int(s): round(float((status == s).mean()), 4) for s in np.unique(status)},
            "within 1 % of scipy, of 1,000 voxels inside their bounds": float(
                (np.abs(ours[pick] / exact - 1) < 0.01).mean()
            ),
        }
    return found


def scaling() -> dict[str, Any]:
    """Cost a voxel and peak memory from 1e3 to 1e6 voxels, each in a process of its own."""
    rows = []
    for recipe, n in [("least_squares", 10**k) for k in (3, 4, 5, 6)] + [
        ("maximum_likelihood", 10**k) for k in (3, 4, 5)
    ]:
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.fits_size", recipe, str(n)], capture_output=True, text=True, check=True
        )
        us, before, after = (float(x) for x in out.stdout.split())
        rows.append({"recipe": recipe, "voxels": n, "us a voxel": us, "MB before": before, "MB at most": after})
    return {"signal": "ivim, 10 b-values, float32 measurements held in memory", "rows": rows}


def threads() -> dict[str, Any]:
    """Wall seconds with one thread, two threads, and two processes of half the voxels."""
    n, command = 40_000, [sys.executable, "-m", "benchmarks.fits_size", "least_squares"]
    found: dict[str, Any] = {"voxels": n, "load average before": [round(x, 1) for x in os.getloadavg()]}
    for name, count, processes in (("one thread", "1", 1), ("two threads", "2", 1), ("two processes", "1", 2)):
        env = os.environ | {"OMP_NUM_THREADS": count, "FITS_WALL": "1"}
        running = [
            subprocess.Popen([*command, str(n // processes)], env=env, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        spent = [float(p.communicate()[0].split()[0]) * n / processes / 1e6 for p in running]
        found[f"{name}, wall seconds"] = round(max(spent), 2)
    return found


SECTIONS = {"rician": rician, "relaxation": relaxation, "scaling": scaling, "threads": threads}
