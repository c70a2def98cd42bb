"""Volumes are left out before anything is judged, by number or by b-value, and a fit remembers which."""

import json
from dataclasses import fields, replace

import nibabel as nib
import numpy as np
import pytest
import torch

from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import ScanFiles, apply_image, fit_image
from pyroqmri.commands.apply import on_scan
from pyroqmri.commands.left_out import left_out_record, number_ranges, option, volume_numbers
from pyroqmri.errors import InputError
from pyroqmri.fitting.train import fit
from pyroqmri.io.gradients import Gradients
from pyroqmri.protocol_checks.reach import beyond_reach
from pyroqmri.signals import SIGNALS, BoundSignal
from tests.helpers import sphere
from tests.small_scan import SmallScan, sticks, write_scan

pytestmark = pytest.mark.usefixtures("no_pages")


def appended(scan: SmallScan, values: np.ndarray, b: float, g: tuple[float, float, float]) -> ScanFiles:
    """The scan with one more volume ``(X, Y, Z)``."""
    scan.write_image(np.concatenate([scan.values, values[..., None]], -1))
    scan.write_gradients(np.r_[scan.b, b], np.r_[scan.g, [g]])
    return scan.files


@pytest.fixture
def scan(tmp_path) -> SmallScan:
    return write_scan(tmp_path / "in")


def record_of(folder):
    return json.loads((folder / "fit" / "fit.json").read_text())


def test_numbers_and_ranges():
    assert np.flatnonzero(volume_numbers("3, 7-9,12", 13)).tolist() == [3, 7, 8, 9, 12]
    for wish, words in (("13", "volumes 0 to 12"), ("4-13", "volumes 0 to 12"),
                        ("x", "numbers such as"), ("5-3", "lower number, 3-5"), ("-1", "numbers such as")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            volume_numbers(wish, 13)
    numbers = np.array([3, 20, 21, 22, 30, 31])
    assert number_ranges(numbers) == "volumes 3, 20-22, 30, 31"
    assert np.flatnonzero(volume_numbers(option(numbers).split()[1], 40)).tolist() == numbers.tolist()


REFUSED_AT_ONCE = "warnings" not in {field.name for field in fields(Gradients)}


@pytest.mark.parametrize("kind", ["derived map", "empty", "NaN", pytest.param("no direction", marks=pytest.mark.skipif(
    REFUSED_AT_ONCE, reason="a direction 0 0 0 is refused while the gradients are read"))])  # fmt: skip
def test_what_is_left_out_is_not_judged(scan, kind):
    """A volume that is no measurement: it is refused or named while it is there, and nothing of it stays afterwards."""
    clean = scan.files.read("ball_stick")
    shape = scan.values.shape[:3]
    rng = np.random.default_rng(3)
    extra = {
        "derived map": (rng.uniform(100, 900, shape), 0.0, (0.0, 0.0, 0.0)),
        "empty": (np.zeros(shape), 0.0, (0.0, 0.0, 0.0)),
        "NaN": (np.full(shape, np.nan), 1000.0, (0.0, 0.0, 1.0)),
        "no direction": (scan.values[..., 3:15].mean(-1), 1000.0, (0.0, 0.0, 0.0)),
    }[kind]
    files = appended(scan, *extra)
    try:
        said = files.read("ball_stick").warnings
    except InputError as error:
        said = [str(error)]
    if kind != "no direction":
        assert any("volume 27 " in sentence and "--drop-volumes 27" in sentence for sentence in said)
    kept = replace(files, drop="27").read("ball_stick")
    assert kept.warnings == []
    assert (kept.y == clean.y).all()
    torch.testing.assert_close(kept.acquisition.bval, clean.acquisition.bval)
    torch.testing.assert_close(kept.acquisition.bvec, clean.acquisition.bvec)
    assert "left out: volume 27 (counted from 0), as asked for" in kept.notes
    assert "27 of 28 volumes are used" in kept.notes
    assert left_out_record(kept, None) == {"of": 28, "volumes": [27], "bmax": None}


def test_the_mask_is_made_without_what_is_left_out(scan):
    corner = np.zeros(scan.values.shape[:3])
    corner[:2, :2] = 1e5
    files = replace(appended(scan, corner, 0.0, (0.0, 0.0, 0.0)), mask=None)
    assert (replace(files, drop="27").read("dti").mask == scan_mask(scan, files)).all()


def scan_mask(scan: SmallScan, files: ScanFiles) -> np.ndarray:
    """The mask that the scan itself gets."""
    scan.write_image(scan.values[..., :-1])
    scan.write_gradients(scan.b[:-1], scan.g[:-1])
    return replace(files, drop=None).read("dti").mask


def test_names_of_volumes_are_those_of_the_file(scan):
    values = scan.values.copy()
    values[..., 20] *= 0.4
    scan.write_image(values)
    (said,) = replace(scan.files, bmax=2000.0).read("ball_stick").warnings
    assert said.startswith("volume 20 ")
    read = replace(scan.files, drop="4,6").read("ball_stick")
    assert read.numbers.tolist() == [i for i in range(27) if i not in (4, 6)]


@pytest.mark.parametrize("bmax", [1000.0, 1500.0])
def test_a_limit_on_b(scan, bmax):
    scan.write_gradients(np.where(scan.b > 0, scan.b + np.resize([-5, 5], len(scan.b)), 0), scan.g)
    read = replace(scan.files, bmax=bmax).read("dti")
    assert read.y.shape[1] == len(read.acquisition) == 15
    assert float(read.acquisition.bval.max()) < 1.01
    assert f"left out: 12 volumes above b {bmax:g} s/mm2 (--bmax)" in read.notes
    assert replace(scan.files, bmax=5000.0).read("dti").whole is None


def test_limits_that_cannot_be_meant(scan, tmp_path):
    for bmax, words in (
        (1.5, "--bmax 1500"),
        (0.0, "--bmax 1500, for one"),
        (20.0, "every measurement is a b0|leaves"),
    ):
        with pytest.raises(InputError, match=words):
            fit_image(replace(scan.files, bmax=bmax), signal="dti", recipe="least_squares", out=tmp_path / "no")
    echoes = Acquisition(te=torch.arange(10.0, 90.0, 10.0))
    assert beyond_reach(echoes, "t2_decay") == []
    nib.save(nib.Nifti1Image(scan.values[..., :3].astype(np.float32), np.eye(4)), tmp_path / "t_MESE.nii.gz")
    (tmp_path / "t_MESE.json").write_text(json.dumps({"EchoTime": [0.01, 0.02, 0.03]}))
    with pytest.raises(InputError, match="--bmax limits b-values"):
        ScanFiles(tmp_path / "t_MESE.nii.gz", bmax=1000.0).read("t2_decay")


def protocol(*shells: float, n: int = 12) -> Acquisition:
    """Two b0s and shells (ms/um2) of some directions."""
    b = np.r_[0, 0, np.repeat(shells, n)]
    return Acquisition(bval=b, bvec=np.r_[np.zeros((2, 3)), np.tile(sphere(n), (len(shells), 1))])


@pytest.mark.parametrize(
    ("signal", "shells", "limit"),
    [("dti", (1, 2), 1500), ("dti", (0.7, 1.4, 6), 1500), ("msdki", (1, 2, 4), 3000), ("msdki", (1, 3, 5, 10), 3000),
     ("ivim", (0.05, 0.1, 0.2, 0.5, 0.8, 2), 1000)],
)  # fmt: skip
def test_a_scan_beyond_a_signals_reach_is_told_the_option(signal, shells, limit):
    (said,) = beyond_reach(protocol(*shells), signal)
    assert f"{signal} describes decay up to about b {limit} s/mm2" in said
    assert f"this scan reaches b {1000 * shells[-1]:g}" in said
    above = 12 * sum(1000 * b > 1.02 * limit for b in shells)
    assert said.endswith(f"leave out the {above} volumes above (--bmax {limit})")


def test_a_fit_in_python_warns_of_a_signals_reach_too():
    acquisition = protocol(1, 2)
    isotropic = {"Dxx": 0.8, "Dyy": 0.8, "Dzz": 0.8, "Dxy": 0.0, "Dxz": 0.0, "Dyz": 0.0}
    theta = {name: torch.full((20,), value) for name, value in isotropic.items()}
    y = 500 * BoundSignal(SIGNALS["dti"], acquisition)(theta)
    found = fit(y, acquisition, signal="dti", recipe="least_squares", sigma=10.0)
    assert "leave out the 12 volumes above (--bmax 1500)" in " ".join(found.warnings)


@pytest.mark.parametrize(("signal", "shells"), [("dti", (3,)), ("msdki", (1, 5)), ("ivim", (0.1, 0.8, 3))])
def test_where_too_little_is_left_no_limit_is_advised(signal, shells):
    (said,) = beyond_reach(protocol(*shells), signal)
    assert "too few volumes below" in said
    assert "--bmax" not in said


def test_the_usual_protocols_are_within_reach():
    for signal, shells in (("dti", (1,)), ("dti", (0.7, 1.5)), ("msdki", (1, 2, 3)), ("msdki", (1, 2, 3.01)),
                           ("ivim", (0.05, 0.2, 0.8, 1.0)), ("ball_stick", (1, 3, 10))):  # fmt: skip
        assert beyond_reach(protocol(*shells), signal) == []
    for name, model in SIGNALS.items():
        assert beyond_reach(model.default_protocol, name) == []


@pytest.mark.slow
def test_a_fit_with_a_limit_goes_to_the_whole_protocol(scan, tmp_path):
    files = replace(scan.files, bmax=1500.0)
    first = fit_image(files, signal="dti", recipe="least_squares", out=tmp_path / "fit")
    record = record_of(first)
    assert record["left_out"] == {"of": 27, "volumes": list(range(15, 27)), "bmax": 1500.0}
    assert not any("describes decay" in warning for warning in record["warnings"])
    # the next scan of the protocol, and one that has another number of volumes above the limit
    second = apply_image(first, scan.files, out=tmp_path / "again")
    assert record_of(second)["left_out"] == record["left_out"]
    assert "left out: 12 volumes above b 1500 s/mm2 (--bmax)" in record_of(second)["notes"]
    maps = [nib.load(next(f.glob("*param-MD_stat-mean*.nii.gz"))).get_fdata() for f in (first, second)]
    np.testing.assert_allclose(*maps, rtol=1e-5)
    scan.write_image(scan.values[..., :20])
    scan.write_gradients(scan.b[:20], scan.g[:20])
    third = apply_image(second, scan.files, out=tmp_path / "third")
    np.testing.assert_allclose(
        nib.load(next(third.glob("*param-MD_stat-mean*.nii.gz"))).get_fdata(), maps[0], rtol=1e-5
    )
    scan.write_image(scan.values[..., :14])
    scan.write_gradients(scan.b[:14], scan.g[:14])
    fourth = apply_image(first, scan.files, out=tmp_path / "fourth")
    assert any("learned on another protocol" in note for note in record_of(fourth)["notes"])


def test_volumes_of_the_training_and_of_the_scan_are_both_left_out(scan):
    trained = replace(scan.files, drop="4").read("ball_stick")
    found = fit(trained.y, trained.acquisition, signal="ball_stick", recipe="maximum_likelihood", sigma=10.0)
    earlier = left_out_record(trained, None)
    scan.write_image(sticks(scan.b, scan.g, seed=5))
    read = replace(scan.files, drop="9").read("ball_stick", earlier)
    assert read.numbers.tolist() == [i for i in range(27) if i not in (4, 9)]
    again = on_scan(found, read, earlier)
    torch.testing.assert_close(again.acquisition.bval, read.acquisition.bval)
    assert torch.isfinite(again.posterior(read.y).mean["f"]).all()


def test_counts_of_the_record_are_those_of_the_status_map(scan, tmp_path):
    values = scan.values.copy()
    values[3, 3, 1], values[4, 4, 1], values[2, 2, 2, 7] = np.nan, 0.0, -5.0
    scan.write_image(values)
    out = fit_image(scan.files, signal="ball_stick", recipe="least_squares", out=tmp_path / "out")
    status = np.asarray(nib.load(next(out.glob("*_desc-status_mask.nii.gz"))).dataobj)
    codes, counts = np.unique(status[status > 0], return_counts=True)
    assert record_of(out)["status_counts"] == {str(c): int(n) for c, n in zip(codes, counts, strict=True)}
    assert len(codes) > 2


def test_a_sidecar_that_names_two_phase_encodings_or_echo_times(scan):
    sidecar = scan.folder / "sub-01_dwi.json"
    sidecar.write_text(json.dumps({"PhaseEncodingDirection": ["j"] * 15 + ["j-"] * 12, "EchoTime": 0.08}))
    read = scan.files.read("dti")
    assert read.warnings == beyond_reach(read.acquisition, "dti")
    assert any("PhaseEncodingDirection j in volumes 0-14, j- in volumes 15-26; their S0 volumes agree" in n
               for n in read.notes)  # fmt: skip
    sidecar.write_text(json.dumps({"EchoTime": [0.08] * 15 + [0.1] * 12}))
    said = scan.files.read("ball_stick").warnings
    assert len(said) == 1
    assert "te varies over the measurements and ball_stick does not use it" in said[0]
    out = fit_image(scan.files, signal="ball_stick", recipe="least_squares", out=scan.folder / "fitted")
    assert sum("te varies" in text for text in record_of(out)["warnings"]) == 1
