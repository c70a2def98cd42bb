"""`pyroqmri compare`: what it writes, refuses, keeps and goes on from."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

import pyroqmri.comparison.cross_fit
from pyroqmri.cli import cli
from pyroqmri.cli.compare import RecipeWords, with_signals
from pyroqmri.commands import rebuild_report
from pyroqmri.commands.compare import Choice, compare_image
from pyroqmri.errors import InputError
from pyroqmri.report.comparison import winner_colours
from tests.small_scan import SmallScan, write_scan

QUICK = {"training.steps": 5}
CHOICES = {
    "one": Choice("hierarchical", settings=QUICK),
    "two": Choice("hierarchical_mixture", settings=QUICK | {"prior.classes": 2}),
    "ls": Choice("least_squares"),
}


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> SmallScan:
    return write_scan(tmp_path_factory.mktemp("scan"))


def run(scan: SmallScan, out: Path, **said):
    from pyroqmri.comparison import Plan

    plan = Plan(folds=0, shell="highest", scored=40)
    told = {"signal": "msdki", "recipes": CHOICES, "plan": plan} | said
    return compare_image(scan.files, out=out, **told)


@pytest.fixture(scope="module")
def done(scan, tmp_path_factory):
    return run(scan, tmp_path_factory.mktemp("out") / "compared")


def test_rankings_maps_and_a_page_are_written(done):
    folder, found = done
    record = json.loads((folder / "compare.json").read_text())
    assert record["groups"] == [["one", "two"]]
    assert {r["name"] for r in record["rankings"]["evidence"][0]} == {"one", "two"}
    assert {r["name"] for r in record["errors"]["shell_error"]} == {"one", "two", "ls"}
    page = (folder / "report.html").read_text()
    assert "Where each wins" in page
    assert "://" not in page.replace("http://www.w3.org", "")
    prob = nib.load(next(folder.glob("*desc-winnerprob*.nii.gz"))).get_fdata()
    inside = prob.sum(-1) > 0
    np.testing.assert_allclose(prob.sum(-1)[inside], 1, rtol=1e-5)
    winner = nib.load(next(folder.glob("*desc-winner_*.nii.gz"))).get_fdata()
    np.testing.assert_array_equal(winner[inside], prob.argmax(-1)[inside] + 1)
    assert inside.sum() == 144
    levels = json.loads(next(folder.glob("*desc-winner_*.json")).read_text())["Levels"]
    named = {code: name for code, name in levels.items() if code != "0"}
    assert named == {"1": "one", "2": "two"}
    better = found.evidence["two"] > found.evidence["one"]
    np.testing.assert_array_equal(winner[inside] == 2, better)
    assert len(found.evidence["one"]) == 144


def test_the_page_is_rebuilt_from_the_folder(done):
    folder, _ = done
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert rebuild_report(folder).read_text() == before


def test_an_interrupted_comparison_goes_on_and_ends_the_same(scan, done, tmp_path, monkeypatch):
    calls = []

    def stop_at_third(self, *data):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *data)

    whole = pyroqmri.comparison.Candidate.train
    monkeypatch.setattr(pyroqmri.comparison.Candidate, "train", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(scan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="another call"):
        run(scan, tmp_path / "out", recipes={k: CHOICES[k] for k in ("one", "two")}, resume=True)
    folder, found = run(scan, tmp_path / "out", resume=True)
    # seven trainings in all, one of them begun twice
    assert len(calls) == 8
    for name, values in done[1].evidence.items():
        np.testing.assert_array_equal(found.evidence[name], values)
    assert not any(p.name.startswith("checkpoint") for p in folder.iterdir())


def test_words_of_a_recipe():
    convert = RecipeWords().convert
    label, said = convert("three=hierarchical_mixture prior.classes=3 fix.D_par=1.7 likelihood=gaussian", None, None)
    assert label == "three"
    assert said == {
        "recipe": "hierarchical_mixture", "settings": {"prior.classes": 3}, "fixed": {"D_par": 1.7}, "tied": {},
        "likelihood": "gaussian",
    }  # fmt: skip
    assert convert("vae_gmm", None, None)[0] == "vae_gmm"


def test_several_signals_are_compared_with_every_recipe():
    one, two = ("hierarchical", {"recipe": "hierarchical"}), ("ls", {"recipe": "least_squares", "signal": "dti"})
    assert with_signals([one], ["noddi"]) == [one]
    assert [(label, said["signal"]) for label, said in with_signals([one], ["noddi", "dki"])] == [
        ("noddi", "noddi"), ("dki", "dki"),
    ]  # fmt: skip
    labels = [label for label, _ in with_signals([one, two], ["noddi", "dki"])]
    assert labels == ["noddi hierarchical", "dki hierarchical", "ls"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipe", "hierarchical"], "two recipes or more"),
        (["--recipe", "hierarchical", "--recipe", "hierarchical"], "two recipes are called"),
        (["--signal", "dti", "--signal", "dti", "--recipe", "hierarchical"], "--signal dti is given 2 times"),
        (["--recipe", "hierarchical", "--recipe", "none_such"], "there is no recipe"),
        (["--recipe", "hierarchical", "--recipe", "a=hierarchical steps"], "must read KEY=VALUE"),
        (["--recipe", "hierarchical", "--recipe", "vae_gmm", "--shell", "some"], "neither highest"),
        (["--recipe", "hierarchical", "--recipe", "vae_gmm", "--shell", "3000"], "there is no shell"),
        (["--recipe", "hierarchical", "--recipe", "vae_gmm", "--folds", "99"], "folds must lie"),
        (["--recipe", "least_squares", "--recipe", "maximum_likelihood", "--folds", "0", "--shell", "none"], "none of"),
    ],
)
def test_a_wrong_call_is_refused_in_a_sentence(scan, tmp_path, words, said):
    call = ["compare", *scan.arguments, "--signal", "msdki", "--out", str(tmp_path / "out"), *words]
    result = CliRunner().invoke(cli, call)
    assert result.exit_code != 0
    assert said in str(result.exception) + result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_ends_with_its_code(scan, tmp_path):
    words = ["--recipe", "a=hierarchical training.steps=5", "--recipe", "b=hierarchical training.steps=5", "--quiet"]
    call = [sys.executable, "-m", "pyroqmri", "compare", *scan.arguments, "--signal", "msdki", *words]
    call += ["--folds", "0", "--shell", "none", "--voxels", "20", "--out", str(tmp_path / "out")]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    warned = "this score is unreliable" in ended.stderr
    assert ended.returncode == (1 if warned else 0), ended.stderr
    assert "PSIS-LOO" in ended.stdout
    again = subprocess.run(call, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_opacity_is_certainty():
    rgba = winner_colours(np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]))
    np.testing.assert_allclose(rgba[:, 3], [1, 0, 0.5])
    assert (rgba[0, :3] != rgba[2, :3]).any()
