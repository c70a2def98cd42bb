"""BIDS names and sidecars against signals."""

import json

import pytest

from pyroqmri.errors import InputError
from pyroqmri.protocol_checks.file_names import judge_files
from pyroqmri.signals import SIGNALS

RIGHT = {
    "dwi": ("msdki", "dti", "ivim", "ball_stick", "ball_sticks", "ball_sticks_gamma", "dki", "fwdti", "noddi", "adc"),
    "VFA": ("t1_vfa", "t1_vfa_free_b1"),
    "IRT1": (
        "t1_inversion",
        "t1_inversion_signed",
        "t1_inversion_ab",
        "t1_inversion_ab_signed",
        "t1_looklocker",
    ),
    "MESE": ("t2_decay", "t2_epg", "t2_epg_given_b1", "mwf", "t2_floor", "t2_biexp"),
    "cest": ("cest_lorentz", "wassr"),
}


@pytest.mark.parametrize("suffix", RIGHT)
def test_a_suffix_goes_with_its_signals_and_with_no_other(suffix, tmp_path):
    image = tmp_path / f"sub-01_acq-x_{suffix}.nii.gz"
    for signal in SIGNALS:
        found = judge_files(image, signal)
        right = signal in RIGHT[suffix] or (signal == "t2_adc" and suffix in ("dwi", "MESE"))
        assert bool(found) != right, (signal, found)
        assert right or suffix in found[0]


@pytest.mark.parametrize("name", ["sub-1_inv-1_MP2RAGE", "sub-1_UNIT1", "sub-1_MPM", "sub-1_task-rest_bold", "s_T1w"])
def test_series_that_no_signal_describes_are_named(name, tmp_path):
    (text,) = judge_files(tmp_path / f"{name}.nii.gz", "t1_inversion")
    assert name.rsplit("_", 1)[1] in text


@pytest.mark.parametrize("suffix", ["MEGRE", "T2starw"])
def test_gradient_echoes_give_t2_star(suffix, tmp_path):
    (text,) = judge_files(tmp_path / f"sub-01_{suffix}.nii.gz", "t2_decay")
    assert "use signal t2star_decay" in text
    assert judge_files(tmp_path / f"sub-01_{suffix}.nii.gz", "t2star_decay") == []


@pytest.mark.parametrize("name", ["sub-01_part-phase_MESE", "sub-01_echo-1_part-phase_MEGRE", "sub-01_phase"])
def test_phase_images_are_refused(name, tmp_path):
    with pytest.raises(InputError, match="phase"):
        judge_files(tmp_path / f"{name}.nii.gz", "t2_decay")


def test_a_simulated_scan_has_one_name_whatever_the_signal(tmp_path):
    (tmp_path / "sub-sim_dwi.json").write_text(json.dumps({"Simulated": True, "EchoTime": [0.01, 0.02]}))
    assert judge_files(tmp_path / "sub-sim_dwi.nii.gz", "t2_decay") == []


def test_the_sources_of_a_joined_series_are_looked_at(tmp_path):
    image, sidecar = tmp_path / "joined.nii.gz", tmp_path / "joined.json"
    sidecar.write_text(json.dumps({"Sources": ["s_echo-1_part-mag_MESE.nii.gz", "s_echo-1_part-phase_MESE.nii.gz"]}))
    with pytest.raises(InputError, match="s_echo-1_part-phase_MESE"):
        judge_files(image, "t2_decay")
    sidecar.write_text(json.dumps({"Sources": ["s_inv-1_MP2RAGE.nii.gz", "s_inv-2_MP2RAGE.nii.gz"]}))
    (text,) = judge_files(image, "t1_inversion")
    assert "MP2RAGE" in text
    sidecar.write_text(json.dumps({"Sources": ["s_flip-1_mt-on_MTS.nii.gz", "s_flip-1_mt-off_MTS.nii.gz"]}))
    assert any("magnetisation transfer pulse" in text for text in judge_files(image, "t1_vfa"))


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"SeriesDescription": "MOLLI 5(3)3 native"}, "molli"),
        ({"PulseSequenceType": "Look-Locker inversion recovery"}, "look-locker"),
        ({"ProtocolName": "t1_mp2rage_sag"}, "mp2rage"),
        ({"NumberShots": 176}, "NumberShots"),
    ],
)
def test_a_sidecar_that_states_readout_trains_is_noticed(entry, word, tmp_path):
    (tmp_path / "scan.json").write_text(json.dumps(entry))
    (text,) = judge_files(tmp_path / "scan.nii.gz", "t1_inversion")
    assert word in text
    assert judge_files(tmp_path / "scan.nii.gz", "t1_vfa") == []


@pytest.mark.parametrize("entry", [{"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, {"ImageType": ["PHASE"]}])
def test_a_sidecar_that_states_phase_is_refused(entry, tmp_path):
    (tmp_path / "scan.json").write_text(json.dumps(entry))
    with pytest.raises(InputError, match="ImageType"):
        judge_files(tmp_path / "scan.nii.gz", "t2_decay")


@pytest.mark.parametrize(
    "content", ["", "[1]", "{", '{"Sources": 3, "ImageType": "P", "MTState": null}', "[" * 100_000]
)
def test_a_sidecar_that_cannot_be_read_is_no_reason(content, tmp_path):
    (tmp_path / "scan.json").write_text(content)
    assert judge_files(tmp_path / "scan.nii.gz", "t2_decay") == []


@pytest.mark.parametrize("name", ["data", "T2_series", "dwi_preproc", "my-scan_echo1", "sub-01_desc-preproc_dwi"])
def test_other_names_are_let_through(name, tmp_path):
    assert judge_files(tmp_path / f"{name}.nii.gz", "dti") == []
