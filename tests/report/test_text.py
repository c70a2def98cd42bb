"""Whatever a file says reaches a page as text, and its head has every warning."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from pyroqmri.errors import InputError
from pyroqmri.maps import write_maps
from pyroqmri.measurements.status import NO_INPUT, STATUS, UNINFORMED
from pyroqmri.report import canvas as figures
from pyroqmri.report import sections, words, write_index, write_report
from pyroqmri.report.atlas import Atlas
from pyroqmri.report.canvas import status_colour
from pyroqmri.report.comparison import COMPARISON, write_comparison
from pyroqmri.report.folder_of_maps import read_folder
from pyroqmri.report.page import template
from pyroqmri.report.verdict import judge_folder
from pyroqmri.signals import SIGNALS
from tests.report.browser import browser, needs_chromium
from tests.report.test_report import AFFINE, SHAPE, FakePosterior, make, record, text_of
from tests.report.test_uncertainty import MASK, with_classes, write_sample

EVIL = (
    "<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", '"><svg onload=alert(3)>',
    "<!--<script>", "$\\frac{1$ {{ 7*7 }} {% raw %}", "javascript:alert(4)", "&lt;b&gt;\u2028</title></style><b>",
)  # fmt: skip


class Live(HTMLParser):
    """What a browser would act on: scripts, handlers, links, policies."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts, self.handlers, self.links, self.policy, self.tags = list[str](), list[str](), list[str](), "", []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.handlers += [name for name in found if name.startswith("on")]
        self.links += [found[name] for name in ("href", "src", "action", "data") if found.get(name)]
        self._in_script = tag == "script" and found.get("type") not in {"application/json", "text/plain"}
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)


def poison(folder, text):
    """Put a string wherever a file of the folder has one that is shown."""
    for path in folder.glob("*.json"):
        said = json.loads(path.read_text())
        for key in ("Units", "Description", "Symbol"):
            if key in said:
                said[key] = text if key != "Description" else f"{text}: {text}"
        if "Classes" in said:
            said["Classes"] = [text] * len(said["Classes"])
        if "Levels" in said:
            said["Levels"] = {code: text for code in said["Levels"]}
        path.write_text(json.dumps(said))
    rec = json.loads((folder / "fit" / "fit.json").read_text())
    rec |= {"recipe": text, "notes": [text], "warnings": [text], "sources": [text], "device": text, "s0": text}
    rec |= {"likelihood": text, "versions": {text: text}, "weights_sha256": text, "pyroqmri": text}
    rec["sigma"] |= {"note": text, "method": text}
    rec["population"] = {text: [1.0, 1.0], "weights": [0.5, 0.5]}  # anything but numbers is refused
    rec["seconds"] = {text: 1.0}
    rec["tied"] = {text: text}
    (folder / "fit" / "fit.json").write_text(json.dumps(rec))
    (folder / "fit" / "recipe.toml").write_text(text)


def unknown_signal(folder):
    """Rename a folder's maps to a signal that the package does not have: then its sidecars are all there is."""
    for path in list(folder.glob("*model-msdki*")):
        path.rename(path.with_name(path.name.replace("model-msdki", "model-mystery")))
    path = folder / "fit" / "fit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"signal": "mystery", "at_bound": {}}))


def folder_of(path, signal="msdki"):
    posterior, _ = with_classes(MASK, (0.3, 0.5, 0.2))
    write_maps(
        posterior, SimpleNamespace(prefix="sub-01", shape=SHAPE, affine=AFFINE), MASK, path, signal_name="msdki",
        suffix="dwimap", recipe="r", likelihood="rician", sources=["a"], class_names=("a", "b", "c"), khat=True,
    )  # fmt: skip
    (path / "fit").mkdir()
    (path / "fit" / "fit.json").write_text(json.dumps(record("msdki")))
    write_sample(path, MASK, every=15)
    if signal != "msdki":
        unknown_signal(path)
    return path


def test_no_string_of_a_file_becomes_markup(tmp_path, quick):
    text = " ".join(EVIL)
    folder = folder_of(tmp_path / "f", "mystery")
    clean = Live(write_report(folder).read_text())
    poison(folder, text)
    quick.undo()  # here matplotlib draws every string
    page = write_report(folder).read_text()
    live = Live(page)
    assert live.scripts == clean.scripts
    assert live.handlers == []
    assert all(link.startswith(("#", "data:image/png;base64,", "https://doi.org/")) for link in live.links)
    assert set(live.tags) <= set(clean.tags) | {"ul", "li", "pre", "sub", "sup", "table", "dd"}
    content = re.search(r'id="viewer-data">(.*?)</script>', page, re.S)[1]
    assert "<" not in content
    assert json.loads(content)["voxels"]["units"] == [text] * 2
    assert json.loads(content)["voxels"]["symbols"] == [[list(p) for p in sections.words.parts(text)]] * 2


def test_the_page_runs_its_own_script_and_loads_nothing(tmp_path, quick):
    live = Live(write_report(folder_of(tmp_path / "f")).read_text())
    program = gzip.decompress((files("pyroqmri") / "report" / "niivue" / "niivue.js.gz").read_bytes())
    digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in (live.scripts[0].encode(), program)]
    assert len(live.scripts) == 1
    assert f"script-src 'sha256-{digests[0]}' 'sha256-{digests[1]}';" in live.policy
    for part in ("default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"):
        assert part in live.policy
    assert "unsafe" not in live.policy.replace("style-src 'unsafe-inline'", "")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", live.scripts[0])
    bare = Live(write_report(make(tmp_path / "bare", MASK), viewer=False).read_text())
    assert bare.scripts == []
    assert "script-src 'none'" in bare.policy


def test_the_index_shows_text(tmp_path, quick):
    text = " ".join(EVIL)
    poison(folder_of(tmp_path / "f", "mystery"), text)
    page = write_index(tmp_path, text, (), ["f"], [[text, "b"], [text, text]], intro=text, notes=[text]).read_text()
    live = Live(page)
    assert live.scripts == live.handlers == []
    assert "script-src 'none'" in live.policy
    assert all(link.startswith(("data:image/png;base64,", "f/report.html")) for link in live.links)


def verdict_part(page):
    return re.search(r'<section class="verdict (\w+)">(.*?)</section>', page.read_text(), re.S).groups()


@pytest.mark.parametrize(
    "warnings",
    [["the scan has no b0: S0 was extrapolated"], ["TE read as s", "mask x is turned"], ["a", "b", "c < d"]],
)
def test_a_scan_that_was_warned_of_is_not_fine(tmp_path, quick, warnings):
    page = write_report(make(tmp_path / "f", MASK, rec=record("msdki", warnings=warnings)))
    level, text = verdict_part(page)
    assert level == "warning"
    assert "No check raised an alarm" not in text
    assert "read it before the maps" in text if len(warnings) == 1 else f"{len(warnings)} warnings" in text
    for warning in warnings:
        assert words.sentence(warning).replace("<", "&lt;") in text.split("<p>")[0]  # before anything else is explained
    index = write_index(tmp_path, "x", (), ["f"]).read_text()
    assert '<p class="warning">' in index
    level, text = verdict_part(write_report(make(tmp_path / "g", MASK, rec=record("msdki"))))
    assert (level, "No check raised an alarm." in text) == ("fine", True)


def test_warnings_stand_before_alarms_and_alarms_stand_once(tmp_path, quick):
    folder = make(tmp_path / "f", MASK, rec=record("msdki", at_bound={"D": 0.3}))
    (alarm,) = judge_folder(read_folder(folder))[0].alarms
    rec = record("msdki", at_bound={"D": 0.3}, warnings=["volume 3 was left out", alarm.plain])
    (folder / "fit" / "fit.json").write_text(json.dumps(rec))
    level, text = verdict_part(write_report(folder))
    assert level == "alarm"
    assert text.index("Volume 3 was left out.") < text.index("lies at a bound")
    assert text.count("lies at a bound") == 1


def test_a_point_that_cannot_be_checked_is_not_said_to_hold(tmp_path, quick):
    rec = record("msdki", warnings=["w"], at_bound={}, sigma={"value": 1.0})
    posterior = FakePosterior(MASK, "msdki")
    posterior.ppc = None
    page = write_report(make(tmp_path / "f", MASK, posterior=posterior, rec=rec))
    assert "checks of the fit pass" in text_of(page)  # bounds are looked at in the maps
    unknown = folder_of(tmp_path / "g", "mystery")
    for path in unknown.glob("*desc-ppc*"):
        path.unlink()
    path = unknown / "fit" / "fit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warnings": ["w"], "sigma": {}}))
    for path in unknown.glob("*desc-khat*"):
        path.unlink()
    level, text = verdict_part(write_report(unknown))
    assert level == "warning"
    assert "Nothing in these files allows a check" in text
    assert "hold" not in text


def test_every_status_has_a_colour_and_words(tmp_path, quick):
    codes = [code for code in STATUS if code]
    assert len({status_colour(code) for code in codes}) == len(codes)
    posterior = FakePosterior(MASK, "msdki")
    posterior.status[:40], posterior.status[40:90] = UNINFORMED, NO_INPUT
    for name in posterior.names:
        posterior.mean[name][40:90] = posterior.sd[name][40:90] = np.nan
    folder = make(tmp_path / "f", MASK, posterior=posterior)
    page = write_report(folder).read_text()
    for code in (UNINFORMED, NO_INPUT):
        assert f'style="background:{status_colour(code)}"></span></td><td>{STATUS[code]}</td>' in page
    assert f"{MASK.sum() - 50} fitted of {MASK.sum()} in the mask" in text_of(folder / "report.html")
    assert "Pink voxels have no number" in page
    assert 'alt="map of the status of the voxels"' in page
    atlas = Atlas(read_folder(folder))
    assert sections.status_picture(atlas).png[:4] == b"\x89PNG"


def unoriented(folder):
    """Take the orientation out of every map, as it is missing where the image had none."""
    for path in folder.glob("*.nii.gz"):
        image = nib.load(path)
        data = np.asarray(image.dataobj)
        image = nib.Nifti1Image(data, image.affine)
        image.header["sform_code"] = image.header["qform_code"] = 0
        image._affine = None
        nib.save(image, path)


def test_without_orientation_no_side_is_named(tmp_path, quick):
    letters, signal = [], "ball_stick"
    quick.setattr("pyroqmri.report.panels.draw_letters", lambda *drawn: letters.append(drawn[-1]))
    folder = make(tmp_path / "f", MASK, signal)
    assert "left" in text_of(write_report(folder))
    assert letters
    unoriented(folder)
    letters.clear()
    text = text_of(write_report(folder))
    assert letters == []
    assert "left and right are unknown" in text
    for word in ("neurological", "patient", "front–back", "left–right", "axial", "inferior"):
        assert word not in text, word
    results = read_folder(folder)
    assert not results.oriented
    np.testing.assert_array_equal(results.mask, MASK)  # nothing was turned


def test_maps_of_a_scan_without_orientation_have_none(tmp_path):
    for oriented, affine in ((True, AFFINE), (False, np.diag([-2.0, 2, 3, 1])), (False, np.diag([2.0, 2, 3, 1]))):
        ref = SimpleNamespace(prefix="p", shape=SHAPE, affine=affine, oriented=oriented)
        out = tmp_path / str(oriented)
        write_maps(FakePosterior(MASK, "msdki"), ref, MASK, out, signal_name="msdki", suffix="dwimap", recipe="r",
                   likelihood="rician", sources=["a"])  # fmt: skip
        header = nib.load(out / "p_model-msdki_param-D_stat-mean_dwimap.nii.gz").header
        assert bool(header["sform_code"] or header["qform_code"]) == oriented
        assert header.get_zooms() == (2.0, 2.0, 3.0)


@pytest.mark.parametrize("signal", sorted(SIGNALS))
def test_panels_are_headed_by_what_they_show(tmp_path, signal):
    results = read_folder(make(tmp_path / "f", MASK, signal, rec=record(signal, protocol={}, at_bound={})))
    for name in results.names:
        assert sections._statistic(results, name, "mean") == "posterior mean"
        assert sections._statistic(results, name, "sd") == "posterior standard deviation"


def test_parameters_go_by_the_names_that_options_take(tmp_path, quick):
    rec = record("t1_inversion", protocol={}, at_bound={"inv_eff": 0.4})
    folder = make(tmp_path / "f", MASK, "t1_inversion", rec=rec)
    verdict, _ = judge_folder(read_folder(folder))
    assert verdict.alarms[0].plain.startswith("inv_eff lies at a bound")
    assert "inv_eff ( η )" in text_of(write_report(folder))
    rec = record("cest_lorentz", protocol={}, at_bound={"w_water": 0.4})
    verdict, _ = judge_folder(read_folder(make(tmp_path / "g", MASK, "cest_lorentz", rec=rec)))
    assert verdict.alarms[0].plain.startswith("w_water lies")


def test_the_page_counts_what_s0_was_made_of(tmp_path, quick):
    preparation = {"s0": "measured", "scale": 1.0, "average": True, "magnitude": True}
    protocol = {"bval": [0.0] * 3 + [1.0] * 6 + [2.0] * 6}
    folder = make(tmp_path / "f", MASK, rec=record("msdki", preparation=preparation, protocol=protocol))
    assert "divided by its own S0, made of 3 measurements, whose error is included in the sds" in text_of(
        write_report(folder)
    )
    posterior = FakePosterior(MASK, "msdki")
    posterior.has_sd = False
    folder = make(tmp_path / "g", MASK, posterior=posterior)
    text = text_of(write_report(folder))
    assert "divided by its own S0" in text
    assert "included in the sds" not in text


@pytest.mark.parametrize("content", ["[1, 2]", "3", "[" * 30_000 + "]" * 30_000, "\udce4", "{"])
def test_a_record_that_is_none_is_named(tmp_path, content):
    folder = make(tmp_path / "f", MASK)
    (folder / "fit" / "fit.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"fit\.json"):
        write_report(folder)


def test_the_page_of_a_comparison_shows_text_and_warnings(tmp_path):
    text = " ".join(EVIL)
    rec = {
        "rankings": {}, "groups": [], "names": [], "unreliable": [], "verdict": [text, text], "notes": [text],
        "errors": {"folds_error": [{"name": text, "rms": 1.0, "se": 0.1, "n": 9}]}, "image": text, "model": text,
        "candidates": {text: {"recipe": text}}, "noise": text, "warnings": [text], "seconds": 1.0,
    }  # fmt: skip
    (tmp_path / COMPARISON).write_text(json.dumps(rec))
    page = write_comparison(tmp_path)
    live = Live(page.read_text())
    assert live.scripts == live.handlers == live.links == []
    assert "script-src 'none'" in live.policy
    assert verdict_part(page)[0] == "warning"
    assert "Held-out volumes were left out" in page.read_text()
    assert "one half of the voxels" not in page.read_text()  # nothing was ranked
    (tmp_path / COMPARISON).write_text(json.dumps(rec | {"warnings": []}))
    assert verdict_part(write_comparison(tmp_path))[0] == "fine"


def test_the_page_of_a_denoised_image_shows_text_and_warnings():
    text = " ".join(EVIL)
    dot = sections.Picture(figures.png(figures.new_figure(0.1, 0.1), dpi=20), sections.Markup("{}").format(text), text)
    pictures = dict.fromkeys(("images", "histogram", "traversal", "training"), dot)
    context = {
        **pictures, "image": text, "signal": text, "recipe_name": text, "findings": [], "checks": [(text, text, text)],
        "latents": [(text,), (text,)], "latent_words": text, "notes": [text], "recipe": text, "seed": 1,
        "weights": text,
        "version": text, "tensors": [dot], "warnings": [text],
    }  # fmt: skip
    page = template("denoising.html.jinja").render(context)
    live = Live(page)
    assert live.scripts == live.handlers == []
    assert all(link.startswith("data:image/png;base64,") for link in live.links)
    assert '<section class="verdict warning">' in page


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("signal", ["msdki", "mystery"])
def test_no_string_runs_in_the_viewer(tmp_path, signal):
    """Every map and a voxel are looked at in a browser, with markup in every string that a file can have."""
    folder = folder_of(tmp_path / "f", signal)
    image, drawing = '<img src=x onerror="window.ran=1">', '<svg onload="window.ran=2"></svg>'
    poison(folder, f"{image}{drawing}</script><script>window.ran=3</script>")
    with browser() as window:
        window.open(write_report(folder).resolve().as_uri())
        window.wait("return document.getElementById('voxel-status').textContent !== ''")
        window.run(
            "const all = document.getElementById('viewer-parameter');"
            "const say = (e, kind) => e.dispatchEvent(new Event(kind, {bubbles: true}));"
            "for (let i = 0; i < all.options.length; i++) { all.selectedIndex = i; say(all, 'change'); }"
            "for (const [a, at] of Object.entries({i: 7, j: 8, k: 1})) {"
            "  const e = document.getElementById('voxel-' + a); e.value = at; say(e, 'input'); say(e, 'change'); }"
        )
        window.wait("return document.getElementById('voxel-status').textContent.includes('<img')")
        assert window.run("return window.ran ?? null") is None
        assert window.run("return document.querySelectorAll('iframe, [onerror], [onload]').length") == 0
        assert window.complaints() == []


@pytest.mark.parametrize(
    ("remark", "sentence"),
    [
        ("noise level: shells give sigma 11", "Noise level: shells give sigma 11."),
        ("in 41 % of voxels what is left varies", "In 41 % of voxels what is left varies."),
        ("b 50 lies above the fit", "b 50 lies above the fit."),
        ("dti reaches beyond b 1500.", "dti reaches beyond b 1500."),
        ("ball_stick fails: why?", "ball_stick fails: why?"),
        ("mwf leaves more", "mwf leaves more."),
        ("TE 10 ms lies above the fit", "TE 10 ms lies above the fit."),
        ("", ""),
    ],
)
def test_a_remark_is_shown_as_a_sentence_and_names_stay_as_they_are(remark, sentence):
    assert words.sentence(remark) == sentence
    assert words.sentence(sentence) == sentence
