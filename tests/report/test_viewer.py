"""The numbers that the page's viewer draws from are those of the files, in the right places; a browser shows them."""

import base64
import gzip
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.measurements.status import BRIEF, STATUS
from pyroqmri.report import canvas, write_report
from pyroqmri.report import viewer as viewer_module
from pyroqmri.report.viewer import viewer_of
from pyroqmri.report.voxel_file import read_voxels
from tests.report.browser import browser, needs_chromium
from tests.report.test_report import FakePosterior, make, record
from tests.report.test_uncertainty import MASK, N_DRAWS, atlas_of, write_sample


class Unpacked:
    """A viewer's numbers, read the way that its script reads them."""

    def __init__(self, found):
        self.data = json.loads(found.data)
        self._bytes = np.frombuffer(gzip.decompress(base64.b64decode(found.numbers)), np.uint8)
        self.status = self.array(self.data["status"], "u1").reshape(self.data["shape"])
        self.places = np.argwhere(self.status > 0)

    def array(self, place, kind):
        begin, length = place
        size = np.dtype(kind).itemsize
        return self._bytes[begin : begin + length].reshape(size, -1).T.copy().view(f"<{kind}")[:, 0]

    def values(self, entry):
        return self.array(entry["at"], "f2").astype(float) * entry["factor"]

    @property
    def ijk(self):
        """The image's own indices of the voxels in the mask."""
        turn = np.array(self.data["toImage"])
        return self.places @ turn[:, :3].T + turn[:, 3]


def shown(atlas, names=("D", "K")):
    return Unpacked(viewer_of(atlas, list(names), list(names)))


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PSL", "IRA", "ALI"])
def test_every_voxel_has_the_numbers_of_the_file_at_its_indices(tmp_path, codes):
    there = nib.orientations.axcodes2ornt(codes)
    image = nib.Nifti1Image(MASK.astype(np.uint8), np.diag([2.0, 2.0, 3.0, 1.0]))
    stored = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), there))
    here = np.asarray(stored.dataobj) > 0
    posterior = FakePosterior(here, "msdki")  # its D differs from voxel to voxel
    found = shown(atlas_of(tmp_path / "f", here, posterior=posterior, affine=stored.affine))
    assert len(found.ijk) == here.sum()
    for entry, truth in zip(found.data["parameters"][0]["maps"].values(), (posterior.mean, posterior.sd), strict=True):
        volume = np.full(here.shape, np.nan)
        volume[here] = truth["D"].numpy()
        np.testing.assert_allclose(found.values(entry), volume[tuple(found.ijk.T)], rtol=6e-4)
    # the viewer's affine puts each voxel where the file's does
    homogeneous = np.c_[found.places, np.ones(len(found.places))]
    image_homogeneous = np.c_[found.ijk, np.ones(len(found.ijk))]
    np.testing.assert_allclose(homogeneous @ np.array(found.data["affine"]).T, image_homogeneous @ stored.affine.T)


def test_large_scans_keep_every_second_or_third_slice_in_place(tmp_path, monkeypatch):
    posterior = FakePosterior(MASK, "msdki")
    atlas = atlas_of(tmp_path / "f", MASK, posterior=posterior)
    monkeypatch.setattr(viewer_module, "MOST_BYTES", 2 * 6 * int(MASK.sum()) // 2)
    found = shown(atlas)
    assert found.data["shape"][2] == 2  # of four slices
    volume = np.full(MASK.shape, np.nan)
    volume[MASK] = posterior.mean["K"].numpy()
    entry = found.data["parameters"][1]["maps"]["mean"]
    np.testing.assert_allclose(found.values(entry), volume[tuple(found.ijk.T)], rtol=6e-4)
    assert viewer_of(atlas, ["D", "K"], []).every == 2


def test_numbers_of_any_size_keep_three_digits_and_what_is_no_number_stays_so(tmp_path):
    posterior = FakePosterior(MASK, "msdki")
    posterior.sd["D"] *= 1e7
    posterior.sd["D"][5] = float("nan")
    posterior.sd["K"] *= 2e-7
    found = shown(atlas_of(tmp_path / "f", MASK, posterior=posterior))
    volume = np.zeros((2, *MASK.shape))
    volume[:, MASK] = np.stack([posterior.sd["D"], posterior.sd["K"]])
    for entry, truth in zip((p["maps"]["sd"] for p in found.data["parameters"]), volume, strict=True):
        np.testing.assert_allclose(found.values(entry), truth[tuple(found.ijk.T)], rtol=6e-4)


def test_sampled_voxels_come_back_as_they_were_written(tmp_path):
    atlas = atlas_of(tmp_path / "f", MASK)
    index, sample = write_sample(tmp_path / "f", MASK)
    found = shown(atlas)
    voxels = found.data["voxels"]
    np.testing.assert_array_equal(found.array(voxels["ijk"], "u2").reshape(-1, 3), index)
    values = voxels["low"] + voxels["step"] * found.array(voxels["values"], "u2").reshape(4, len(index), 5)
    truth = np.stack([sample.y, sample.fitted, sample.low, sample.high])
    np.testing.assert_allclose(values, truth, atol=0.51 * np.ptp(truth) / 65535)
    ends = found.array(voxels["ends"], "f4").reshape(2, -1, 1, 2)
    steps = found.array(voxels["draws"], "u1").reshape(2, N_DRAWS, -1)
    draws = ends[..., 0].swapaxes(1, 2) + steps / 255 * np.ptp(ends, axis=-1).swapaxes(1, 2)
    np.testing.assert_allclose(draws, np.stack([sample.draws["D"], sample.draws["K"]]), atol=0.002)
    assert voxels["x"] == [500, 1000, 1500, 2000, 2500]
    assert voxels["s0"]  # measured, at b = 0


@pytest.mark.parametrize("broken", ["cut", "another image", "no fit", "one measurement less"])
def test_a_file_of_voxels_that_cannot_be_read_is_left_out(tmp_path, broken):
    folder = make(tmp_path / "f", MASK)
    write_sample(folder, MASK)
    path, shape = folder / "voxels.npz", MASK.shape
    assert read_voxels(path, shape) is not None
    with np.load(path) as found:
        arrays = dict(found)
    if broken == "another image":
        arrays["ijk"] = arrays["ijk"] + 99
    elif broken == "no fit":
        del arrays["fitted"]
    elif broken == "one measurement less":
        arrays["low"] = arrays["low"][:, 1:]
    np.savez(path, **arrays)
    if broken == "cut":
        path.write_bytes(path.read_bytes()[:300])
    assert read_voxels(path, shape) is None


def test_each_licence_of_the_vendored_program_is_beside_it():
    text = (Path(viewer_module.__file__).parent / "niivue" / "LICENSE").read_text()
    for name in ("NiiVue", "gl-matrix", "nifti-reader-js", "fflate", "@ungap/structured-clone", "array-equal"):
        assert f"== {name} ==" in text
    assert text.count("WITHOUT WARRANTY OF ANY KIND") + text.count('PROVIDED "AS IS"') + text.count("“AS IS”") >= 6


def colours(scheme):
    """The page's variables ``--name: #rrggbb``."""
    css = (Path(viewer_module.__file__).parent / "style.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark", 1)
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light)) | (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", dark)) if scheme == "dark" else {}
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(scheme):
    """Contrast of at least 4.5, as WCAG 2 asks at level AA."""

    def luminance(colour):
        share = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    found = colours(scheme)
    for ground in ("paper", "raised"):
        for ink in ("ink", "muted", "link", "alarm", "warning", "fine", "unknown"):
            low, high = sorted(luminance(found[name]) for name in (ground, ink))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, ground, ink)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report whose pictures are empty, which saves most of the time."""
    folder = tmp_path_factory.mktemp("viewer") / "f"
    make(folder, MASK, rec=record("msdki", elbo={}))
    write_sample(folder, MASK)
    dot = canvas.png(canvas.new_figure(0.1, 0.1), dpi=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, stream, **_: stream.write(dot))
        return write_report(folder)


@needs_chromium
def test_in_a_browser_slices_move_a_click_shows_a_voxel_and_keys_work(page):
    place = "return document.getElementById('voxel-place').textContent"
    with browser() as window:
        window.open(page.as_uri())
        window.wait("return document.getElementById('viewer')?.dataset.ready === 'yes'")
        assert window.run("return document.querySelectorAll('.pane:not([hidden])').length") == 4
        before = window.run(place)
        window.press("#viewer-slice", "right")
        after = window.run(place)
        assert [a == b for a, b in zip(before.split(", "), after.split(", "), strict=True)] == [True, True, False]
        window.click("#pane-sd-canvas", right=0.2, down=-0.1)
        window.wait(f"{place.replace('return ', 'return (')}) !== {json.dumps(after)}")
        chosen = window.run(place)
        assert window.run("return document.querySelectorAll('#voxel-fit .measured').length") == 5
        assert window.run("return document.querySelectorAll('#voxel-pairs .draw').length") == N_DRAWS
        assert "Status 1: fine" in window.run("return document.getElementById('voxel-status').textContent")
        window.press("#pane-mean-canvas", "right")
        assert window.run(place) != chosen
        window.press("#voxel-k", "up")
        window.run(
            "const s = document.getElementById('viewer-plane'); s.value = '3'; s.dispatchEvent(new Event('change'))"
        )
        assert window.complaints() == []


@pytest.mark.slow
@needs_chromium
def test_without_webgl_a_voxel_is_chosen_by_its_numbers(page):
    with browser("--disable-3d-apis") as window:
        window.open(page.as_uri(), 400, 800)
        window.wait("return !document.getElementById('viewer-webgl').hidden")
        assert window.run("return document.querySelectorAll('.pane:not([hidden])').length") == 0
        window.run("const b = document.getElementById('voxel-k'); b.value = 2; b.dispatchEvent(new Event('change'))")
        assert window.run("return document.getElementById('voxel-place').textContent").endswith(", 2")
        assert window.run("return document.querySelectorAll('#voxel-fit svg').length") == 1
        assert window.run("return document.documentElement.scrollWidth") <= 400
        assert window.complaints() == []


def test_the_viewer_starts_in_the_fullest_slice_at_a_voxel_that_is_fine():
    status = np.zeros((9, 9, 3), np.uint8)
    status[1:8, 1:8, 0] = status[2:7, 2:7, 1] = 1
    status[4, 4, 0] = 7  # the middle does not fit
    i, j, k = viewer_module._start(status, 2)
    assert k == 0
    assert abs(i - 4) + abs(j - 4) == 1
    assert viewer_module._start(np.zeros((3, 3, 3), np.uint8), 2).tolist() == [0, 0, 0]
    status[status == 1] = 6  # nothing is fine: the middle itself
    assert viewer_module._start(status, 2).tolist() == [4, 4, 0]


def test_every_status_has_words_for_a_legend():
    assert set(BRIEF) == set(STATUS)
    assert max(map(len, BRIEF.values())) <= 22


def test_what_scrolls_sideways_can_be_reached_by_keyboard():
    for path in Path(viewer_module.__file__).parent.glob("*.jinja"):
        scrolling = re.findall(r'<div class="wide"[^>]*>', path.read_text())
        assert [tag for tag in scrolling if 'tabindex="0"' not in tag or "aria-label=" not in tag] == []
