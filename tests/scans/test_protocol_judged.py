"""Protocols and data judged where they matter: in fits of every kind, saved fits, and the status of voxels."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import ScanFiles
from pyroqmri.errors import InputError
from pyroqmri.measurements.status import FINE, MISFIT, NEGATIVE, NO_SIGNAL, UNINFORMED
from pyroqmri.signals import SIGNALS, BoundSignal
from pyroqmri.signals.shells import shells
from pyroqmri.simulate import add_noise

pytestmark = pytest.mark.usefixtures("no_pages")

QUICK = {
    "least_squares": {},
    "hierarchical": {"training.steps": 20},
    "self_supervised": {"training.epochs": 2, "training.starts": 1, "network.depth": 1},
}
TI = torch.tensor([50.0, 200, 400, 800, 1100, 2000, 2500])


def measured(
    signal: str, acquisition: Acquisition, n: int, sigma: float, noise: str = "rician", **theta: float
) -> Tensor:
    """Measurements ``(n, M)`` of voxels that are all alike, S0 1000."""
    values = {name: torch.full((n,), value) for name, value in theta.items()}
    inputs = {name: torch.ones(n) for name in SIGNALS[signal].inputs}
    clean = 1000 * BoundSignal(SIGNALS[signal], acquisition)(values, inputs)
    return add_noise(clean, sigma, noise, torch.Generator().manual_seed(0))


def about(fit: pq.Fit) -> list[str]:
    """Warnings that are not of a training that was cut short."""
    return [text for text in fit.warnings if "training" not in text and "network" not in text]


@pytest.mark.parametrize("recipe", QUICK)
def test_one_shell_leaves_no_voxel_fine_whatever_the_estimator(recipe, tmp_path):
    acquisition = shells(2, 20, 1.0)
    y = measured("msdki", acquisition, 40, 20.0, D=0.9, K=0.8)
    found = pq.fit(y, acquisition, signal="msdki", recipe=recipe, sigma=20.0, settings=QUICK[recipe], device="cpu")
    assert found.uninformed == ("K",)
    assert "cannot determine K" in about(found)[0]
    allowed = {UNINFORMED, NEGATIVE, MISFIT}  # an untrained network fits nothing
    assert set(found.posterior(y).status.tolist()) <= allowed
    found.save(tmp_path)
    again = pq.load_fit(tmp_path)
    assert again.uninformed == ("K",)
    assert about(again) == about(found)
    assert set(again.posterior(y).status.tolist()) <= allowed


def test_one_b_value_with_s0_inferred_is_not_fine():
    acquisition = Acquisition(bval=[1.0] * 8)
    y = measured("msdki", acquisition, 40, 20.0, D=1.3, K=0.5)
    found = pq.fit(
        y, acquisition, signal="msdki", recipe="hierarchical", sigma=20.0, s0="inferred", device="cpu",
        settings=QUICK["hierarchical"],
    )  # fmt: skip
    assert set(found.uninformed) == {"D", "K"}
    assert FINE not in found.posterior(y).status.tolist()


@pytest.mark.parametrize("T2", [1500.0, 1900.0])
def test_a_t2_far_beyond_the_echo_times_is_not_fine(T2):
    acquisition = Acquisition(te=[5.0, 10, 15, 20])
    y = measured("t2_decay", acquisition, 300, 50.0, T2=T2)
    found = pq.fit(y, acquisition, signal="t2_decay", recipe="least_squares", sigma=50.0)
    assert about(found) == []  # the protocol suits other tissue
    posterior = found.posterior(y)
    fine = posterior.status == FINE  # a decay that noise puts there, two sds above none: one voxel in 40
    assert float(fine.float().mean()) < 0.05  # of 300; 28 to 35 % before
    assert bool((posterior.sd["T2"] < posterior.mean["T2"] / 2)[fine].all())
    assert int((posterior.status == UNINFORMED).sum()) > 20
    near = measured("t2_decay", acquisition, 300, 50.0, T2=40.0)
    assert float((found.posterior(near).status == FINE).float().mean()) > 0.95


CLEAN = {
    "msdki": {"D": 1.0, "K": 0.9},
    "ball_stick": {"f": 0.5, "D_par": 1.9, "D_iso": 0.9},
    "ivim": {"f": 0.25, "D_fast": 30.0, "D_slow": 1.1},
    "t2_adc": {"T2": 70.0, "D": 0.8},
    "t1_inversion": {"T1": 1000.0, "inv_eff": 0.93},
    "t1_inversion_signed": {"T1": 1000.0, "inv_eff": 0.93},
    "t1_vfa": {"T1": 1000.0},
    "t2_decay": {"T2": 70.0},
    "t2star_decay": {"T2star": 50.0},
    "t2_floor": {"T2": 70.0, "floor": 0.1},
    "t2_biexp": {"f": 0.3, "T2_short": 15.0, "T2_long": 90.0},
}


@pytest.mark.parametrize("signal", CLEAN)
def test_a_clean_scan_is_fine_without_a_word(signal):
    acquisition, model = SIGNALS[signal].default_protocol, SIGNALS[signal]
    assert acquisition is not None
    theta = {name: torch.full((200,), value) for name, value in CLEAN[signal].items()}
    if signal == "ball_stick":
        theta["n"] = torch.nn.functional.normalize(
            torch.randn(200, 3, generator=torch.Generator().manual_seed(2)), dim=-1
        )
    inputs = {name: torch.ones(200) for name in model.inputs}
    clean = 1000 * BoundSignal(model, acquisition)(theta, inputs)
    sigma = float(clean.abs().max()) / 50
    y = add_noise(clean, sigma, "gaussian" if model.signed else "rician", torch.Generator().manual_seed(0))
    found = pq.fit(y, acquisition, signal=signal, recipe="maximum_likelihood", sigma=sigma, inputs=inputs)
    assert found.warnings == []
    assert found.uninformed == ()
    status = found.posterior(y, inputs=inputs).status
    assert float((status == FINE).float().mean()) > 0.9
    assert NO_SIGNAL not in status.tolist()


NOISE = {
    "dwi": ("msdki", shells(4, 12, 1.0, 2.0)),
    "tensor": ("dti", shells(4, 20, 1.0)),
    "echoes": ("t2_decay", Acquisition(te=[10.0, 20, 30, 40, 50, 60])),
    "inversions": ("t1_inversion", Acquisition(ti=TI)),
}


@pytest.mark.parametrize("recipe", ["least_squares", pytest.param("maximum_likelihood", marks=pytest.mark.slow)])
@pytest.mark.parametrize("which", NOISE)
def test_pure_noise_is_not_fine_and_has_no_signal(which, recipe):
    signal, acquisition = NOISE[which]
    y = add_noise(torch.zeros(1000, len(acquisition)), 20.0, "rician", torch.Generator().manual_seed(3))
    status = pq.fit(y, acquisition, signal=signal, recipe=recipe, sigma=20.0).posterior(y).status
    assert float((status == FINE).float().mean()) < 0.05
    assert float((status == NO_SIGNAL).float().mean()) > 0.9


@pytest.mark.parametrize("which", NOISE)
def test_tissue_of_snr_5_has_a_signal(which):
    signal, acquisition = NOISE[which]
    theta = {"D": 0.8, "K": 0.9, "T2": 60.0, "T1": 1000.0, "inv_eff": 0.95}
    theta |= dict.fromkeys(("Dxx", "Dyy", "Dzz"), 0.8) | dict.fromkeys(("Dxy", "Dxz", "Dyz"), 0.1)
    mine = {p.name: theta[p.name] for p in SIGNALS[signal].parameters if p.name in theta}
    y = measured(signal, acquisition, 3000, 200.0, **mine)
    status = pq.fit(y, acquisition, signal=signal, recipe="least_squares", sigma=200.0).posterior(y).status
    assert int((status == NO_SIGNAL).sum()) <= 3


def test_signed_inversion_data_fit_without_naming_a_likelihood():
    y = measured("t1_inversion_signed", Acquisition(ti=TI), 60, 10.0, "gaussian", T1=1200.0, inv_eff=0.95)
    found = pq.fit(
        y, Acquisition(ti=TI), signal="t1_inversion_signed", recipe="hierarchical", sigma=10.0, device="cpu",
        settings=QUICK["hierarchical"],
    )  # fmt: skip
    assert found.recipe.kind("likelihood") == "gaussian"
    assert about(found) == []
    assert abs(float(found.posterior(y).mean["T1"].median()) - 1200) < 60
    with pytest.raises(InputError, match="t1_inversion_signed"):
        pq.fit(y, Acquisition(ti=TI), signal="t1_inversion", recipe="least_squares", sigma=10.0)


def test_real_valued_diffusion_is_fitted_with_its_sign():
    acquisition = shells(4, 20, 1.0, 2.0, 3.0)
    y = measured("msdki", acquisition, 200, 80.0, "gaussian", D=1.2, K=0.5)
    found = pq.fit(
        y, acquisition, signal="msdki", recipe="hierarchical", sigma=80.0, device="cpu", settings=QUICK["hierarchical"]
    )
    assert "gaussian is used in place of rician" in about(found)[0]
    posterior = found.posterior(y)
    assert float((posterior.status == FINE).float().mean()) > 0.9
    assert abs(float(posterior.mean["K"].mean()) - 0.5) < 0.1
    kept = pq.fit(
        y, acquisition, signal="msdki", recipe="maximum_likelihood", sigma=80.0, likelihood="rician", device="cpu"
    )
    assert kept.recipe.kind("likelihood") == "rician"
    assert "set to zero" in about(kept)[0]


def test_least_squares_of_real_values_is_not_biased_by_their_logarithm():
    acquisition = shells(4, 30, 1.0, 3.0)
    tensor = dict.fromkeys(("Dyy", "Dzz"), 0.4) | dict.fromkeys(("Dxy", "Dxz", "Dyz"), 0.0) | {"Dxx": 1.7}
    y = measured("dti", acquisition, 150, 80.0, "gaussian", **tensor)
    posterior = pq.fit(y, acquisition, signal="dti", recipe="least_squares", sigma=80.0).posterior(y)
    # its error over 150 voxels is 0.004, and the logarithm's bias 0.03
    assert abs(float(posterior.mean["MD"].mean()) - 2.5 / 3) < 0.015


def test_flip_angles_without_a_map_of_b1_are_warned_about():
    acquisition = SIGNALS["t1_vfa"].default_protocol
    y = measured("t1_vfa", acquisition, 20, 1.0, T1=1000.0)
    (text,) = pq.fit(y, acquisition, signal="t1_vfa", recipe="least_squares", sigma=1.0).warnings
    assert "no map of B1" in text
    with_map = pq.fit(y, acquisition, signal="t1_vfa", recipe="least_squares", sigma=1.0, inputs={"B1": torch.ones(20)})
    assert with_map.warnings == []


def test_settings_are_judged_in_python_too():
    te = Acquisition(bval=[0.0, 0, 1, 2], te=[60.0, 90, 60, 90])
    y = measured("msdki", te, 20, 10.0, D=1.0, K=0.5)
    assert any(
        "te varies" in text for text in pq.fit(y, te, signal="msdki", recipe="least_squares", sigma=9.0).warnings
    )
    molli = Acquisition(ti=[100.0, 180, 260, 1100, 1180, 1260, 2100, 3100])
    y = measured("t1_inversion", molli, 20, 10.0, T1=900.0, inv_eff=0.95)
    found = pq.fit(y, molli, signal="t1_inversion", recipe="least_squares", sigma=10.0)
    assert any("T1*" in text for text in found.warnings)
    short = Acquisition(ti=[100.0, 400, 2500], tr=[2000.0] * 3)
    with pytest.raises(InputError, match="ti is 2500 ms and tr 2000 ms"):
        pq.fit(y[:, :3], short, signal="t1_inversion", recipe="least_squares", sigma=10.0)


def test_the_name_of_an_image_joins_the_warnings_of_its_scan(tmp_path: Path):
    y = measured("t1_inversion", Acquisition(ti=[800.0, 2700]), 64, 10.0, T1=1200.0, inv_eff=1.0).reshape(4, 4, 4, 2)
    image, mask = tmp_path / "sub-01_MP2RAGE.nii.gz", tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(y.numpy(), np.eye(4)), image)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), mask)
    (tmp_path / "sub-01_MP2RAGE.json").write_text('{"InversionTime": [0.8, 2.7]}')
    assert any("MP2RAGE" in text for text in ScanFiles(image, mask=mask).read("t1_inversion").warnings)
