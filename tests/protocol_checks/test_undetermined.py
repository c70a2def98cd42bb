"""Which parameters a protocol leaves open, by counting equations on paper; and common protocols, which leave none."""

import numpy as np
import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.fitting.build import build_likelihood, build_signal
from pyroqmri.fitting.schema import load_recipe
from pyroqmri.measurements.preparation import prepare_for
from pyroqmri.protocol_checks.undetermined import Undetermined, sentence, undetermined
from pyroqmri.signals import SIGNALS
from pyroqmri.signals.shells import shells as spread_shells
from tests.helpers import shells

EYE = np.concatenate([np.zeros((2, 3)), np.eye(3)])
PLANE = np.array([[0.0, 0, 0]] + [[np.cos(a), np.sin(a), 0] for a in np.linspace(0, np.pi, 12, endpoint=False)])
FLIPS = torch.deg2rad(torch.tensor([3.0, 20.0]))


def judged(
    name: str, acquisition: Acquisition, snr: float = 20, s0: str = "measured", recipe: str = "hierarchical", **fixed
) -> tuple[Undetermined, str]:
    kind = "gaussian" if SIGNALS[name].signed else load_recipe(recipe).kind("likelihood")
    plan = load_recipe(recipe, {"likelihood.kind": kind})
    y = torch.ones(4, len(acquisition))
    preparation = prepare_for(SIGNALS[name], acquisition, y, s0=s0, average="auto", magnitude=kind == "rician")
    signal = build_signal(name, acquisition, preparation, fixed, {})
    noise = SIGNALS[name].amplitude(acquisition) / snr
    found = undetermined(signal, build_likelihood(plan, acquisition, preparation), noise)
    return found, sentence(found, signal, acquisition, noise) if found.names else ""


@pytest.mark.parametrize("recipe", ["hierarchical", "least_squares"])
@pytest.mark.parametrize("snr", [20, 50, 200])
@pytest.mark.parametrize("name", SIGNALS)
def test_a_default_protocol_determines_everything(name, snr, recipe):
    open_ = judged(name, SIGNALS[name].default_protocol, snr, recipe=recipe)[0].names
    assert open_ == ()


SPARSE = {
    "dti, 6 directions and b0": ("dti", spread_shells(1, 6, 1.0)),
    "msdki, 2 shells and b0": ("msdki", shells(1, 12, 1.0, 2.0)),
    "msdki of three b-values": ("msdki", Acquisition(bval=[0.0, 1.0, 2.0])),
    "ball_stick, 30 directions": ("ball_stick", shells(2, 30, 1.0)),
    "inversion recovery of 4 times": (
        "t1_inversion",
        Acquisition(ti=[50.0, 400, 1100, 2500], tr=[2550.0] * 4),
    ),
    "inversion recovery without tr": ("t1_inversion", Acquisition(ti=[50.0, 400, 1100, 2500])),
    "two flip angles": ("t1_vfa", Acquisition(flip=FLIPS, tr=[15.0] * 2)),
    "six echoes": ("t2_decay", Acquisition(te=[10.0, 20, 30, 40, 50, 60])),
    "two echoes": ("t2_decay", Acquisition(te=[20.0, 80])),
    "ultrashort echoes, for tissue of such T2": ("t2_decay", Acquisition(te=[0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4])),
    "ivim of ten b-values": ("ivim", Acquisition(bval=[0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.4, 0.8])),
    "49 offsets": ("cest_lorentz", Acquisition(offset=np.r_[-300.0, np.arange(-6, 6.01, 0.25)])),
}


@pytest.mark.parametrize("which", SPARSE)
def test_a_sparse_protocol_that_suffices_is_left_alone(which):
    assert judged(*SPARSE[which])[0].names == ()


OPEN = {
    "one shell": ("msdki", shells(2, 30, 1.0), {"K"}),
    "one shell at another b": ("msdki", shells(4, 20, 2.5), {"K"}),
    "three directions": ("dti", Acquisition(bval=[0.0, 0, 1, 1, 1], bvec=EYE), {"Dxy", "Dxz", "Dyz", "FA", "AD", "RD"}),
    "one shell for a kurtosis tensor": ("dki", spread_shells(4, 60, 1.0), {"Wxxxx", "Wxxyy", "MK", "RK"}),
    "nine directions a shell for a kurtosis tensor": ("dki", spread_shells(4, 9, 1.0, 2.0), {"Wxxxx", "Wyyyy"}),
    "directions in one plane": (
        "dti",
        Acquisition(bval=[0.0] + [1.0] * 12, bvec=PLANE),
        {"Dzz", "Dxz", "Dyz", "MD", "FA"},
    ),
    "six directions in an unlucky arrangement": ("dti", shells(1, 6, 1.0), {"FA"}),  # whose design has rank 6 of 7
    "six equal echo times": ("t2_decay", Acquisition(te=[10.0] * 6), {"T2"}),
    "two equal flip angles": ("t1_vfa", Acquisition(flip=[0.2, 0.2], tr=[15.0] * 2), {"T1"}),
    "one inversion time": ("t1_inversion", Acquisition(ti=[800.0] * 4), {"T1", "inv_eff"}),
    "two inversion times": ("t1_inversion", Acquisition(ti=[800.0, 2700], tr=[5500.0] * 2), {"T1"}),
    "all recovered": ("t1_inversion", Acquisition(ti=[2e4, 2.5e4, 3e4, 4e4]), {"T1", "inv_eff"}),
    "no low b": ("ivim", Acquisition(bval=[0.0, 0.4, 0.8]), {"D_fast"}),
    "four b-values": ("ivim", Acquisition(bval=[0.0, 0.05, 0.4, 0.8]), {"D_fast"}),
    "five offsets": ("cest_lorentz", Acquisition(offset=[300.0, -3.5, 0, 3.5, 6]), {"A_mt", "w_water"}),
    "offsets of one side": ("cest_lorentz", Acquisition(offset=np.r_[300.0, np.arange(0, 6.1, 0.25)]), {"A_noe"}),
    "te that rises with b": ("t2_adc", Acquisition(bval=[0.0, 0.5, 1], te=[60.0, 80, 100]), {"T2"}),
    "three echoes for two pools": ("t2_biexp", Acquisition(te=[10.0, 20, 30]), {"T2_short"}),
    "six directions at SNR 20": ("ball_stick", shells(1, 6, 1.0), {"D_par"}),
}


@pytest.mark.parametrize("which", OPEN)
def test_what_a_protocol_cannot_determine_is_named(which):
    name, acquisition, expected = OPEN[which]
    found, text = judged(name, acquisition)
    assert expected <= set(found.names)
    assert all(parameter in text for parameter in expected)
    assert "status 9" in text


def test_what_the_scan_does_determine_is_not_named():
    assert set(judged("dti", OPEN["three directions"][1])[0].names).isdisjoint({"MD", "Dxx", "Dyy", "Dzz"})
    assert judged("msdki", OPEN["one shell"][1])[0].names == ("K",)


@pytest.mark.parametrize("acquisition", [shells(0, 30, 1.0), Acquisition(bval=[2.0] * 5)])
def test_one_b_value_with_s0_inferred_determines_nothing(acquisition):
    found, text = judged("msdki", acquisition, s0="inferred")
    assert set(found.names) == {"D", "K"}
    assert "1 distinct setting" in text
    assert "3 unknowns" in text


def test_a_shell_without_b0_leaves_the_ball_open():
    assert "D_iso" in judged("ball_stick", shells(0, 60, 1.0), s0="inferred")[0].names


def test_a_fixed_parameter_needs_no_measurements():
    assert judged("msdki", shells(2, 30, 1.0), K=0.7)[0].names == ()
    assert judged("t1_inversion", Acquisition(ti=[800.0, 2700], tr=[5500.0] * 2), inv_eff=1.0)[0].names == ()


def test_noise_decides_where_settings_suffice():
    acquisition = Acquisition(bval=[0.0, 0.05, 0.4, 0.8])
    assert judged("ivim", acquisition, snr=20)[0].names == ("D_fast",)
    assert judged("ivim", acquisition, snr=1000)[0].names == ()


def test_an_axis_and_its_opposite_are_one_direction():
    bvec = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    text = judged("dti", Acquisition(bval=[0.0] + [1.0] * 6, bvec=bvec))[1]
    assert "3 directions" in text
    assert "4 distinct settings" in text
