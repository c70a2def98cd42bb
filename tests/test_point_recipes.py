"""Every recipe that answers points or denoised images, through the commands: done, or refused in one sentence."""

import json

import pytest

from pyroqmri.cli import main
from pyroqmri.fitting.schema import list_recipes
from tests.small_scan import write_scan

SHORT = ["truth.voxels=400", "training.starts=2", "training.epochs=2"]
POINT = ("least_squares", "maximum_likelihood")
NETWORKS = ("self_supervised", "supervised_gt", "supervised_mle", "supervised_hybrid")
DENOISERS = ("denoise_dae", "denoise_vae")
LIKE_OTHERS = ("supervised_mle", "supervised_hybrid", "denoise_dae")  # the same commands as a recipe that is not slow


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return write_scan(tmp_path_factory.mktemp("recipes") / "in")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYROQMRI_CACHE", str(tmp_path / "cache"))

    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return stopped.value.code, said.err.strip()

    return call


def refused(answer, words):
    """Exit code 2 and one sentence."""
    code, said = answer
    assert (code, len(said.splitlines()), words in said) == (2, 1, True), said


def each(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in LIKE_OTHERS else name for name in names]


def test_no_recipe_is_forgotten():
    kinds = {"point": POINT, "network": NETWORKS, "denoiser": DENOISERS}
    for kind, names in kinds.items():
        assert {r.name for r in list_recipes() if r.estimator == kind} == set(names)


@pytest.mark.parametrize("recipe", each(POINT + NETWORKS))
def test_a_recipe_fits_applies_reports_and_is_compared(recipe, scan, run, tmp_path):
    settings = SHORT if recipe in NETWORKS else []
    changes = [word for entry in settings for word in ("--set", entry)]
    common = ["--quiet", "--out"]
    fit = ["fit", *scan.arguments, "--signal", "ball_stick", "--recipe", recipe, *changes, *common, tmp_path / "fit"]
    assert run(*fit)[0] == 0
    assert run("apply", tmp_path / "fit", *scan.arguments, *common, tmp_path / "again")[0] == 0
    assert run("report", tmp_path / "fit")[0] == 0
    refused(run("check", tmp_path / "fit"), "without uncertainty" if settings else "no population of its own")
    for folder in ("fit", "again"):
        assert bool(list((tmp_path / folder).glob("*stat-sd*"))) == (recipe in POINT)
        assert (tmp_path / folder / "report.html").is_file()
    pair = ["--recipe", " ".join([f"one={recipe}", *settings]), "--recipe", "other=least_squares"]
    call = ["compare", *scan.arguments, "--signal", "ball_stick", *pair, "--voxels", "40", "--shell", "none"]
    refused(run(*call, "--folds", "0", *common, tmp_path / "none"), "none of these recipes has a posterior")
    if recipe in ("maximum_likelihood", "supervised_gt"):  # the others differ in how they were trained alone
        assert run(*call, "--folds", "2", *common, tmp_path / "compared")[0] == 0
        assert "one" in json.loads((tmp_path / "compared" / "compare.json").read_text())["verdict"][0]


@pytest.mark.parametrize("recipe", each(DENOISERS))
def test_a_denoiser_denoises_and_fits_nothing(recipe, scan, run, tmp_path):
    short = ["--set", "schedule.epochs=2", "--set", "targets.voxels=500"]
    asked = ["--signal", "dti", "--recipe", recipe, "--quiet", "--out", tmp_path / "fit"]
    refused(run("fit", *scan.arguments, *asked), "use pyroqmri denoise")
    refused(run("compare", *scan.arguments, *asked, "--recipe", "least_squares"), "use pyroqmri denoise")
    assert not (tmp_path / "fit").exists()
    out = tmp_path / "denoised"
    assert run("denoise", *scan.arguments, "--recipe", recipe, *short, "--quiet", "--out", out)[0] == 0
    assert run("apply", out, *scan.arguments, "--quiet", "--out", tmp_path / "again")[0] == 0
    assert run("report", out)[0] == 0
    refused(run("check", out), "which has no parameters")
