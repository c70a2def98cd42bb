"""Settings that contradict one another, that vary unused, and the inversion times of readout trains."""

import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.errors import InputError
from pyroqmri.protocol_checks.settings import check_times, look_locker, unused_settings
from pyroqmri.signals import SIGNALS
from tests.helpers import shells


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"ti": [500.0, 2500.0], "tr": [2000.0, 2000.0]}, ("ti", "tr")),
        ({"te": [10.0, 90.0], "tr": [50.0, 50.0]}, ("te", "tr")),
        ({"ti": [800.0, 2700.0], "tr": [6.2, 6.2]}, ("ti", "tr")),
        ({"te": [15.0], "tr": [15.0]}, ("te", "tr")),
    ],
)
def test_a_time_that_does_not_fit_into_the_repetition_is_refused(settings, names):
    with pytest.raises(InputError) as error:
        check_times(Acquisition(**settings))
    assert all(f"{name} " in str(error.value) for name in names)


def test_times_that_fit_are_let_through():
    check_times(Acquisition(ti=[50.0, 2400], tr=[2550.0] * 2, te=[14.0] * 2))
    check_times(shells(1, 6, 1.0))


VARYING = {
    "te over a diffusion scan": ("msdki", {"bval": [0.0, 1, 2], "te": [60.0, 60, 90]}, "te", "t2_adc"),
    "flip angle in a T2 series": ("t2_decay", {"te": [10.0, 20, 30], "flip": [0.2, 0.2, 0.4]}, "flip", None),
    "b in a T2 series": ("t2_decay", {"te": [10.0, 20, 30], "bval": [0.0, 0, 1]}, "bval", "t2_adc"),
    "te in a series of flip angles": ("t1_vfa", {"flip": [0.1, 0.3], "tr": [15.0] * 2, "te": [2.0, 4.0]}, "te", None),
    "ti over a Z-spectrum": ("cest_lorentz", {"offset": [-3.0, 3.0], "ti": [100.0, 900.0]}, "ti", None),
}


@pytest.mark.parametrize("which", VARYING)
def test_a_setting_that_varies_unused_is_named_with_its_values(which):
    signal, settings, name, better = VARYING[which]
    (text,) = unused_settings(Acquisition(**settings), signal)
    assert text.startswith(f"{name} ")
    assert signal in text
    assert better is None or better in text


@pytest.mark.parametrize("name", SIGNALS)
def test_default_protocols_use_what_varies(name):
    acquisition = SIGNALS[name].default_protocol
    assert unused_settings(acquisition, name) == []
    assert look_locker(acquisition, name) == []
    check_times(acquisition)


def test_constant_and_jittered_settings_are_let_through():
    constant = Acquisition(te=[10.0, 20, 30], tr=[2000.0, 2010.0, 1990.0], flip=[1.57] * 3)
    assert unused_settings(constant, "t2_decay") == []
    assert unused_settings(shells(2, 6, 1.0), "msdki") == []  # directions are averaged over


MOLLI = {
    "5(3)3": [120.0, 1120, 2120, 3120, 4120, 200, 1200, 2200],
    "3(3)3(3)5": [100.0, 1100, 2100, 200, 1200, 2200, 350, 1350, 2350, 3350, 4350],
    "fast heart": [100.0, 180, 260, 750, 830, 910, 1400, 2050],
    "slow heart": [100.0, 180, 260, 1100, 1180, 1260, 2100, 3100],
}


@pytest.mark.parametrize("which", MOLLI)
def test_readout_trains_over_heart_beats_are_noticed(which):
    (text,) = look_locker(Acquisition(ti=MOLLI[which]), "t1_inversion")
    assert "T1*" in text
    assert len(look_locker(Acquisition(ti=MOLLI[which]), "t1_inversion_signed")) == 1


@pytest.mark.parametrize(
    "ti",
    [
        [50.0, 400, 1100, 2500],
        [50.0, 150, 300, 600, 1000, 1700, 2800, 4500],
        [350.0, 500, 650, 800, 950, 1100, 1250, 1400, 1700],
        list(range(100, 3001, 100)),
        [25.0, 50, 100, 200, 400, 800, 1600, 3200],
        [30.0, 530, 1030, 1530],
        [30.0, 150, 500, 1000, 1500, 2000, 2500, 3000],
        [50.0, 200, 400, 800, 1100, 2000, 2500],
        [23.0, 100, 250, 500, 1000, 2000, 4000],
        torch.logspace(1.5, 3.6, 20).tolist(),
        torch.linspace(50, 4000, 14).tolist(),
    ],
)
def test_separate_inversions_are_let_through(ti):
    assert look_locker(Acquisition(ti=ti), "t1_inversion") == []
