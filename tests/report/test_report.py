"""The report says what the files say, shows them the right way up, and raises the alarms that they call for."""

import gzip
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.image import BboxImage

from pyroqmri.errors import InputError
from pyroqmri.maps import write_maps
from pyroqmri.report import figures, records, verdict, words, write_index, write_report
from pyroqmri.report.canvas import BACKGROUND, MISSING, places
from pyroqmri.report.fit_numbers import numbers_of
from pyroqmri.report.folder_of_maps import read_folder
from pyroqmri.report.geometry import best_view, canonical, canonical_axes
from pyroqmri.signals import SIGNALS

SHAPE = (14, 16, 4)
AFFINE = np.diag([-2.0, 2.0, 3.0, 1.0])  # stored right to left


class FakePosterior:
    """A posterior of a smooth blob, as far as maps ask."""

    has_sd = True

    def __init__(self, mask, signal, axis=(0.0, 0.0, 1.0)):
        n = int(mask.sum())
        model = SIGNALS[signal]
        table = [p for p in (*model.parameters, *model.derived_parameters) if not p.is_direction]
        self.parameters = {p.name: p for p in table}
        self.names = tuple(self.parameters)
        ramp = torch.linspace(0.3, 0.6, n)
        self.mean = {p.name: p.lower + ramp * (p.upper - p.lower) for p in table}
        self.sd = {p.name: 0.05 * (1 + ramp) for p in table}
        self.status = torch.ones(n, dtype=torch.uint8)
        has_axis = any(p.is_direction for p in model.parameters)
        self.direction = torch.tensor(axis).expand(n, 3).clone() if has_axis else None
        self.axes = {p.name: self.direction for p in model.parameters if p.is_direction}
        self.ppc, self.residual = torch.linspace(0.01, 1, n), torch.linspace(0.8, 1.4, n)
        self.responsibilities, self.khat = None, torch.full((n,), 0.2)

    def quantile(self, q):
        return {name: self.mean[name] + (q - 0.5) * self.sd[name] for name in self.names}

    def cone(self, p, name):
        return torch.full((len(self.status),), 12.0)


@pytest.fixture
def mask():
    x, y, z = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j, 0 : 1 : SHAPE[2] * 1j]
    return x**2 + y**2 < 0.8 - 0.3 * z


def record(signal, **changes):
    base = {
        "pyroqmri": "0.1.0",
        "versions": {"torch": "2.13.0"},
        "signal": signal,
        "recipe": "hierarchical",
        "likelihood": "rician",
        "s0": "measured",
        "seed": 3,
        "device": "cpu",
        "seconds": {"prepare": 1.0, "train": 20.5},
        "protocol": {"bval": [0.0, 0.0] + [1.0] * 3 + [2.0] * 6},
        "sigma": {"value": 11.0, "method": "shells", "note": "sigma 11 from the residuals", "learned_factor": 1.02},
        "elbo": {"step": [0, 50, 100], "train": [1.0, 2.0, 2.2], "held_out": [1.0, 1.9, 2.1]},
        "population": {"weights": [1.0], "D": {"unit": "um2/ms", "median_and_68%": [[0.9, 0.7, 1.2]]}},
        "at_bound": {"D": 0.01},
        "fixed": {},
        "tied": {},
        "notes": ["b-values read as s/mm2"],
        "warnings": [],
        "weights_sha256": "ab" * 32,
        "sources": ["sub-01_dwi.nii.gz"],
        "n_voxels": 100,
    }
    return {**base, **changes}


def make(out, mask, signal="msdki", posterior=None, rec=None, affine=AFFINE, khat=False):
    """An output folder as fit leaves it."""
    posterior = FakePosterior(mask, signal) if posterior is None else posterior
    ref = SimpleNamespace(prefix="sub-01", shape=mask.shape, affine=affine)
    write_maps(
        posterior, ref, mask, out, signal_name=signal, suffix="dwimap", recipe="hierarchical",
        likelihood="rician", sources=["sub-01_dwi.nii.gz"], khat=khat,
    )  # fmt: skip
    (out / "fit").mkdir()
    (out / "fit" / "fit.json").write_text(json.dumps(record(signal) if rec is None else rec))
    (out / "fit" / "recipe.toml").write_text('name = "hierarchical"\ndoc = "<script>alert(1)</script>"\n')
    return out


def text_of(page):
    """Words of a page as a reader sees them."""
    body = re.sub(r"<(style|script)\b.*?</\1>", "", page.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


class Links(HTMLParser):
    """Everything that a page loads, and whether its tags close."""

    VOID = {"meta", "img", "br", "link", "input"}

    def __init__(self):
        super().__init__()
        self.loads, self.open, self.ids, self.anchors = [], [], set(), set()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        if tag in {"img", "script", "link", "iframe", "source"}:
            self.loads.append(found.get("src", found.get("href", "")))
        if tag == "a":
            self.anchors.add(found["href"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def folder(tmp_path, mask):
    return make(tmp_path / "fit_a", mask)


def test_the_page_is_whole_and_loads_nothing(folder):
    page = write_report(folder)
    assert page == folder / "report.html"
    parser = Links()
    parser.feed(page.read_text())
    assert parser.open == []
    assert len(parser.loads) >= 5
    assert all(source.startswith("data:image/png;base64,") for source in parser.loads if source)  # "": inline
    assert {a[1:] for a in parser.anchors if a.startswith("#")} <= parser.ids
    assert "url(" not in page.read_text()
    assert "@import" not in page.read_text()
    assert not list(folder.glob(".*partial"))


@pytest.mark.usefixtures("quick")
def test_the_page_tells_what_the_files_tell(folder, mask):
    text = text_of(write_report(folder))
    for expected in (
        f"{int(mask.sum())} fitted",
        "22 s (prepare 1.0 s, train 20 s) on cpu",
        "σ = 11 in the image&#39;s units: 1.02, learned, times 10.8, measured (from the residuals)",
        "b-values read as s/mm2",
        "mean-signal diffusivity",
        "neurological convention: the patient’s left is on the left, the front of the head up",
        "No check raised an alarm.",
        "torch 2.13.0",
        "seed 3",
        "Henriques et al. 2019",
        "0.9 (0.7 to 1.2) µm²/ms",
    ):
        assert expected in text, expected
    assert "&lt;script&gt;" in (folder / "report.html").read_text()


@pytest.mark.usefixtures("quick")
def test_the_report_is_rebuilt_from_the_files_alone(folder, tmp_path):
    first = write_report(folder).read_text()
    assert write_report(shutil.copytree(folder, tmp_path / "moved")).read_text() == first


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "lost",
    ["fit/fit.json", "fit/recipe.toml", "fit", "*.json", "*stat-sd*", "*stat-q*", "*status*", "*ppc*", "*param-K*"],
)
def test_a_folder_with_something_missing_still_has_a_report(folder, lost):
    for path in list(folder.glob(lost)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "Maps" in text_of(write_report(folder))


@pytest.mark.usefixtures("quick")
def test_a_point_estimate_says_that_it_has_no_sd(tmp_path, mask):
    posterior = FakePosterior(mask, "msdki")
    posterior.has_sd, posterior.ppc = False, None
    bare = record("msdki", elbo={}, population={}, at_bound={}, sigma={"value": None}, seconds={}, notes=[])
    text = text_of(write_report(make(tmp_path / "net", mask, posterior=posterior, rec=bare)))
    assert "gives no standard deviation" in text
    assert "Nothing was trained" in text
    assert "point estimates only" in text


def test_a_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(InputError, match="contains no maps"):
        write_report(tmp_path)


def test_a_broken_record_is_named(folder):
    (folder / "fit" / "fit.json").write_text("{")
    with pytest.raises(InputError, match=r"fit\.json is no JSON"):
        write_report(folder)


def test_a_damaged_map_is_named(folder):
    path = folder / "sub-01_model-msdki_param-D_stat-sd_dwimap.nii.gz"
    whole = path.read_bytes()
    # the file cut short, and a whole file of too few numbers
    for damaged in (whole[:200], gzip.compress(gzip.decompress(whole)[:-40])):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"param-D_stat-sd_dwimap\.nii\.gz cannot be read"):
            read_folder(folder).volume("D", "sd")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uninformed": 3}, "entry 'uninformed' must be a list, got 3"),
        ({"fixed": "D"}, "entry 'fixed' must be a table"),
        ({"seconds": {"train": "x"}}, "entry 'seconds.train' must be a finite number"),
        ({"trace": {"step": [0, "1"]}}, r"entry 'trace.step\[1\]' must be a whole number"),
        ({"protocol": {"bval": ["x"]}}, "entry 'protocol' is no protocol"),
        ({"population": {"D": {"median_and_68%": [[1, 2]]}}}, "must have three numbers for each class"),
    ],
)
def test_an_entry_of_the_record_that_no_fit_writes_is_named(changes, words, folder):
    (folder / "fit" / "fit.json").write_text(json.dumps(record("msdki", **changes)))
    with pytest.raises(InputError, match=rf"fit\.json is no record of a fit: .*{words}.*restore it or remove it"):
        read_folder(folder)


def test_a_map_of_another_shape_than_those_beside_it_is_named(folder):
    path = folder / "sub-01_model-msdki_param-D_stat-sd_dwimap.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.float32), AFFINE), path)
    with pytest.raises(InputError, match=r"stat-sd_dwimap\.nii\.gz has the shape \(2, 2, 2\), and other maps"):
        read_folder(folder).volume("D", "sd")


def judged(tmp_path, mask, signal="ball_stick", posterior=None, khat=False, **changes):
    rec = record(signal, **{"at_bound": {}, **changes})
    return verdict.judge(numbers_of(read_folder(make(tmp_path / "v", mask, signal, posterior, rec, khat=khat))))


def test_too_much_learned_noise_is_an_alarm_in_plain_words(tmp_path, mask):
    found = judged(tmp_path, mask, sigma={"value": 19.8, "learned_factor": 1.77})
    assert found.headline == "The ball-stick signal does not describe these data."
    assert [c.kind for c in found.alarms] == ["misfit"]
    assert "1.77 times the measured noise level" in found.alarms[0].text


@pytest.mark.parametrize(
    ("factor", "state"), [(0.86, "alarm"), (0.88, "fine"), (1.14, "fine"), (1.16, "alarm"), (None, "unknown")]
)
def test_the_noise_check_has_its_limits(tmp_path, mask, factor, state):
    checks = judged(tmp_path, mask, sigma={"value": 10.0, "learned_factor": factor}).checks
    assert checks[0].state == state


@pytest.mark.parametrize(("share", "alarms"), [(0.049, 0), (0.051, 1)])
def test_a_parameter_at_its_bound_is_an_alarm(tmp_path, mask, share, alarms):
    found = judged(tmp_path, mask, at_bound={"f": 0.0, "D_par": share})
    assert len(found.alarms) == alarms
    if alarms:
        assert found.headline == "These data do not determine every parameter."
        assert str(found.alarms[0].title) == "Voxels with D_par (<i>D</i><sub>∥</sub>) at its bound"


def test_the_share_at_a_bound_is_counted_where_it_was_not_recorded(tmp_path, mask):
    posterior = FakePosterior(mask, "ball_stick")
    posterior.mean["D_par"][: int(0.1 * mask.sum())] = 3.49
    found = judged(tmp_path, mask, posterior=posterior)
    assert [c.found for c in found.alarms] == ["10 %"] or found.alarms[0].found.startswith("9.")


@pytest.mark.usefixtures("quick")
def test_a_fixed_parameter_is_not_at_a_bound(tmp_path, mask):
    posterior = FakePosterior(mask, "ball_stick")
    posterior.mean["D_par"][:] = 3.5
    found = judged(tmp_path, mask, posterior=posterior, fixed={"D_par": 3.5})
    assert found.level == "fine"
    assert "fixed at 3.5" in text_of(write_report(tmp_path / "v"))


def test_misfitting_voxels_are_an_alarm(tmp_path, mask):
    posterior = FakePosterior(mask, "ball_stick")
    posterior.ppc[: int(0.06 * mask.sum()) + 1] = 1e-5
    found = judged(tmp_path, mask, posterior=posterior)
    assert found.headline == "The ball-stick signal does not describe 6.1 % of the voxels."
    assert found.level == "warning"
    assert len(found.alarms) == 1


def test_a_bad_khat_is_an_alarm_only_when_mapped(tmp_path, mask):
    posterior = FakePosterior(mask, "ball_stick")
    posterior.khat[:] = 0.9
    found = judged(tmp_path, mask, posterior=posterior, khat=True)
    assert found.headline == "The computation did not succeed everywhere."
    shutil.rmtree(tmp_path / "v")
    assert judged(tmp_path, mask, posterior=posterior).level == "fine"


def test_a_signal_with_as_many_parameters_as_shells_cannot_be_judged(tmp_path, mask):
    preparation = {"s0": "measured", "scale": 1.0, "average": True, "magnitude": True}
    posterior = FakePosterior(mask, "msdki")
    posterior.ppc[:] = 1e-6
    found = judged(tmp_path, mask, "msdki", posterior, preparation=preparation)
    assert found.headline == "Model misfit cannot be tested: no more measurements than parameters."
    assert "2 free parameters and the model sees 2 measurements (means over directions)" in found.remark
    shutil.rmtree(tmp_path / "v")
    three = {"bval": [0.0, 0.0, 1.0, 2.0, 3.0]}
    assert judged(tmp_path, mask, "msdki", posterior, preparation=preparation, protocol=three).level == "alarm"


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSL", "IRA", "ALI"])
def test_slices_are_the_right_way_up_however_they_are_stored(codes):
    body = np.zeros((9, 11, 5), np.float32)
    body[2:7, 3:8, 1:4] = 1
    body[2, 5, 1:4] = 2  # towards the patient's left
    body[4, 7, 1:4] = 3  # towards the front
    image = nib.Nifti1Image(body, np.diag([2.0, 2.0, 2.0, 1.0]))
    there = nib.orientations.axcodes2ornt(codes)
    stored = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), there))
    volume, affine = canonical(np.asarray(stored.dataobj), stored.affine)
    view = best_view(volume > 0, affine, 1)
    (shown,) = view.images(volume)
    (left,), (front,) = np.argwhere(shown == 2), np.argwhere(shown == 3)
    middle = np.argwhere(shown > 0).mean(0)
    assert view.plane == "axial"
    assert left[1] < middle[1]  # the patient's left on the left
    assert front[0] < middle[0]  # anterior up


def test_a_thin_slab_is_shown_in_its_own_plane():
    slab = np.ones((2, 20, 30), bool)
    view = best_view(slab, np.diag([5.0, 1.0, 2.0, 1.0]), 3)
    assert (view.plane, view.slices, view.aspect) == ("sagittal", (0, 1), 2.0)
    assert view.images(slab)[0].shape == (30, 20)


def test_slices_keep_apart_in_a_whole_brain():
    z = np.mgrid[-1:1:60j]
    x, y = np.mgrid[-1:1:30j, -1:1:30j]
    brain = x[..., None] ** 2 + y[..., None] ** 2 + z**2 < 0.9
    slices = best_view(brain, np.eye(4), 3).slices
    assert len(slices) == 3
    assert np.diff(slices).min() >= 10


def test_direction_colours_follow_the_body_not_the_file(tmp_path, mask):
    red = figures.direction_rgb(np.array([[0.0, 0.0, -1.0]]), None, (1, 2, 0))
    np.testing.assert_allclose(red, [[1, 0, 0]])
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -2, 2, -2, 1  # stored as PSL
    assert canonical_axes(affine) == (1, 2, 0)
    dim = figures.direction_rgb(np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(dim[1] / dim[0].max(), [0.5, 0, 0], atol=0.01)


def test_robust_limits_reach_for_a_near_bound_and_say_what_they_cut():
    values = np.concatenate([np.linspace(0.05, 0.6, 1000), [0.99]])
    scale = figures.robust_scale(values, "f", "1", bounds=(0.0, 1.0))
    assert scale.lower == 0.0
    assert scale.upper == pytest.approx(np.percentile(values, 98))
    assert scale.extend == "max"
    far = figures.robust_scale(np.linspace(1.0, 2.0, 100), "D", "um2/ms", bounds=(0.0, 4.0))
    assert far.lower == pytest.approx(1.02)
    constant = figures.robust_scale(np.full(9, 1.7), "D", "um2/ms")
    assert constant.lower < 1.7 < constant.upper
    assert figures.robust_scale(np.full(3, np.nan), "D", "um2/ms").upper == 1.0


def test_mean_and_sd_stand_in_the_same_places(folder):
    from pyroqmri.report.atlas import Atlas

    atlas = Atlas(read_folder(folder))
    parameter = atlas.results.parameter("D")
    blocks = [atlas.block(atlas.images("D", s), atlas.scale(parameter, s)) for s in ("mean", "sd")]
    figure = figures.map_panel([blocks], aspect=atlas.view.aspect)
    panels = places(figure)
    assert len(panels) == 4
    assert len({(round(width, 6), round(height, 6)) for _, _, width, height in panels}) == 1
    labels = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert labels == ["$D$ (µm²/ms)", "sd of $D$ (µm²/ms)"]


def test_comparison_panel_shares_one_bar_and_prints_its_numbers():
    volumes = np.random.default_rng(0).random((2, 3, 8, 6))
    scale = figures.Scale("$D$", "um2/ms", 0.0, 1.0)
    numbers = [["", "0.10 µm²/ms", "0.07 µm²/ms"]] * 2
    figure = figures.comparison_panel(["a", "b"], ["full", "LS", "ours"], volumes, scale, numbers=numbers)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["$D$ (µm²/ms)"]
    written = [t.get_text() for t in figure.texts]
    assert written.count("0.07 µm²/ms") == 2
    assert {"a", "b", "full", "LS", "ours"} <= set(written)
    limits = [(shown.norm.vmin, shown.norm.vmax) for shown in figure.artists if isinstance(shown, BboxImage)]
    assert limits == 6 * [(0.0, 1.0)]


def test_maps_lie_on_their_background_and_missing_voxels_on_both():
    image, missing = np.full((4, 4), 0.5), np.zeros((4, 4), bool)
    image[0, 0], image[3, 3], missing[3, 3] = np.nan, np.nan, True
    scale = figures.Scale("$D$", "um2/ms", 0.0, 1.0)
    figure = figures.map_panel([[figures.Block([image], scale, missing=[missing])]])
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    x, y, w, h = places(figure)[0]
    rows, columns = drawn.shape[:2]

    def colour(i, j):
        return drawn[int((1 - y - h * (1 - (i + 0.5) / 4)) * rows), int((x + w * (j + 0.5) / 4) * columns)]

    np.testing.assert_allclose(colour(0, 0), to_rgb(BACKGROUND), atol=0.01)
    np.testing.assert_allclose(colour(3, 3), to_rgb(MISSING), atol=0.01)
    np.testing.assert_allclose(colour(1, 2), colormaps["viridis"](0.5)[:3], atol=0.01)


def test_comparison_panel_with_a_scale_of_its_own_for_the_sd():
    volumes = np.random.default_rng(0).random((2, 3, 8, 6))
    mean, sd = figures.Scale("$D$", "um2/ms", 0, 1), figures.Scale("sd of $D$", "um2/ms", 0, 0.2, "inferno")
    figure = figures.comparison_panel(["", ""], ["a", "b", "c"], volumes, [[mean, mean, sd]] * 2)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["$D$ (µm²/ms)", "sd of $D$ (µm²/ms)"]


def test_figures_leave_the_callers_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.png(figures.histogram(np.linspace(0, 1, 50)), dpi=30)
    assert dict(mpl.rcParams) == before


def test_equal_figures_are_equal_files():
    one, two = (
        figures.png(figures.loss_curve([0, 1], [1, 2], [1, 2], "ELBO per voxel (nats)"), dpi=40) for _ in range(2)
    )
    assert one == two


@pytest.mark.parametrize("signal", sorted(SIGNALS))
def test_every_signal_has_words_symbols_and_an_equation(signal):
    assert verdict.signal_noun(signal)
    assert records.tagline(signal)
    assert figures.png(figures.equation(records.equation_of(signal)), dpi=40)
    for p in (*SIGNALS[signal].parameters, *SIGNALS[signal].derived_parameters):
        assert "\\" not in words.html(p.symbol)


@pytest.mark.parametrize(
    ("symbol", "html"),
    [
        (r"D_\parallel", "<i>D</i><sub>∥</sub>"),
        ("D_{iso}", "<i>D</i><sub>iso</sub>"),
        ("D^*", "<i>D</i><sup>*</sup>"),
        ("S_0", "<i>S</i><sub>0</sub>"),
        (r"\theta", "<i>θ</i>"),
    ],
)
def test_symbols_become_html(symbol, html):
    assert words.html(symbol) == html


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-2.0, "−2"), (123456.0, "123456"), (float("nan"), "–"), (0.00012, "0.00012")],
)
def test_numbers_read_well(value, text):
    assert words.number(value) == text


def test_shells_are_counted_with_their_axes():
    bvec = [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1]]
    rows = records.shells({"bval": [0.0, 1.0, 1.0, 1.0, 2.0], "bvec": bvec})
    assert rows == [("0", "1", "–"), ("1000", "3", "2"), ("2000", "1", "1")]


@pytest.mark.usefixtures("quick")
def test_the_index_links_its_fits(tmp_path, mask):
    make(tmp_path / "a fit", mask)
    make(tmp_path / "b", mask, "ball_stick", rec=record("ball_stick", sigma={"value": 20.0, "learned_factor": 1.8}))
    for name in ("a fit", "b"):
        write_report(tmp_path / name)
    picture = tmp_path / "figure.png"
    picture.write_bytes(figures.png(figures.histogram(np.linspace(0, 1, 50)), dpi=30))
    table = [["fit", "seconds"], ["a", "3.1"]]
    page = write_index(
        tmp_path, "Two fits", [(picture, "a < b")], ["a fit", "b"], table, intro="Both.", notes=["Real."]
    )
    parser = Links()
    parser.feed(page.read_text())
    assert parser.open == []
    assert parser.anchors == {"a%20fit/report.html", "b/report.html"}
    assert all(source.startswith("data:") for source in parser.loads)
    text = text_of(page)
    for expected in (
        "Two fits",
        "a &lt; b",
        "3.1",
        "Both.",
        "Real.",
        "The ball-stick signal does not describe these data.",
    ):
        assert expected in text, expected


@pytest.mark.usefixtures("quick")
def test_a_card_with_an_alarm_names_the_better_signal(tmp_path, mask):
    make(tmp_path / "good", mask)
    make(tmp_path / "bad", mask, "ball_stick", rec=record("ball_stick", sigma={"value": 20.0, "learned_factor": 1.8}))
    better = {"ball_stick": "dki is ahead in 70 % of voxels.", "msdki": "never shown"}
    page = write_index(tmp_path, "x", (), ["good", "bad"], better=better)
    assert "dki is ahead in 70 % of voxels." in text_of(page)
    assert "never shown" not in text_of(page)
    assert 'class="alarm"' not in page.read_text()
    assert 'class="alarm"' in write_index(tmp_path, "x", (), ["good", "bad"]).read_text()


def test_the_index_names_a_figure_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"none\.png"):
        write_index(tmp_path, "x", [(tmp_path / "none.png", "")])


@pytest.mark.slow
def test_a_real_slice_by_least_squares_and_its_report(tmp_path, shared_data):
    import pyroqmri as pq
    from pyroqmri.fitting.save import save_fit
    from pyroqmri.io import read_scan

    source = Path(shared_data) / "mdt_b1k_b2k"
    scan = read_scan(source / "dwi.nii.gz", mask=source / "mask.nii.gz")
    fit = pq.fit(scan.y, scan.acquisition, signal="ball_stick", recipe="least_squares")
    write_maps(
        fit.posterior(scan.y), scan.ref, scan.mask, tmp_path, signal_name="ball_stick", suffix="dwimap",
        recipe="least_squares", likelihood="gaussian", sources=["dwi.nii.gz"],
    )  # fmt: skip
    save_fit(fit, tmp_path / "fit", {"notes": scan.notes})
    found = verdict.judge(numbers_of(read_folder(tmp_path)))
    # findings: the free ball-stick does not fit these slices
    assert found.headline.startswith("The ball-stick signal does not describe these data")
    text = text_of(write_report(tmp_path))
    assert "asymptotic standard error" in text
    assert "1000 30 30 2000 60 60" in text
