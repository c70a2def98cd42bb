"""Z-spectra: asymmetry, inverse metric, maps of the field."""

import numpy as np
import torch

import pyroqmri as pq
from pyroqmri.signals import WASSR, BoundSignal, CESTLorentz

POOLS = {"water": (0.8, 1.5, 0.0), "amide": (0.06, 1.5, 3.5), "noe": (0.09, 3.0, -3.5), "mt": (0.1, 40.0, -2.5)}


def spectrum(offset: np.ndarray, field: np.ndarray, without: str = "") -> np.ndarray:
    """Z of offsets ``(M,)`` and fields ``(N,)`` in ppm ``(N, M)``: lines subtracted one by one."""
    z = np.ones((len(field), len(offset)))
    for name, (height, width, centre) in POOLS.items():
        if name != without:
            z -= height / (1 + (2 * (offset - field[:, None] - centre) / width) ** 2)
    return z


def theta(field: float) -> dict[str, torch.Tensor]:
    named = {f"{k}_{name}": torch.tensor([v]) for name, (a, w, _) in POOLS.items() for k, v in (("A", a), ("w", w))}
    return named | {"shift": torch.tensor([field])}


def test_asymmetry_and_inverse_metric_are_those_of_the_spectrum_without_a_field():
    at, none = np.array([-3.5, 3.5]), np.zeros(1)
    (far, near), dry = spectrum(at, none)[0], spectrum(at, none, "amide")[0, 1]
    for field in (0.0, 0.4):
        found = CESTLorentz.derived(theta(field))
        np.testing.assert_allclose(found["MTRasym"], far - near, atol=1e-6)
        np.testing.assert_allclose(found["MTRrex"], 1 / near - 1 / dry, atol=1e-6)


def test_least_squares_finds_a_spectrum_wherever_the_field_has_moved_it():
    acq, field = CESTLorentz.default_protocol, np.linspace(-0.8, 0.8, 24)
    y = 1000 * spectrum(acq.offset.numpy(), field)
    mean = pq.fit(y, acq, signal="cest_lorentz", recipe="least_squares", sigma=0.5).posterior(y).mean
    np.testing.assert_allclose(mean["shift"], field, atol=2e-3)
    np.testing.assert_allclose(mean["A_amide"], 0.06, atol=4e-3)


def test_a_field_from_weak_saturation_is_the_input_of_the_spectrum():
    field, offset = np.array([-0.35, 0.1, 0.6]), WASSR.default_protocol.offset.numpy()
    weak = 1000 * (1 - 0.8 / (1 + (2 * (offset - field[:, None]) / 0.6) ** 2))
    fit = pq.fit(weak, WASSR.default_protocol, signal="wassr", recipe="least_squares", sigma=0.1)
    found = fit.posterior(weak).mean["shift"]
    np.testing.assert_allclose(found, field, atol=1e-3)
    acq = CESTLorentz.default_protocol
    signal = BoundSignal(CESTLorentz, acq, fixed={"shift": 0.0})
    still = {name: value.expand(3) for name, value in theta(0.0).items()}
    np.testing.assert_allclose(signal(still, {"B0": found}), spectrum(acq.offset.numpy(), field), atol=5e-3)
