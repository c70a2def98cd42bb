"""Uncertainty in the report: opacity that is certainty, classes, and one voxel's draws in the right place."""

import base64
import json
import re
import shutil
import subprocess
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.image import imread

from pyroqmri.report import uncertainty, words, write_report
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.canvas import colours_of
from pyroqmri.report.folder_of_maps import read_folder
from pyroqmri.report.page import read_first
from pyroqmri.report.pairs import STEPS, pair_data, read_draws
from tests.report.test_report import AFFINE, SHAPE, FakePosterior, Links, make, record, text_of

N_DRAWS = 40
MASK = np.indices(SHAPE)[0] + 2 * np.indices(SHAPE)[1] > 12  # no symmetry, so a flip shows


def atlas_of(folder, mask, signal="msdki", posterior=None, affine=AFFINE):
    return Atlas(read_folder(make(folder, mask, signal, posterior, record(signal), affine)))


def write_draws(folder, mask, names=("D", "K"), every=7):
    """``posterior.nc`` of some voxels: draws ``(1, S, V)`` around 1, 2, ... with their voxel's number in them."""
    index = np.argwhere(mask)[::every]
    noise = np.random.default_rng(0).standard_normal((len(names), 1, N_DRAWS, len(index)))
    values = {n: (("chain", "draw", "voxel"), 1 + p + 0.1 * noise[p]) for p, n in enumerate(names)}
    coords = {a: ("voxel", index[:, i]) for i, a in enumerate("ijk")}
    data = xr.Dataset(values, coords)
    data.to_netcdf(folder / "posterior.nc", group="posterior", engine="h5netcdf")
    return index, data


def with_classes(mask, shares, names=("csf", "tissue", "rare")):
    """A posterior whose voxels belong to classes one after the other."""
    posterior = FakePosterior(mask, "msdki")
    n = int(mask.sum())
    ends = np.cumsum([int(share * n) for share in shares[:-1]])
    owner = np.digitize(np.arange(n), ends)
    posterior.responsibilities = torch.from_numpy(0.94 * np.eye(len(shares))[owner] + 0.02).float()
    posterior.class_names = names
    return posterior, owner


def test_a_known_voxel_is_opaque_and_an_unknown_one_transparent():
    mean, sd = np.array([1.0, 1.0, 1.0, 1.0, np.nan, 1.0]), np.array([0.0, 0.25, 0.5, 9.0, 0.0, np.nan])
    np.testing.assert_allclose(uncertainty.certainty(mean, sd, 0.5), [1, 0.5, 0, 0, 0, 0])
    assert uncertainty.certainty(np.ones(1), np.zeros(1), 0.0) == 1.0


def test_the_map_of_means_fades_where_the_sd_is_large(tmp_path):
    posterior = FakePosterior(MASK, "msdki")
    n = int(MASK.sum())
    posterior.sd["D"] = torch.where(torch.arange(n) % 2 == 0, 1e-7, 50.0)
    atlas = atlas_of(tmp_path / "f", MASK, posterior=posterior)
    scale = atlas.scale(atlas.results.parameter("D"), "mean")
    block = uncertainty.faded(atlas, "D", scale, spread=0.5)
    for image, mean, sd, inside in zip(
        block.images, atlas.images("D", "mean"), atlas.images("D", "sd"), atlas.view.images(MASK[::-1]), strict=True
    ):
        np.testing.assert_allclose(image[inside][:, 3], (sd[inside] < 1).astype(float), atol=1e-5)
        np.testing.assert_allclose(image[inside][:, :3], colours_of(mean, scale)[inside][:, :3], atol=1e-6)
        assert (image[~inside][:, 3] == 0).all()
    caption = uncertainty.certainty_picture(atlas, "D").caption.striptags()
    values = atlas.values("D", "mean")
    half = np.diff(np.percentile(values, [16, 84]))[0] / 2
    assert f"transparent where it reaches {half:.3g} µm²/ms" in caption
    share = np.median(uncertainty.certainty(values, atlas.values("D", "sd"), half))
    assert f"Median opacity {words.percent(share)}" in caption


def test_interval_widths_are_those_of_the_quantile_maps(tmp_path):
    atlas = atlas_of(tmp_path / "f", MASK)
    caption = uncertainty.certainty_picture(atlas, "D").caption.striptags()
    width = np.median(0.9 * 0.05 * (1 + np.linspace(0.3, 0.6, int(MASK.sum()))))
    assert f"{width:.3g} µm²/ms wide in the median voxel" in caption


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSL", "IRA", "ALI"])
def test_a_chosen_voxel_lies_where_the_map_shows_it(tmp_path, codes):
    there = nib.orientations.axcodes2ornt(codes)
    image = nib.Nifti1Image(MASK.astype(np.uint8), np.diag([2.0, 2.0, 3.0, 1.0]))
    stored = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), there))
    here = np.asarray(stored.dataobj) > 0
    posterior = FakePosterior(here, "msdki")  # its D differs from voxel to voxel
    atlas = atlas_of(tmp_path / "f", here, posterior=posterior, affine=stored.affine)
    index, _ = write_draws(tmp_path / "f", here)
    data = json.loads(pair_data(atlas, ["D", "K"]).data)
    assert len(data["voxels"]) == len(index)
    pictures = [imread(BytesIO(base64.b64decode(url.split(",")[1]))) for url in data["images"]]
    assert {p.shape[:2] for p in pictures} == {(data["height"], data["width"])}
    mean = np.zeros(here.shape)
    mean[here] = posterior.mean["D"].numpy()
    scale = atlas.scale(atlas.results.parameter("D"), "mean")
    for voxel in data["voxels"]:
        shown = pictures[voxel["slice"]][voxel["row"], voxel["column"]]
        np.testing.assert_allclose(shown, colours_of(mean[tuple(voxel["ijk"])][None, None], scale)[0, 0], atol=0.01)


def test_a_thin_slab_in_another_plane_keeps_its_voxels_in_place(tmp_path):
    slab = np.zeros((20, 3, 16), bool)
    slab[4:15, :, 3:12] = True
    posterior = FakePosterior(slab, "msdki")
    atlas = atlas_of(tmp_path / "f", slab, posterior=posterior, affine=np.diag([-1.0, 5.0, 1.0, 1.0]))
    assert atlas.view.plane == "coronal"
    write_draws(tmp_path / "f", slab)
    data = json.loads(pair_data(atlas, ["D", "K"]).data)
    assert {v["ijk"][1] for v in data["voxels"]} == {0, 1, 2} == set(data["slices"])
    for voxel in data["voxels"]:
        assert data["slices"][voxel["slice"]] == voxel["ijk"][1]


def test_slices_with_few_of_the_voxels_are_left_out_of_a_thick_scan(tmp_path):
    brain = np.ones((9, 9, 11), bool)
    atlas = atlas_of(tmp_path / "f", brain, posterior=FakePosterior(brain, "msdki"))
    write_draws(tmp_path / "f", brain, every=9)
    data = json.loads(pair_data(atlas, ["D", "K"]).data)
    assert len(data["images"]) == len(data["slices"]) == 6
    assert all(v["slice"] < 6 for v in data["voxels"])


def test_the_page_holds_the_draws_of_the_file(tmp_path):
    atlas = atlas_of(tmp_path / "f", MASK)
    _, file = write_draws(tmp_path / "f", MASK)
    data = json.loads(pair_data(atlas, ["D", "K"]).data)
    assert data["units"] == ["µm²/ms", ""]
    for number, voxel in enumerate(data["voxels"]):
        for p, name in enumerate(("D", "K")):
            draws = file[name].to_numpy()[0, :, number]
            low, high = voxel["ends"][p]
            np.testing.assert_allclose(low + np.array(voxel["draws"][p]) / STEPS * (high - low), draws, atol=1e-3)
            said, spread = map(float, voxel["said"][p].split(" ± "))
            assert said == pytest.approx(draws.mean(), abs=0.0051)
            assert spread == pytest.approx(draws.std(ddof=1), rel=0.06)
        both = np.corrcoef(file["D"][0, :, number], file["K"][0, :, number])[0, 1]
        assert voxel["r"][0][1] == pytest.approx(both, abs=0.0051)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with everything that a fit can have."""
    folder = tmp_path_factory.mktemp("report") / "f"
    posterior, _ = with_classes(MASK, (0.4, 0.3, 0.3))
    make(folder, MASK, posterior=posterior, khat=True)
    write_draws(folder, MASK)
    return write_report(folder)


@pytest.mark.parametrize("broken", ["", "cut", "one parameter", "no places", "another image"])
def test_without_draws_there_is_nothing_to_plot_in_pairs(tmp_path, broken):
    atlas, path = atlas_of(tmp_path / "f", MASK), tmp_path / "f" / "posterior.nc"
    index, data = write_draws(tmp_path / "f", MASK)
    assert read_draws(atlas.results, ["D", "K"]) is not None
    path.unlink()
    if broken == "cut":
        path.write_bytes(b"\x89HDF\r\n")
    elif broken == "one parameter":
        write_draws(tmp_path / "f", MASK, names=("D",))
    elif broken == "no places":
        data.drop_vars("k").to_netcdf(path, group="posterior", engine="h5netcdf")
    elif broken == "another image":
        data.assign_coords(i=("voxel", index[:, 0] + 99)).to_netcdf(path, group="posterior", engine="h5netcdf")
    assert pair_data(atlas, ["D", "K"]) is None


def test_classes_are_told_apart_by_their_probability(tmp_path):
    n = int(MASK.sum())
    posterior, owner = with_classes(MASK, (0.3, 0.7 - 5 / n, 5 / n))
    atlas = atlas_of(tmp_path / "f", MASK, posterior=posterior)
    groups = uncertainty.groups_of(atlas, "D")
    assert len(groups) == 2  # five voxels are too few
    place = np.zeros(MASK.shape, int)
    place[MASK] = owner
    inside = place[::-1][MASK[::-1]]  # the canonical volume is the file's, flipped
    for c, group in enumerate(groups):
        np.testing.assert_allclose(group.mean, atlas.values("D", "mean")[inside == c])
        np.testing.assert_allclose(group.below, 0.45 * group.sd, rtol=1e-4)  # quantiles of the fake posterior
    parameter = atlas.results.parameter("D")
    axes = uncertainty.class_figure([(parameter, groups)]).axes
    assert {ax.get_xlabel() for ax in axes} == {"$D$ (µm²/ms)"}
    drawn = axes[0].lines[0].get_xdata()
    assert drawn.min() >= parameter.lower
    assert drawn.max() <= parameter.upper
    assert [t.get_text().split("\n")[1] for t in axes[0].get_yticklabels()] == [
        f"{len(group.mean)} voxels" for group in reversed(groups)
    ]


def test_a_page_has_the_sections_that_its_fit_can_fill(tmp_path, page):
    opacity = "its opacity how certain that is"
    text = text_of(page)
    for said in ("Coefficient of variation", opacity, "By tissue class", "One voxel", "Pareto k of the importance"):
        assert said in text, said
    text = text_of(write_report(make(tmp_path / "bare", MASK)))
    assert "By tissue class" not in text
    assert "One voxel" not in text
    assert "Pareto k" not in text
    assert opacity in text


def test_the_page_loads_nothing_and_closes_its_tags(page):
    text = page.read_text()
    parser = Links()
    parser.feed(text)
    assert parser.open == []
    assert all(not source or source.startswith("data:image/png;base64,") for source in parser.loads)
    assert text.count("</script>") == text.count("<script") == 2
    content = re.search(r'id="pair-data">(.*?)</script>', text, re.S)
    assert len(json.loads(content[1])["voxels"]) > 10
    outside = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert {u for u in outside if not u.startswith("https://doi.org/")} == {"http://www.w3.org/2000/svg"}


def test_figures_are_shown_as_wide_as_they_were_drawn(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)" alt="maps? of[^"]*" width="(\d+)"', page.read_text())
    assert len(found) >= 6
    for url, width in found:
        assert int(width) == round(int.from_bytes(base64.b64decode(url[:64])[16:20]) * 96 / 200)


def test_derived_quantities_are_read_before_the_parameters_they_come_from(tmp_path):
    results = read_folder(make(tmp_path / "f", MASK, "dti", rec=record("dti")))
    assert read_first(results, results.names) == ["MD", "FA", "AD", "RD"]
    plain = read_folder(make(tmp_path / "g", MASK))
    assert read_first(plain, plain.names) == ["D", "K"]


def seen(path, text):
    """What a browser makes of a page."""
    path.write_text(text)
    command = ["chromium", "--headless", "--no-sandbox", "--dump-dom", "--virtual-time-budget=2000", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium to run the page's script")
def test_a_browser_draws_the_pairs_of_the_voxel_that_is_chosen(tmp_path, page):
    click = '<script>document.querySelectorAll("#pair-map button:not([hidden])")[1].click()</script>'
    whole = page.read_text() + click
    guarded, dom = (seen(tmp_path / "page.html", text) for text in (whole, re.sub("<meta http-equiv.*?>", "", whole)))
    assert "Voxel i, j, k = " in guarded  # the page's own script may run, and what was added may not
    assert guarded.count('class="on"') == dom.count('class="on"') == 2
    assert guarded != dom
    data = json.loads(re.search(r'id="pair-data">(.*?)</script>', dom, re.S)[1])
    counts = np.bincount([v["slice"] for v in data["voxels"]])
    chosen = [v for v in data["voxels"] if v["slice"] == int(np.argmax(counts))][1]
    assert f"Voxel i, j, k = {', '.join(map(str, chosen['ijk']))} of the image" in dom
    assert dom.count('fill-opacity="0.45"') == N_DRAWS
    assert dom.count(" (µm²/ms)</text>") == 1
    assert dom.count('title="voxel ') == len(data["voxels"])
