"""Fits to share: their cards, those that come with the package, and folders that are handed on."""

import json
import zipfile

import pytest
import torch

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.cli import main
from pyroqmri.commands.fits import fit_card, fit_rows, share_fit, use_fit
from pyroqmri.errors import InputError
from pyroqmri.fitting.shared import shared_fits
from tests.helpers import msdki_data

QUICK = {"training.steps": 5, "training.batch_size": 64}
NOISE = 0.04
TERMS_GIVEN = ("--citation", "c", "--source", "s", "--out", "x")
TERMS = {"licence": "CC0", "citation": "nobody", "source": "voxels of a test"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    y, acq = msdki_data(80, NOISE)
    folder = tmp_path_factory.mktemp("fits") / "own"
    pq.fit(y, acq, signal="msdki", recipe="hierarchical", sigma=NOISE, settings=QUICK).save(folder)
    return folder


@pytest.fixture(scope="module")
def shared(saved):
    return share_fit(saved, out=saved.parent / "shared", voxels=0, **TERMS)


def test_a_shared_fit_is_small_and_is_the_fit(saved, shared):
    names = {path.name for path in shared.iterdir() if not path.name.startswith(".")}
    assert names == {"recipe.toml", "weights.safetensors", "fit.json"}
    assert sum(path.stat().st_size for path in shared.iterdir()) < 100_000
    y, _ = msdki_data(20, NOISE, seed=4)
    before, after = (pq.load_fit(folder).posterior(y) for folder in (saved, shared))
    assert torch.equal(before.mean["K"], after.mean["K"])


def test_the_card_states_population_protocol_and_terms(shared):
    card = fit_card(shared)
    said = "\n".join(f"{heading}: {text}" for heading, text in card)
    assert "signal: msdki (bval)" in said
    assert "16 volumes: bval 0, 1000 and 2000 s/mm2" in said
    assert "licence: CC0" in said
    assert "citation: nobody" in said
    assert "calibration: not checked" in said
    # the median of the population is that of its distribution on paper
    fit = pq.load_fit(shared)
    median = float(fit.signal.constrain_tissue(fit.model.prior.classes().loc)["D"][0].detach())
    (row,) = [text for heading, text in card if heading == "population" and text.startswith("D ")]
    assert float(row.split()[1]) == pytest.approx(median, abs=0.02)
    assert "um2/ms, 68 % of voxels" in row


def test_folders_are_listed_and_copied(saved, shared, tmp_path):
    rows = {row[0]: row for row in fit_rows(saved.parent)}
    assert rows["shared"][1:5] == ("msdki", "hierarchical", "80", "CC0")
    assert rows["own"][4] == "not stated"
    copy = use_fit(shared, tmp_path / "copy")
    assert (copy / "fit.json").read_bytes() == (shared / "fit.json").read_bytes()
    (copy / "weights.safetensors").write_bytes(b"changed")
    with pytest.raises(InputError, match="damaged"):
        use_fit(copy, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_an_archive_is_shown_and_copied_and_its_names_go_nowhere(saved, shared, tmp_path):
    path = tmp_path / "brain.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for one in shared.iterdir():
            archive.write(one, f"../../brain/{one.name}")  # a name that would leave the folder
        archive.writestr("../../evil.txt", "no file of a fit")
    assert fit_card(path) == fit_card(shared)
    copy = use_fit(path, tmp_path / "a" / "copy")
    assert (copy / "fit.json").read_bytes() == (shared / "fit.json").read_bytes()
    assert {one.name for one in tmp_path.iterdir()} == {"brain.zip", "a"}
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("fit.json", "recipe.toml", "weights.safetensors"):
            archive.write(shared / name, f"other/{name}")
    with pytest.raises(InputError, match="has 2 fits"):
        fit_card(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fit.json", "{}" * 100)
        archive.write(shared / "recipe.toml", "recipe.toml")
        archive.write(shared / "weights.safetensors", "weights.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:38] + b"\xff" * 8 + whole[46:])  # no stream that zlib knows
    with pytest.raises(InputError, match="cannot be read as a zip archive"):
        fit_card(path)
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read as a zip archive"):
        use_fit(path, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fits", "show", "nothing"], "there is no fit 'nothing', as a folder or by name; fits that come along: "),
        (["fits", "list", "nowhere"], "nowhere is no folder of fits"),
        (["fits", "use", "nothing", "--out", "x"], "there is no fit 'nothing'"),
        (["fits", "share", "SAVED", "--licence", " ", *TERMS_GIVEN], "licence is empty"),
    ],
)  # fmt: skip
def test_wrong_calls_are_refused_in_a_line(saved, words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main([str(saved) if word == "SAVED" else word for word in words])
    assert done.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("name", shared_fits())
def test_a_fit_that_comes_along_has_a_whole_card_and_takes_another_protocol(name):
    folder = shared_fits()[name]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 150_000
    record = json.loads((folder / "fit.json").read_text())
    assert all(record["card"][key].strip() for key in ("licence", "citation", "source"))
    first, *_ = record["card"]["calibration"]
    assert 84 < float(first.partition("contain ")[2].partition("%")[0]) < 95  # of 90 % intervals, 1,000 voxels
    fit = pq.load_fit(name)
    used = {k: v for k, v in fit.acquisition.settings().items() if k in fit.signal.signal.requires}
    other = Acquisition(
        **{key: value.repeat(2) * torch.linspace(0.9, 1.1, 2 * len(value)) for key, value in used.items()}
    )
    middle = fit.signal.constrain_tissue(fit.model.prior.classes().loc.detach())
    theta = {p.name: torch.full((5,), float(middle[p.name][0])) for p in fit.signal.tissue}
    bound = fit.on(other).signal
    y = bound(theta) * fit.preparation.scale
    post = fit.posterior(y, acquisition=other)
    for p in fit.signal.tissue:
        unit = fit.preparation.scale if p.name in fit.signal.in_scan_units else 1.0
        distance = (post.mean[p.name] / unit - theta[p.name]).abs() / (post.sd[p.name] / unit)
        assert float(distance.max()) < 1.0  # no noise, and the truth is the population's middle
        assert bool(post.sd[p.name].isfinite().all())


def test_there_are_fits_that_come_along():
    assert shared_fits()
