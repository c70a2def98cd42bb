"""Tissue at the far ends of what is measured lies inside the bounds, and is found."""

import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.measurements.status import AT_BOUND

ULTRASHORT = [0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4, 2.5]  # ms
LOW_B = [0, 2, 5, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 500, 600, 800]  # s/mm2
RECOVERY = [50.0, 100, 200, 400, 700, 1100, 1700, 2600, 4000, 6000]
PPM = np.arange(-8, 8.25, 0.25)


def decay(te, T2, **rest):
    return np.exp(-te / T2) * np.exp(-rest.get("bval", 0) * rest.get("D", 0))


def two_decays(te, f, T2_short, T2_long):
    return f * np.exp(-te / T2_short) + (1 - f) * np.exp(-te / T2_long)


def perfused(bval, f, D_fast, D_slow):
    return (1 - f) * np.exp(-bval * D_slow) + f * np.exp(-bval * (D_fast + D_slow))


def free_recovery(ti, T1, inv_eff):
    """a + b exp(-TI/T1), of which b is -2 inv_eff a."""
    return np.abs(1 - 2 * inv_eff * np.exp(-ti / T1))


def spectrum(offset, shift):
    line = lambda at, height, width: height / (1 + (2 * (offset - shift - at) / width) ** 2)  # noqa: E731
    return 1 - line(0, 0.8, 1.5) - line(3.5, 0.06, 1.5) - line(-3.5, 0.1, 3) - line(-2.5, 0.1, 40)


def spoiled(flip, tr, T1):
    e = np.exp(-tr / T1)
    return np.sin(flip) * (1 - e) / (1 - np.cos(flip) * e)


def at(setting, values, **more):
    return {setting: np.array(values, float)} | {k: np.array(v, float) for k, v in more.items()}


B = at("bval", np.array(LOW_B) / 1000)
SCANS = {
    "cortical bone": ("t2_decay", at("te", ULTRASHORT), decay, {"T2": 0.4}),
    "dentine": ("t2_decay", at("te", ULTRASHORT), decay, {"T2": 0.2}),
    "tendon": ("t2_decay", at("te", ULTRASHORT), decay, {"T2": 0.8}),
    "fluid": ("t2_decay", at("te", np.arange(100, 3100, 200)), decay, {"T2": 2500.0}),
    "bone water beside marrow": (
        "t2_biexp", at("te", [*ULTRASHORT, 5, 10, 15, 20]), two_decays, {"f": 0.7, "T2_short": 0.4, "T2_long": 12.0},
    ),
    "tendon under diffusion": (
        "t2_adc", at("te", ULTRASHORT * 2, bval=[0.0] * 8 + [0.5] * 8), decay, {"T2": 0.9, "D": 1.0},
    ),
    "kidney": ("ivim", B, perfused, {"f": 0.85, "D_fast": 30.0, "D_slow": 1.6}),
    "placenta": ("ivim", B, perfused, {"f": 0.9, "D_fast": 20.0, "D_slow": 1.7}),
    "kidney in systole": ("ivim", B, perfused, {"f": 0.75, "D_fast": 60.0, "D_slow": 1.8}),
    "liver": ("ivim", B, perfused, {"f": 0.25, "D_fast": 300.0, "D_slow": 1.1}),
    "liver, faster": ("ivim", B, perfused, {"f": 0.3, "D_fast": 450.0, "D_slow": 1.0}),
    "spleen": ("ivim", B, perfused, {"f": 0.2, "D_fast": 230.0, "D_slow": 0.9}),
    "b above 2a": ("t1_inversion", at("ti", RECOVERY), free_recovery, {"T1": 900.0, "inv_eff": 1.12}),
    "b well above 2a": ("t1_inversion", at("ti", RECOVERY), free_recovery, {"T1": 1300.0, "inv_eff": 1.3}),
    "saturation recovery": ("t1_inversion", at("ti", RECOVERY), free_recovery, {"T1": 1000.0, "inv_eff": 0.5}),
    "fat": ("t1_inversion", at("ti", RECOVERY), free_recovery, {"T1": 250.0, "inv_eff": 0.95}),
    "blood with contrast agent": (
        "t1_vfa", at("flip", np.radians([3, 6, 10, 15, 20, 40]), tr=[5.0] * 6), spoiled, {"T1": 40.0},
    ),
    "shimmed badly": ("cest_lorentz", at("offset", [300.0, 300, *PPM]), spectrum, {"shift": 1.5}),
    "shimmed worse": ("cest_lorentz", at("offset", [300.0, 300, *PPM]), spectrum, {"shift": -2.2}),
}  # fmt: skip


@pytest.mark.parametrize("name", SCANS)
def test_tissue_at_the_ends_is_found_inside_the_bounds(name):
    signal, settings, physics, truth = SCANS[name]
    rng = np.random.default_rng(3)
    clean = 1000 * np.broadcast_to(physics(**settings, **truth), (60, len(next(iter(settings.values())))))
    if signal == "cest_lorentz":
        clean = np.where(settings["offset"] > 20, 1000.0, clean)
    y = np.hypot(clean + 10 * rng.standard_normal(clean.shape), 10 * rng.standard_normal(clean.shape))
    acq = pq.Acquisition(**{k: torch.tensor(v) for k, v in settings.items()})
    fit = pq.fit(torch.tensor(y).float(), acq, signal=signal, recipe="maximum_likelihood", sigma=10.0,
                 s0="measured" if signal == "cest_lorentz" else "inferred")  # fmt: skip
    found = fit.posterior(torch.tensor(y).float())
    if signal != "cest_lorentz":  # whose broad pools may end anywhere
        assert (found.status == AT_BOUND).float().mean() < 0.05
    for parameter, value in truth.items():
        values = found.mean[parameter]
        # the median of 60 has 1.25/sqrt(60) of their standard deviation: four of these
        spread = (values.quantile(0.84) - values.quantile(0.16)) / 2
        assert abs(values.median() - value) < max(0.65 * float(spread), 0.01 * abs(value)), (parameter, values.median())
        assert spread < 0.35 * abs(value)
