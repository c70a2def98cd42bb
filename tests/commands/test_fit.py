"""From files to files: outputs that are whole or not there, images in blocks, and the demo's comparison."""

import json
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

import pyroqmri as pq
from pyroqmri.acquisition import Acquisition
from pyroqmri.commands import apply_image, fit_image, fit_outputs, inputs, rebuild_report, summary_blocks
from pyroqmri.commands import fit as fit_module
from pyroqmri.commands.demo import demo as demo_module
from pyroqmri.commands.demo.demo import run_demo
from pyroqmri.commands.demo.index import demo_table, read_demo
from pyroqmri.commands.demo.quarter import compare_quarter, tissues
from pyroqmri.commands.fit_outputs import shares_of_fitted
from pyroqmri.commands.inputs import digest
from pyroqmri.commands.manifest import CALL, CHECKPOINT, MANIFEST
from pyroqmri.commands.noise import given_noise
from pyroqmri.commands.output_folder import output_folder, remember_call
from pyroqmri.commands.processes import Outcome
from pyroqmri.commands.summary import PointSummary, summarise
from pyroqmri.errors import InputError, TrainingError
from pyroqmri.fitting import train as train_module
from pyroqmri.fitting.save import save_fit
from pyroqmri.measurements.thinning import thin
from pyroqmri.report.fit_numbers import numbers_of
from pyroqmri.report.folder_of_maps import read_folder
from pyroqmri.report.verdict import judge
from pyroqmri.signals.bound import S0
from pyroqmri.svi import SVILoop
from tests.small_scan import SHAPE, SIGMA, gradients, write_scan

SHORT = {"training.steps": 20, "training.batch_size": 64}


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "in")


@pytest.fixture
def read(scan):
    return scan.files.read("ball_stick")


def volume(folder, pattern):
    (path,) = folder.glob(pattern)
    return np.asarray(nib.load(path).dataobj)


def record_of(folder):
    return json.loads((folder / "fit" / "fit.json").read_text())


# the output folder


def test_an_output_appears_whole(tmp_path):
    with output_folder(tmp_path / "a" / "b" / "out") as folder:
        (folder / "map").write_text("1")
        assert not (tmp_path / "a" / "b" / "out").exists()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["out"]
    assert (tmp_path / "a" / "b" / "out" / "map").read_text() == "1"


def fail(out, error, *names):
    """Write some files, and end with an error."""
    with output_folder(out) as folder:
        for name in names:
            (folder / name).write_text("state")
        raise error("no")


@pytest.mark.parametrize("error", [InputError, TrainingError, KeyboardInterrupt, RuntimeError])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error):
        fail(tmp_path / "a" / "out", error, "map", "fit.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "kept"), [(InputError, True), (KeyboardInterrupt, True), (TrainingError, False)])
def test_a_checkpoint_outlives_what_interrupts_training_but_not_a_divergence(tmp_path, error, kept):
    with pytest.raises(error) as caught:
        fail(tmp_path / "out", error, CHECKPOINT, CALL, "map")
    left = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert left == ([CALL, CHECKPOINT] if kept else [])
    said = any("--resume" in note for note in getattr(caught.value, "__notes__", []))
    assert said == (error is KeyboardInterrupt)
    if kept:
        with output_folder(tmp_path / "out", resume=True) as folder:
            assert (folder / CHECKPOINT).read_text() == "state"
        assert [p.name for p in (tmp_path / "out").iterdir()] == [MANIFEST]


def test_a_fresh_run_forgets_the_checkpoint_of_another(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path / "out", KeyboardInterrupt, CHECKPOINT)
    with output_folder(tmp_path / "out") as folder:
        assert remember_call(folder, {"seed": 0}, resume=False) == []
        assert not (folder / CHECKPOINT).exists()


def test_only_the_same_call_goes_on_from_a_checkpoint(tmp_path):
    remember_call(tmp_path, {"seed": 0, "tied": {}}, resume=False)
    (tmp_path / CHECKPOINT).write_text("state")
    remember_call(tmp_path, {"seed": 0, "tied": {}}, resume=True)
    with pytest.raises(InputError, match="seed differs: 0 then, 1 now"):
        remember_call(tmp_path, {"seed": 1, "tied": {}}, resume=True)


def test_only_our_own_folders_are_replaced(tmp_path):
    out = tmp_path / "out"
    with output_folder(out) as folder:
        (folder / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "pyroqmri"}]}')
    with pytest.raises(InputError, match="--overwrite"), output_folder(out):
        pass
    with (
        pytest.raises(InputError, match=r"scan.nii.gz lies in"),
        output_folder(out, overwrite=True, inputs=[out / "scan.nii.gz"]),
    ):
        pass
    with pytest.raises(RuntimeError), output_folder(out, overwrite=True) as folder:
        raise RuntimeError
    assert (out / "dataset_description.json").exists()
    with output_folder(out, overwrite=True) as folder:
        (folder / "new").write_text("")
    assert sorted(p.name for p in out.iterdir()) == [MANIFEST, "new"]
    (out / "mine").write_text("")
    with pytest.raises(InputError, match=r"did not write \(mine\)"), output_folder(out, overwrite=True):
        pass


# summaries in blocks


@pytest.mark.parametrize("recipe", ["hierarchical", "least_squares"])
def test_blocks_add_up_to_the_posterior(read, monkeypatch, recipe):
    y = read.y.copy()
    y[40:90] = np.nan  # a whole block of 25 and parts of others
    fit = pq.fit(
        y,
        read.acquisition,
        signal="ball_stick",
        recipe=recipe,
        sigma=SIGMA,
        settings=SHORT if recipe != "least_squares" else {},
    )
    whole = fit.posterior(y)
    monkeypatch.setattr(summary_blocks, "BLOCK", 25)
    parts = summarise(fit, y)
    np.testing.assert_array_equal(parts.status, whole.status)
    for name in whole.names:
        for one, other in (
            (parts.mean, whole.mean),
            (parts.sd, whole.sd),
            (parts.quantile(0.05), whole.quantile(0.05)),
        ):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(parts.ppc, whole.ppc, atol=1e-3)
    np.testing.assert_allclose(parts.residual, whole.residual, rtol=1e-3)
    assert isinstance(parts, PointSummary) == (recipe == "least_squares")
    assert hasattr(parts, "cone") == (recipe == "hierarchical")
    assert parts.n_fitted == len(y) - 50


def test_two_processes_make_the_same_maps_and_a_lost_one_is_named(read, monkeypatch):
    fit = pq.fit(read.y, read.acquisition, signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    one = summarise(fit, read.y)
    monkeypatch.setattr(summary_blocks, "BLOCK", 60)
    two = summarise(fit, read.y, jobs=2)
    np.testing.assert_array_equal(two.status, one.status)
    for name in one.names:
        np.testing.assert_allclose(two.mean[name], one.mean[name], rtol=2e-3, atol=2e-3)
    assert (two.n_fitted, two.n_at_bound) == (one.n_fitted, one.n_at_bound)
    monkeypatch.setattr(summary_blocks, "run_here", lambda *_: iter([Outcome(0, lost="it was killed")]))
    with pytest.raises(InputError, match=r"voxels 0 to 59 were not mapped .* fewer --jobs"):
        summarise(fit, read.y, jobs=2)


def test_a_scan_without_a_usable_voxel_is_refused(scan):
    scan.write_image(np.full_like(scan.values, np.nan))
    with pytest.raises(InputError, match="no voxel with finite values"):
        scan.files.read("msdki")


# fit and apply


def test_a_fit_writes_what_the_contract_names(scan, tmp_path):
    out = fit_image(scan.files, signal="ball_stick", recipe="hierarchical", settings=SHORT, out=tmp_path / "out")
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    stats = {
        f"param-{p}_stat-{s}" for p in ("f", "D_par", "D_iso", "theta", "phi") for s in ("mean", "sd", "q05", "q95")
    }
    stats |= {f"param-{p}_stat-contraction" for p in ("f", "D_par", "D_iso")}
    maps = {
        f"sub-01_model-ball_stick_{s}_dwimap"
        for s in (*stats, "param-n_stat-mean", "param-n_stat-cone90", "desc-ppc", "desc-residual")
    }
    maps |= {"sub-01_model-ball_stick_desc-status_mask"}
    assert {n + e for n in maps for e in (".nii.gz", ".json")} <= names
    assert names - {n + e for n in maps for e in (".nii.gz", ".json")} == {
        "dataset_description.json", ".bidsignore", MANIFEST, "report.html", "methods.txt", "references.bib",
        "posterior.nc", "voxels.npz", "fit/recipe.toml", "fit/weights.safetensors", "fit/fit.json",
    }  # fmt: skip
    record = record_of(out)
    assert record["sources"] == ["sub-01_dwi.nii.gz"]
    assert record["n_voxels"] == record["n_mapped"] == scan.inside.sum()
    assert sum(record["status_counts"].values()) == scan.inside.sum()
    assert set(record["at_bound"]) == {"f", "D_par", "D_iso"}
    assert {"read", "prepare", "start", "train", "posterior"} <= set(record["seconds"])
    assert str(tmp_path) not in (out / "fit" / "fit.json").read_text()


@pytest.mark.usefixtures("no_pages")
def test_the_causes_of_misfit_are_looked_for_once(scan, tmp_path, monkeypatch):
    looked, found = [], fit_outputs.scan_causes
    for module in (train_module, fit_outputs):
        monkeypatch.setattr(module, "scan_causes", lambda *args, **kw: looked.append(1) or found(*args, **kw))
    fit_image(scan.files, signal="ball_stick", recipe="least_squares", out=tmp_path / "out")
    assert len(looked) == 1
    read = scan.files.read("ball_stick")
    pq.fit(read.y, read.acquisition, signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    assert len(looked) == 2


@pytest.mark.usefixtures("no_pages")
def test_resume_goes_on_from_the_step_of_the_checkpoint(scan, tmp_path, monkeypatch):
    steps, honest = [], SVILoop.one_step

    def one_step(loop):
        if loop.step == 7 and 7 not in steps:
            steps.append(7)
            raise KeyboardInterrupt
        steps.append(loop.step)
        honest(loop)

    def call(**more):
        settings = SHORT | {"training.steps": 9, "training.checkpoint_every": 5}
        return fit_image(scan.files, signal="msdki", recipe="hierarchical", settings=settings,
                         out=tmp_path / "out", **more)  # fmt: skip

    monkeypatch.setattr(SVILoop, "one_step", one_step)
    monkeypatch.setattr(fit_module, "write_results", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        call()
    steps[:] = [7]
    call(resume=True)
    assert steps[1:] == [5, 6, 7, 8]


@pytest.mark.usefixtures("no_pages")
def test_the_netcdf_holds_draws_of_voxels_by_their_place_in_the_mask(scan, tmp_path):
    values = scan.values.copy()
    values[1:3, 1:-1] = np.nan
    scan.write_image(values)
    out = fit_image(scan.files, signal="msdki", recipe="hierarchical", settings=SHORT, out=tmp_path / "out")
    import h5netcdf

    with h5netcdf.File(out / "posterior.nc") as file:
        draws, place = file["posterior"]["D"][...], file["posterior"]["voxel"][...]
    mean = volume(out, "*param-D_stat-mean*.nii.gz")[scan.inside]
    assert np.isfinite(mean[place]).all()
    assert place.max() > 90
    np.testing.assert_allclose(draws.mean((0, 1)), mean[place], atol=0.1)


@pytest.mark.usefixtures("no_pages")
def test_the_noise_level_can_be_a_map(scan, tmp_path):
    sigma = np.full(SHAPE, SIGMA, np.float32)
    sigma[:4] *= 3
    path = tmp_path / "sigma.nii.gz"
    nib.save(nib.Nifti1Image(sigma, np.diag([-2.0, 2, 2, 1])), path)
    out = fit_image(scan.files, signal="ball_stick", recipe="least_squares", sigma=path, out=tmp_path / "out")
    sd = volume(out, "*param-f_stat-sd_dwimap.nii.gz")
    low, high = (np.nanmedian(sd[half][scan.inside[half]]) for half in (np.s_[4:], np.s_[:4]))
    assert high / low == pytest.approx(3, rel=0.4)
    assert record_of(out)["sigma"]["value"] in (SIGMA, 3 * SIGMA)
    sigma[2, 2, 2] = 0
    nib.save(nib.Nifti1Image(sigma, np.eye(4)), path)
    with pytest.raises(InputError, match=r"does not lie on the grid of image .*an identity affine"):
        fit_image(scan.files, signal="msdki", recipe="least_squares", sigma=path, out=tmp_path / "o")


@pytest.mark.usefixtures("no_pages")
def test_a_noise_map_goes_with_its_voxels_into_training_and_posterior(scan, tmp_path, monkeypatch):
    import h5netcdf

    scan.write_image(scan.values * np.linspace(1, 3, SHAPE[0])[:, None, None, None])
    path = tmp_path / "sigma.nii.gz"
    level = 0.02 * scan.values[..., :3].mean(-1).astype(np.float32)
    nib.save(nib.Nifti1Image(level, np.diag([-2.0, 2, 2, 1])), path)
    seen, honest = [], fit_module.fit

    def fit(y, *rest, **options):
        seen.append((y, options["sigma"]))
        return honest(y, *rest, **options)

    monkeypatch.setattr(inputs, "TRAINING_VOXELS", 60)
    monkeypatch.setattr(fit_module, "fit", fit)
    out = fit_image(
        scan.files, signal="msdki", recipe="hierarchical", s0="inferred", sigma=path, settings=SHORT,
        out=tmp_path / "out",
    )  # fmt: skip
    ((trained, sigma),) = seen
    assert len(trained) == 60
    np.testing.assert_allclose(sigma, 0.02 * trained[:, :3].mean(1), rtol=1e-3)
    with h5netcdf.File(out / "posterior.nc") as file:
        found, place = file["constant_data"]["sigma"][...], file["posterior"]["voxel"][...]
    scale = record_of(out)["preparation"]["scale"]
    np.testing.assert_allclose(found * scale, level[scan.inside][place], rtol=1e-3)
    # S0 is written in the units of the scan, and so are its bounds
    (sidecar,) = out.glob("*param-S0_stat-mean_*.json")
    said = json.loads(sidecar.read_text())
    assert said["Units"] == "a.u."
    np.testing.assert_allclose(said["Bounds"], [S0.lower * scale, S0.upper * scale])


def test_a_noise_level_that_nothing_shows_comes_from_the_residuals(read):
    assert given_noise(read, "estimate").sigma == pytest.approx(SIGMA, rel=0.2)
    assert given_noise(read, 3) == 3.0
    one_each = torch.tensor([0, 3, 15])
    part = replace(read, y=read.y[:, one_each], acquisition=read.acquisition[one_each], background=None)
    assert given_noise(part, "estimate") is None


@pytest.mark.usefixtures("no_pages")
def test_a_large_image_is_learned_from_in_part_and_mapped_whole(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "TRAINING_VOXELS", 60)
    out = fit_image(scan.files, signal="msdki", recipe="hierarchical", settings=SHORT, out=tmp_path / "out")
    record = record_of(out)
    assert (record["n_voxels"], record["n_mapped"]) == (60, scan.inside.sum())
    assert any("60 of the 144 voxels" in note for note in record["notes"])
    assert np.isfinite(volume(out, "*param-D_stat-mean*.nii.gz")[scan.inside]).all()


def test_voxels_to_learn_from_are_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(inputs, "TRAINING_VOXELS", 60)
    whole = SimpleNamespace(y=np.arange(144.0)[:, None], inputs={})
    one, same, other = (inputs.training_voxels(whole, None, seed).y[:, 0].tolist() for seed in (1, 1, 2))
    assert len(set(one)) == 60
    assert one == sorted(same)
    assert one != other


def test_a_share_at_a_bound_is_of_the_voxels_that_were_fitted():
    known = SimpleNamespace(n_fitted=6, status=torch.zeros(10))
    assert shares_of_fitted(known, {"D": 3, "K": 0}) == {"D": 0.5, "K": 0.0}


@pytest.mark.usefixtures("no_pages")
@pytest.mark.slow
def test_noise_that_has_to_grow_raises_an_alarm(scan, tmp_path):
    out = fit_image(
        scan.files, signal="msdki", recipe="hierarchical", sigma="learn", out=tmp_path / "fine",
        settings={"training.steps": 150, "data.average": "volumes"},
    )  # fmt: skip
    record = record_of(out)
    # directions as repeats: their spread passes for noise
    assert record["sigma"]["learned_factor"] > 1.15
    assert any("noise" in warning for warning in record["warnings"])


@pytest.mark.usefixtures("no_pages")
@pytest.mark.slow
def test_directions_may_turn_from_subject_to_subject(scan, tmp_path):
    first = fit_image(scan.files, signal="ball_stick", recipe="hierarchical", settings=SHORT, out=tmp_path / "first")
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    scan.write_gradients(scan.b, scan.g @ turn.T)
    second = apply_image(first, scan.files, out=tmp_path / "second")
    for name in ("f", "D_par"):
        one, other = (volume(folder, f"*param-{name}_stat-mean_dwimap.nii.gz") for folder in (first, second))
        np.testing.assert_allclose(one, other, atol=0.02)
    axes = [volume(folder, "*param-n_stat-mean_dwimap.nii.gz")[scan.inside] for folder in (first, second)]
    angle = np.rad2deg(np.arccos(np.abs((axes[0] @ turn.T * axes[1]).sum(-1)).clip(max=1)))
    assert np.median(angle) < 1
    assert np.quantile(angle, 0.95) < 5


@pytest.mark.usefixtures("no_pages")
@pytest.mark.slow
def test_apply_takes_the_noise_level_that_was_given_else_measures_it(scan, tmp_path):
    common = {"signal": "msdki", "recipe": "least_squares"}
    given = fit_image(scan.files, sigma=12.5, out=tmp_path / "given", **common)
    measured = fit_image(scan.files, out=tmp_path / "measured", **common)
    scan.write_image(2 * scan.values)
    again = [apply_image(folder, scan.files, out=tmp_path / f"{folder.name}2") for folder in (given, measured)]
    assert record_of(again[0])["sigma"]["value"] == pytest.approx(12.5)
    assert record_of(again[1])["sigma"]["value"] == pytest.approx(2 * record_of(measured)["sigma"]["value"], rel=1e-3)
    other = apply_image(measured, scan.files, sigma=7, out=tmp_path / "seven")
    assert record_of(other)["sigma"]["value"] == pytest.approx(7)


@pytest.mark.parametrize(("recipe", "khat"), [("least_squares", False), ("hierarchical", True)])
def test_the_verdict_in_hand_is_that_of_the_files_and_is_written_once(scan, tmp_path, monkeypatch, recipe, khat):
    values = scan.values.copy()
    values[2:5, 2:5, :, 5] *= 0.2  # of voxels inside, more than the share that is an alarm
    scan.write_image(values)
    verdicts, saved = [], []
    monkeypatch.setattr(fit_outputs, "judge", lambda fit: verdicts.append(judge(fit)) or verdicts[-1])
    monkeypatch.setattr(fit_outputs, "save_fit", lambda *args: saved.append(args) or save_fit(*args))
    settings = {} if recipe == "least_squares" else SHORT
    out = fit_image(
        scan.files, signal="ball_stick", recipe=recipe, sigma=SIGMA, khat=khat, settings=settings, out=tmp_path / "out"
    )
    assert verdicts == [judge(numbers_of(read_folder(out)))]
    assert verdicts[0].level == "alarm"
    outlier, *alarms = record_of(out)["alarms"]
    assert outlier.startswith("volume 5 ")
    assert alarms == [check.plain for check in verdicts[0].alarms]
    assert len(saved) == 1


def test_another_protocol_is_taken_by_a_search_and_refused_by_a_network(read):
    fit = pq.fit(read.y, read.acquisition, signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    assert fit.on(read.acquisition) is fit
    assert len(fit.on(read.acquisition[:-1]).acquisition) == 26
    settings = {"training.epochs": 1, "training.starts": 1}
    fit = pq.fit(
        read.y, read.acquisition, signal="ball_stick", recipe="self_supervised", sigma=SIGMA, settings=settings
    )
    with pytest.raises(InputError, match=r"26 volumes .* is trained for one protocol; .*retrain"):
        fit.on(read.acquisition[:-1])
    with pytest.raises(InputError, match=r"24 volumes, the first is volume 3"):
        fit.on(Acquisition(bval=1.2 * read.acquisition.bval, bvec=read.acquisition.bvec))


def test_the_same_data_have_the_same_digest(read):
    assert digest(read.y) == digest(read.y.copy())
    other = read.y.copy()
    other[-1, -1] += 1
    assert digest(read.y) != digest(other)


# a quarter of the volumes


def smallest_angle(axes):
    closeness = np.abs(axes @ axes.T)
    np.fill_diagonal(closeness, 0)
    return np.rad2deg(np.arccos(closeness.max().clip(max=1)))


def test_thinning_keeps_every_shell_and_spreads_its_directions():
    b, g = gradients(n_b0=13, n=60)
    acquisition = Acquisition(bval=b / 1000, bvec=g)
    kept = thin(acquisition, 0.25)
    assert (np.diff(kept) > 0).all()
    assert [(b[kept] == value).sum() for value in (0, 1000, 2000)] == [3, 15, 15]
    rng = np.random.default_rng(0)
    shell = np.flatnonzero(b == 2000)
    by_chance = [smallest_angle(g[rng.choice(shell, 15, replace=False)]) for _ in range(200)]
    # the chance that 200 random choices all do worse than a choice no better than they are is 1/201
    assert smallest_angle(g[kept[b[kept] == 2000]]) > max(by_chance)


def test_thinning_of_a_ladder_of_b_values_keeps_its_span():
    b = np.concatenate([[0.0], np.linspace(0.2, 3, 40)])
    kept = thin(Acquisition(bval=b, bvec=np.eye(3)[np.arange(41) % 3] * (b > 0)[:, None]), 0.25)
    assert 0 in kept
    assert len(kept) == 11
    assert {1, 40} <= set(kept)


def test_the_comparison_measures_what_it_says(read):
    fit = pq.fit(read.y, read.acquisition, signal="ball_stick", recipe="least_squares", sigma=SIGMA)
    reference = summarise(fit, read.y)
    wholes = {"ball_stick": {"least squares": reference, "posterior mean": reference}}
    quarter = compare_quarter(read, wholes, {"ball_stick": {"training.steps": 60}}, False)
    assert len(quarter.differences) == 3 * 2 * 3
    own = {(d.parameter, d.tissue): d for d in quarter.differences if d.reference == "posterior mean"}
    found = {(d.parameter, d.tissue, d.estimator): d for d in quarter.differences if d.reference == "least squares"}
    assert own["f", "all"].median == found["f", "all", "posterior mean"].median
    by_hand = (quarter.summaries["ball_stick", "posterior mean"].mean["f"] - reference.mean["f"]).abs()
    assert found["f", "all", "posterior mean"].median == pytest.approx(float(by_hand.quantile(0.5)), rel=1e-3)
    assert found["f", "all", "posterior mean"].p90 == pytest.approx(float(by_hand.quantile(0.9)), rel=1e-3)
    assert found["f", "all", "posterior mean"].n == len(read.y)
    # few voxels and 7 volumes: the population helps where least squares runs to a bound
    assert found["D_par", "all", "posterior mean"].p90 < found["D_par", "all", "least squares"].p90
    assert 0.6 < found["D_par", "all", "posterior mean"].inside <= 1


def test_white_matter_is_where_diffusion_is_anisotropic(read):
    b, g = gradients()
    isotropic = 500 * np.exp(-b / 1000 * 0.8)
    stick = 500 * np.exp(-b / 1000 * (0.3 + 1.4 * g[:, 0] ** 2))
    water = 500 * np.exp(-b / 1000 * (2.0 + 1.0 * g[:, 0] ** 2))
    dead = np.zeros_like(b)
    found = tissues(replace(read, y=np.stack([isotropic, stick, water, dead]).astype(np.float32)))
    np.testing.assert_array_equal(found["white matter"][:3], [False, True, False])
    assert found["all"].all()


@pytest.mark.slow
def test_the_demo_runs_without_a_network(tmp_path, monkeypatch):
    names = ("msdki_vae_unig", "ball_stick_hierarchical")
    runs = [replace(run, settings={"training.steps": 20}) for run in demo_module.RUNS if run.name in names]
    runs += [run for run in demo_module.RUNS if run.name.endswith("_least_squares") and not run.one_slice]
    monkeypatch.setattr(demo_module, "RUNS", tuple(runs))
    monkeypatch.setattr(demo_module, "_QUARTER", {name: {"training.steps": 20} for name in demo_module.REFERENCES})
    out = run_demo(tmp_path / "demo", "small")
    record = read_demo(out)
    assert record["runs"] == [run.name for run in runs]
    assert record["failed"] == {}
    assert (out / "headline.png").read_bytes().startswith(b"\x89PNG")
    for run in runs:
        assert (out / run.name / "report.html").is_file()
    table = demo_table(record)
    assert len(table) == 1 + 7 * 2  # S0 is inferred: no volume of this scan is below b 6
    assert {len(row) for row in table} == {len(table[0])}
    page = (out / "report.html").read_text()
    assert "dipy" in page
    assert all(run.name in page for run in runs)
    assert str(tmp_path) not in page
    (out / "report.html").unlink()
    assert rebuild_report(out) == out / "report.html"
    assert (out / "report.html").read_text() == page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo"]


@pytest.mark.slow
def test_one_recipe_that_diverges_does_not_stop_the_demo(tmp_path, monkeypatch):
    runs = tuple(run for run in demo_module.RUNS if run.name.endswith("_least_squares") and not run.one_slice)
    bad = replace(demo_module.RUNS[1], name="bad", settings={"training.steps": 1})
    whole = demo_module.write_run

    def write_run(run, *rest):
        if run.name == "bad":
            raise TrainingError("it fell over")
        return whole(run, *rest)

    monkeypatch.setattr(demo_module, "RUNS", (bad, *runs))
    monkeypatch.setattr(demo_module, "write_run", write_run)
    monkeypatch.setattr(demo_module, "_QUARTER", {name: {"training.steps": 5} for name in demo_module.REFERENCES})
    out = run_demo(tmp_path / "demo", "small")
    assert read_demo(out)["failed"] == {"bad": "it fell over"}
    assert "it fell over" in (out / "report.html").read_text()
