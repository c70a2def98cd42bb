"""Uncertainty in the report: opacity that is certainty, and classes."""

import base64
import json
import re

import numpy as np
import pytest
import torch

from pyroqmri.posterior.voxel_sample import VoxelSample
from pyroqmri.report import uncertainty, words, write_report
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.canvas import colours_of
from pyroqmri.report.folder_of_maps import read_folder
from pyroqmri.report.page import read_first
from pyroqmri.report.voxel_file import write_voxels
from tests.report.test_report import AFFINE, SHAPE, FakePosterior, Links, make, record, text_of

N_DRAWS = 40
MASK = np.indices(SHAPE)[0] + 2 * np.indices(SHAPE)[1] > 12  # no symmetry, so a flip shows


def atlas_of(folder, mask, signal="msdki", posterior=None, affine=AFFINE):
    return Atlas(read_folder(make(folder, mask, signal, posterior, record(signal), affine)))


def write_sample(folder, mask, names=("D", "K"), every=7):
    """``voxels.npz`` of some voxels: draws ``(S, V)`` around 1, 2, ..., and five measurements of each."""
    index, rng = np.argwhere(mask)[::every], np.random.default_rng(0)
    n, b = len(index), np.array([0.5, 1.0, 1.5, 2.0, 2.5])
    fitted = np.tile(300 * np.exp(-b), (n, 1))
    sample = VoxelSample(
        np.arange(0, int(mask.sum()), every), fitted + 10 * rng.standard_normal((n, 5)), fitted, fitted - 20,
        fitted + 20, rng.uniform(290, 310, n),
        {name: 1 + p + 0.1 * rng.standard_normal((N_DRAWS, n)) for p, name in enumerate(names)},
    )  # fmt: skip
    write_voxels(folder / "voxels.npz", sample, np.argwhere(mask), {"bval": b})
    return index, sample


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
    assert f"transparent where the sd is {half:.3g} µm²/ms" in caption
    share = np.median(uncertainty.certainty(values, atlas.values("D", "sd"), half))
    assert f"Median opacity {words.percent(share)}" in caption


def test_interval_widths_are_those_of_the_quantile_maps(tmp_path):
    atlas = atlas_of(tmp_path / "f", MASK)
    caption = uncertainty.certainty_picture(atlas, "D").caption.striptags()
    width = np.median(0.9 * 0.05 * (1 + np.linspace(0.3, 0.6, int(MASK.sum()))))
    assert f"median width {width:.3g} µm²/ms" in caption


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with everything that a fit can have."""
    folder = tmp_path_factory.mktemp("report") / "f"
    posterior, _ = with_classes(MASK, (0.4, 0.3, 0.3))
    make(folder, MASK, posterior=posterior, khat=True)
    write_sample(folder, MASK)
    return write_report(folder)


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
    opacity = "fading with uncertainty"
    text = text_of(page)
    for said in ("Coefficient of variation", opacity, "By tissue class", "Look around", "Pareto k of the importance"):
        assert said in text, said
    text = text_of(write_report(make(tmp_path / "bare", MASK)))
    assert "By tissue class" not in text
    assert "are kept in full" not in text
    assert "Pareto k" not in text
    assert opacity in text


def test_the_page_loads_nothing_and_closes_its_tags(page):
    text = page.read_text()
    parser = Links()
    parser.feed(text)
    assert parser.open == []
    assert all(not source or source.startswith("data:image/png;base64,") for source in parser.loads)
    assert text.count("</script>") == text.count("<script") == 4
    content = re.search(r'id="viewer-data">(.*?)</script>', text, re.S)
    assert json.loads(content[1])["voxels"]["n"] > 10
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
