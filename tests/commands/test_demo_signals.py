"""The demo's comparison of signals: which voxels, what it says, and a small one from end to end."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pyroqmri.commands.demo import signals
from pyroqmri.commands.demo.index import better_signals
from pyroqmri.commands.inputs import ScanFiles
from pyroqmri.comparison.ranking import Comparison
from pyroqmri.comparison.scores import _score
from tests.helpers import shells
from tests.small_scan import write_scan

BEST = {"signals": ["dki", "noddi"], "ahead": [0.7, 0.3], "sure": [0.5, 0.2], "n": 90}


def test_a_coarse_scan_lies_where_its_voxels_did(tmp_path):
    scan = write_scan(tmp_path).files.read("ball_stick")
    part, chosen = signals.coarse(scan, 2)
    assert part.mask.sum() == len(chosen) == len(part.y)
    np.testing.assert_array_equal(part.y, scan.y[chosen])
    here = np.c_[np.argwhere(part.mask), np.ones(len(chosen))] @ np.asarray(part.ref.affine).T
    there = np.c_[np.argwhere(scan.mask)[chosen], np.ones(len(chosen))] @ np.asarray(scan.ref.affine).T
    np.testing.assert_allclose(here, there, atol=1e-4)


def test_the_fullest_slice_keeps_the_grid(tmp_path):
    scan = write_scan(tmp_path).files.read("ball_stick")
    part = signals.fullest_slice(scan)
    (z,) = np.unique(np.argwhere(part.mask)[:, 2])
    assert part.mask.shape == scan.mask.shape
    assert part.mask.sum() == scan.mask.sum((0, 1)).max()
    np.testing.assert_array_equal(part.y, scan.y[np.argwhere(scan.mask)[:, 2] == z])


def test_one_shell_or_few_voxels_compare_no_signals(tmp_path):
    scan = write_scan(tmp_path).files.read("ball_stick")
    many = replace(scan, mask=np.ones((60, 60, 1), bool), y=np.ones((3600, 67), np.float32))
    assert signals.can_compare(replace(many, acquisition=shells(7, 30, 1.0, 2.0)))
    assert not signals.can_compare(replace(many, acquisition=shells(7, 60, 1.0)))
    assert not signals.can_compare(replace(scan, acquisition=shells(7, 30, 1.0, 2.0)))


def test_cards_name_the_signal_that_is_ahead():
    found = better_signals(BEST)
    assert set(found) == {"noddi"}
    assert found["noddi"].startswith("dki describes these data better: it is ahead in 70 % of the voxels")
    assert "30 %" in found["noddi"]


def test_shares_of_voxels_are_those_of_the_evidence():
    evidence = {"a": np.array([0.0, 10.0, 5.0, np.nan]), "b": np.array([4.0, 5.0, 4.0, 1.0])}
    found = Comparison(("a", "b"), {"evidence": evidence}, {}, (("a", "b"),), {}, evidence=evidence)
    assert found.shares["a"] == pytest.approx((2 / 3, 1 / 3))  # by one nat is 0.73, no certainty
    assert found.shares["b"] == pytest.approx((1 / 3, 1 / 3))
    assert found.by_voxel() == [
        "Voxel by voxel, ahead by evidence (surely: with a probability above 0.95): a in 67 % (33 % surely), "
        "b in 33 % (33 % surely)"
    ]
    assert found.record()["shares"] == found.shares


def test_draws_without_weight_leave_the_evidence_finite():
    few = torch.full((500, 1), -1e4)
    few[:100] = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)) / 3
    score = _score(few.unsqueeze(-1), few, torch.zeros(1), with_loo=False)
    expected = float(few.double().logsumexp(0) - np.log(500))
    assert float(score[2]) == pytest.approx(expected, abs=0.05)


@pytest.mark.slow
def test_signals_of_a_real_brain_are_compared(tmp_path, shared_data, monkeypatch):
    monkeypatch.setattr(signals, "SIGNALS", ("ball_stick", "dki"))
    source = Path(shared_data) / "mdt_b1k_b2k"
    scan = ScanFiles(source / "dwi.nii.gz", mask=source / "mask.nii.gz").read("ball_stick")
    monkeypatch.setattr(signals, "EVERY", 8)
    best = signals.compare_signals(scan, tmp_path / "signals", False)
    assert best.signals[0] == "dki"
    assert dict(zip(best.signals, best.ahead, strict=True))["dki"] > 0.6
    assert signals.draw_best_signal(tmp_path / "signals").startswith(b"\x89PNG")
    winner = nib.load(next((tmp_path / "signals").glob("*desc-winner_*.nii.gz")))
    assert int((np.asarray(winner.dataobj) > 0).sum()) == best.n
