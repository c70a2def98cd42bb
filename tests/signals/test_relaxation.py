"""Relaxation and saturation: limits that can be worked out on paper, S0, inputs."""

import math

import pytest
import torch

import pyroqmri as pq
from pyroqmri import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.measurements.voxel_inputs import complete_inputs
from pyroqmri.signals import IVIM, SIGNALS, T1VFA, T2ADC, BoundSignal, CESTLorentz, T1Inversion, T2Biexp, T2Decay
from tests.helpers import rician

RELAXING = [name for name, signal in SIGNALS.items() if not signal.measures_s0()]


def at(signal, acq, **theta):
    return BoundSignal(signal, acq)({k: torch.tensor([v]) for k, v in theta.items()})[0]


def test_magnitudes_vanish_where_the_signal_crosses_zero():
    acq = Acquisition(ti=[1000 * math.log(2), 1e5])
    torch.testing.assert_close(
        at(T1Inversion, acq, T1=1000.0, inv_eff=1.0), torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0
    )


def test_half_an_inversion_is_saturation():
    acq = Acquisition(ti=[300.0], tr=[2000.0])
    torch.testing.assert_close(at(T1Inversion, acq, T1=1000.0, inv_eff=0.5), torch.tensor([1 - math.exp(-0.3)]))


def test_the_ernst_angle_is_the_brightest():
    angles = torch.linspace(0.02, 0.6, 400)
    signal = at(T1VFA, Acquisition(flip=angles, tr=torch.full((400,), 15.0)), T1=1000.0)
    assert abs(float(angles[signal.argmax()]) - math.acos(math.exp(-0.015))) < 0.002
    torch.testing.assert_close(
        T1VFA.amplitude(Acquisition(flip=angles, tr=torch.full((400,), 15.0))), float(signal.max())
    )


def test_b1_scales_flip_angles():
    acq, turned = (Acquisition(flip=[0.1 * s, 0.3 * s], tr=[15.0, 15.0]) for s in (1, 1.2))
    theta = {"T1": torch.tensor([1000.0])}
    with_map = BoundSignal(T1VFA, acq)(theta, {"B1": torch.tensor([1.2])})
    torch.testing.assert_close(with_map, BoundSignal(T1VFA, turned)(theta))


def test_the_pools_of_a_biexponential_cannot_change_places():
    theta = BoundSignal(T2Biexp, Acquisition(te=[10.0, 20, 40])).constrain(3 * torch.randn(5000, 3))
    assert (theta["T2_long"] >= theta["T2_short"]).all()


def test_a_lorentzian_falls_to_half_its_height_at_half_its_width():
    acq = Acquisition(offset=[0.1, 0.9, 300.0])
    off = {f"A_{k}": 0.0 for k in ("amide", "noe", "mt")} | {"w_amide": 1.0, "w_noe": 3.0, "w_mt": 40.0}
    z = at(CESTLorentz, acq, A_water=0.8, w_water=1.6, shift=0.1, **off)
    torch.testing.assert_close(z, torch.tensor([0.2, 0.6, 1.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", RELAXING)
def test_s0_is_inferred_where_no_measurement_is_s0(name):
    if name.startswith("mp2rage"):
        pytest.skip("a ratio of measurements has no S0; tests/signals/test_mp2rage.py has its own")
    acq = Acquisition(bval=[0.0, 1], te=[60.0, 90], ti=[100.0, 900], tr=[15.0, 15], flip=[0.1, 0.3], mt=[0.0, 1])
    y = torch.rand(20, 2) + 0.5
    found = prepare_for(SIGNALS[name], acq, y, s0="measured", average="auto", magnitude=False)
    assert found.s0 == "inferred"
    assert len(found.seen(acq).groups) == 2
    known = prepare_for(SIGNALS[name], acq, y, s0=700.0, average="auto", magnitude=False)
    assert (known.s0, known.scale) == (700.0, 700.0)


def test_which_signals_can_measure_s0():
    assert {name for name in SIGNALS if name not in RELAXING} >= {"msdki", "ball_stick", "dti", "ivim", "cest_lorentz"}
    assert {"t2_adc", "t1_inversion", "t1_vfa", "t2_decay", "t2_biexp"} <= set(RELAXING)
    acq = Acquisition(bval=[0.3, 0.9])
    preparation = prepare_for(IVIM, acq, torch.ones(3, 2), s0="measured", average="auto", magnitude=True)
    assert preparation.s0 == "inferred"
    assert "the lowest b-value is 300 s/mm2" in preparation.note(acq)


def test_saturation_far_off_measures_s0():
    acq = Acquisition(offset=[-300.0, -3.5, 0, 3.5, 300])
    preparation = prepare_for(CESTLorentz, acq, torch.ones(3, 5), s0="measured", average="auto", magnitude=True)
    batch = preparation(torch.tensor([[200.0, 80, 20, 70, 200]]), torch.tensor(1e-3), acq)
    torch.testing.assert_close(batch.voxels.y, torch.tensor([[0.4, 0.1, 0.35]]), atol=1e-4, rtol=0)
    near = Acquisition(offset=[-3.5, 0, 3.5])
    preparation = prepare_for(CESTLorentz, near, torch.ones(3, 3), s0="measured", average="auto", magnitude=True)
    assert preparation.s0 == "inferred"
    assert "only beyond 20 is it S0" in preparation.note(near)


@pytest.mark.parametrize(
    ("signal", "inputs", "said"),
    [
        (T1VFA, {"B1": torch.ones(3)}, r"input B1 has shape \(3,\) for 4 voxels"),
        (T1VFA, {"B1": torch.tensor([-1.0, 0, 0, torch.nan])}, "input B1 has no value .* in any of the 4 voxels"),
        (T1VFA, {"b1": torch.ones(4)}, "inputs names 'b1', and T1VFA takes B1"),
        (T2Decay, {"B1": torch.ones(4)}, "inputs names 'B1', and T2Decay takes none"),
    ],
)
def test_inputs_that_do_not_fit_are_said(signal, inputs, said):
    with pytest.raises(InputError, match=said):
        complete_inputs(signal, inputs, 4)
    assert complete_inputs(T1VFA, {}, 4)["B1"].tolist() == [1.0] * 4


@pytest.mark.slow
def test_an_encoder_hears_of_b1():
    generator = torch.Generator().manual_seed(0)
    acq = Acquisition(flip=[0.05, 0.1, 0.2, 0.35], tr=[15.0] * 4)
    T1, B1 = 1000 + 150 * torch.randn(800, generator=generator), 0.8 + 0.4 * torch.rand(800, generator=generator)
    clean = BoundSignal(T1VFA, acq)({"T1": T1}, {"B1": B1})
    y, inputs = rician(clean, float(clean.max()) / 60), {"B1": B1}
    fit = pq.fit(y, acq, signal="t1_vfa", recipe="vae_unig", sigma=float(clean.max()) / 60, inputs=inputs,
                 settings={"training.steps": 300})  # fmt: skip
    off = fit.posterior(y, inputs=inputs).mean["T1"] / T1 - 1
    # without B1 the flip angles are off by up to 20 %, and T1 by up to 40 %
    assert off.abs().median() < 0.08
    assert abs(float(torch.corrcoef(torch.stack([off, B1]))[0, 1])) < 0.3
    with pytest.raises(InputError, match="trained with the inputs B1"):
        fit.posterior(y)


def test_two_echo_times_and_two_b_values_give_both_times():
    acq = Acquisition(bval=[0.0, 1, 0, 1], te=[60.0, 60, 100, 100])
    y = 900 * at(T2ADC, acq, T2=80.0, D=0.9)[None].expand(12, 4)
    found = pq.fit(y, acq, signal="t2_adc", recipe="least_squares", sigma=1.0).posterior(y)
    torch.testing.assert_close(found.mean["T2"], torch.full((12,), 80.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.mean["D"], torch.full((12,), 0.9), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.mean["S0"], torch.full((12,), 900.0), rtol=1e-3, atol=0)
