"""Every command writes these files and no others: names are a contract with scripts outside the repository."""

import shutil
from pathlib import Path

import pytest

from pyroqmri.commands import apply_image, denoise_image, fit_image, rebuild_report, report
from pyroqmri.commands.check import check_fit, check_recipe
from pyroqmri.commands.compare import Choice, compare_image
from pyroqmri.commands.demo import demo as demo_module
from pyroqmri.commands.demo.demo import run_demo
from pyroqmri.commands.join import join_images
from pyroqmri.commands.manifest import MANIFEST, read_manifest
from pyroqmri.commands.protocol_files import ProtocolFiles
from pyroqmri.commands.simulate import simulate_files
from pyroqmri.comparison import Plan
from pyroqmri.datasets import Dataset
from pyroqmri.report.comparison import COMPARISON
from tests.commands.test_join import series
from tests.small_scan import SmallScan, write_scan

SHORT = {"training.steps": 2, "training.batch_size": 64}
STATISTICS = ("mean", "sd", "q05", "q95")
FIT = {"fit/fit.json", "fit/recipe.toml", "fit/weights.safetensors"}
# whatever the recipe, a folder of maps holds these
COMMON = FIT | {".bidsignore", "dataset_description.json", "report.html"}
MAPPED = COMMON | {"methods.txt", "references.bib", "voxels.npz"}
SAMPLED = MAPPED | {"posterior.nc"}


def files(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones as well; but for the list of them, which has to be right."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    manifest = read_manifest(folder)
    assert manifest is None or (manifest.finished and manifest.files | {MANIFEST} >= found - {"report.html"})
    return found - {MANIFEST}


def maps(prefix: str, *names: str) -> set[str]:
    """An image and its sidecar for each name."""
    return {f"{prefix}{name}{ending}" for name in names for ending in (".nii.gz", ".json")}


def statistics(*parameters: str, suffix: str = "dwimap", stats: tuple[str, ...] = STATISTICS) -> list[str]:
    """What lies there for each parameter that is a number."""
    return [f"param-{name}_stat-{stat}_{suffix}" for name in parameters for stat in stats]


CHECKS = ("desc-ppc_dwimap", "desc-residual_dwimap", "desc-status_mask")
MSDKI = maps("sub-01_model-msdki_", *statistics("D", "K"), *CHECKS)
STICK = maps(
    "sub-01_model-ball_stick_", *statistics("f", "D_par", "D_iso", "theta", "phi"), "param-n_stat-mean_dwimap", *CHECKS
)
NARROWED = ("contraction",)  # of parameters with a population
STICK_CONTRACTIONS = maps("sub-01_model-ball_stick_", *statistics("f", "D_par", "D_iso", stats=NARROWED))
CONE = maps("sub-01_model-ball_stick_", "param-n_stat-cone90_dwimap")
CLASSES = maps("sub-01_model-ball_stick_", "param-C_stat-prob_dwimap")
KHAT = maps("sub-01_model-ball_stick_", "desc-khat_dwimap")


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> SmallScan:
    return write_scan(tmp_path_factory.mktemp("scan"))


@pytest.fixture(scope="module")
def fitted(scan, tmp_path_factory) -> Path:
    """A fit whose recipe has classes and whose signal has an axis."""
    return fit_image(
        scan.files, signal="ball_stick", recipe="hierarchical_mixture", settings=SHORT | {"prior.classes": 2},
        khat=True, out=tmp_path_factory.mktemp("fit") / "out",
    )  # fmt: skip


def test_fit_of_a_mixture_of_sticks(fitted):
    assert files(fitted) == SAMPLED | STICK | STICK_CONTRACTIONS | CONE | CLASSES | KHAT
    assert [path.name for path in fitted.parent.iterdir()] == ["out"]


def test_fit_by_least_squares(scan, tmp_path):
    out = fit_image(scan.files, signal="msdki", recipe="least_squares", out=tmp_path / "out")
    assert files(out) == MAPPED | MSDKI


def test_fit_of_an_inferred_s0(scan, tmp_path):
    out = fit_image(
        scan.files, signal="msdki", recipe="hierarchical", s0="inferred", settings=SHORT,
        out=tmp_path / "out",
    )  # fmt: skip
    found = statistics("S0", suffix="S0map") + statistics("D", "K", "S0", stats=NARROWED)
    assert files(out) == SAMPLED | MSDKI | maps("sub-01_model-msdki_", *found)


def test_fit_by_a_network(scan, tmp_path):
    short = {"training.epochs": 1, "truth.voxels": 500}
    out = fit_image(scan.files, signal="msdki", recipe="supervised_gt", settings=short, out=tmp_path / "out")
    assert files(out) == MAPPED | maps("sub-01_model-msdki_", *statistics("D", "K", stats=("mean",)), *CHECKS)


def test_fit_of_a_relaxation_signal(tmp_path):
    image, _ = join_images(series(tmp_path), out=tmp_path / "sub-01_MESE.nii.gz")
    out = fit_image(image, signal="t2_decay", recipe="least_squares", sigma=0.5, out=tmp_path / "out")
    found = maps(
        "sub-01_model-t2_decay_", *statistics("T2", suffix="T2map"), *statistics("S0", suffix="S0map"), *CHECKS
    )
    assert files(out) == MAPPED | found


def test_apply(scan, fitted, tmp_path):
    out = apply_image(fitted, scan.files, out=tmp_path / "out")
    # k-hat is written where the maps are reweighted
    assert files(out) | KHAT == SAMPLED | STICK | STICK_CONTRACTIONS | CONE | CLASSES | KHAT


def test_compare(scan, tmp_path):
    recipes = {
        "a": Choice("hierarchical", settings=SHORT), "b": Choice("hierarchical", settings=SHORT | {"prior.sd": 0.3}),
        "ls": Choice("least_squares"),
    }  # fmt: skip
    plan = Plan(folds=0, shell=None, scored=20)
    out, _ = compare_image(scan.files, signal="msdki", recipes=recipes, plan=plan, out=tmp_path / "compare")
    found = maps("sub-01_model-msdki_", *(f"desc-{name}_dwimap" for name in ("winner", "winnerprob", "evidence")))
    assert files(out) == found | {".bidsignore", "compare.json", "dataset_description.json", "report.html"}


def test_check_of_a_fit_and_of_a_protocol(scan, fitted, tmp_path):
    figures = {f"{truth}_{what}.png" for truth in ("own", "tissue") for what in ("coverage", "ranks")}
    before = files(fitted)
    found = check_fit(fitted, n=300, out=tmp_path / "of_fit")
    assert files(found.folder) == {"check.json", "check.md", "own_coverage.png", "own_ranks.png"}
    assert files(fitted) == before
    found = check_recipe(
        signal="msdki", recipe="hierarchical", snr=20.0, protocol=ProtocolFiles(bval=scan.bval), settings=SHORT, n=300,
        out=tmp_path / "of_protocol",
    )  # fmt: skip
    assert files(found.folder) == FIT | figures | {"check.json", "check.md"}


def test_simulate(tmp_path):
    gradients = {"sub-sim_dwi.nii.gz", "sub-sim_dwi.json", "sub-sim_dwi.bval", "sub-sim_dwi.bvec"}
    image = {"simulate.json", "sub-sim_mask.nii.gz"}
    out = simulate_files("ball_stick", "brain", snr=20, shape=(16, 16, 1), out=tmp_path / "brain")
    truth = maps("sub-sim_param-", *(f"{name}_truth_dwimap" for name in ("f", "D_par", "D_iso", "theta", "phi", "n")))
    truth |= maps("sub-sim_param-", "S0_truth_S0map")
    assert files(out) == image | gradients | truth | {"sub-sim_dseg.nii.gz", "sub-sim_dseg.tsv"}
    out = simulate_files("t2_decay", "uniform", snr=20, shape=(2, 2, 1), out=tmp_path / "uniform")
    truth = maps("sub-sim_param-", "T2_truth_T2map", "S0_truth_S0map")
    assert files(out) == image | truth | {"sub-sim_dwi.nii.gz", "sub-sim_dwi.json"}


@pytest.fixture(scope="module")
def denoised(scan, tmp_path_factory) -> Path:
    short = {"schedule.epochs": 1, "targets.voxels": 200}
    return denoise_image(scan.files, settings=short, out=tmp_path_factory.mktemp("denoise") / "out")


def test_denoise(denoised):
    images = maps("sub-01_", "desc-denoised_dwi", "desc-residual_dwi", "desc-status_mask")
    names = [f"desc-{when}_param-{name}_dwimap" for when in ("noisy", "denoised") for name in ("FA", "MD")]
    gradients = {"sub-01_desc-denoised_dwi.bval", "sub-01_desc-denoised_dwi.bvec"}
    assert files(denoised) == COMMON | images | maps("sub-01_model-dti_", *names) | gradients | {"denoise.json"}


def test_join(tmp_path):
    join_images(series(tmp_path), out=tmp_path / "out" / "sub-01_MESE.nii.gz")
    assert files(tmp_path / "out") == {"sub-01_MESE.nii.gz", "sub-01_MESE.json"}


def test_report_writes_its_page_and_nothing_else(fitted, denoised):
    for folder in (fitted, denoised):
        before = files(folder)
        (folder / "report.html").unlink()
        assert rebuild_report(folder) == folder / "report.html"
        assert files(folder) == before


def test_report_leaves_a_folder_of_the_user_to_them(fitted, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(fitted, out)
    (out / "mine").mkdir()
    (out / "mine" / "report.html").write_text("mine")
    rebuild_report(out)
    assert "mine/report.html" not in read_manifest(out).files
    assert (out / "mine" / "report.html").read_text() == "mine"


def test_report_of_a_demo_takes_its_comparison_for_one(tmp_path, monkeypatch):
    # as a fit it has no maps, and the command ended with a traceback
    rebuilt = []
    monkeypatch.setattr(report, "write_comparison", rebuilt.append)
    monkeypatch.setattr(report, "write_demo_index", lambda folder: folder / "report.html")
    (tmp_path / "signals").mkdir()
    for name in ("demo.json", f"signals/{COMPARISON}", "signals/report.html"):
        (tmp_path / name).write_text("{}")
    rebuild_report(tmp_path)
    assert rebuilt == [tmp_path / "signals"]


def test_demo(scan, tmp_path, monkeypatch):
    runs = [run for run in demo_module.RUNS if run.name.endswith("_least_squares") and not run.one_slice]
    runs.append(demo_module.Run("msdki_hierarchical", "msdki", "hierarchical", settings=SHORT))
    data = Dataset(scan.image, scan.bval, scan.bvec, scan.mask, "nowhere", "none", "a scan that was simulated")
    monkeypatch.setattr(demo_module, "RUNS", tuple(runs))
    monkeypatch.setattr(demo_module, "_QUARTER", {name: SHORT for name in demo_module.REFERENCES})
    monkeypatch.setattr(demo_module, "fetch", lambda *_: data)
    out = run_demo(tmp_path / "demo", "small")
    found = {
        "msdki_least_squares": MAPPED | MSDKI, "ball_stick_least_squares": MAPPED | STICK,
        "msdki_hierarchical": SAMPLED | MSDKI | maps("sub-01_model-msdki_", *statistics("D", "K", stats=NARROWED)),
    }  # fmt: skip
    inside = {f"{folder}/{name}" for folder, names in found.items() for name in names}
    assert files(out) == inside | {"demo.json", "headline.png", "report.html"}
