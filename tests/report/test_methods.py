"""A paragraph for a paper and its references, from what was run."""

import re
from pathlib import Path

import numpy as np
import pytest

from pyroqmri.report import write_report
from pyroqmri.report.bibliography import bibtex, entries, keys_by_doi
from pyroqmri.signals import SIGNALS
from tests.report.test_report import make, record

ROOT = Path(__file__).resolve().parents[2]
RECIPE = 'name = "hierarchical"\ndoc = "A population."\nestimator = "voxel_model"\n'
TRAINED = {
    "trace": {"step": [0, 50, 300]}, "predictive": {"volumes": [1, 5], "inside": 0.912},
    "left_out": {"of": 13, "volumes": [11, 12]}, "fixed": {"K": 0.75}, "warnings": ["sigma is not known"],
}  # fmt: skip


@pytest.fixture
def mask():
    found = np.zeros((6, 7, 5), bool)
    found[1:5, 1:6, 1:4] = True
    return found


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_signal_cites_an_entry(signal):
    assert SIGNALS[signal].source.removeprefix("doi:").lower() in keys_by_doi()


def test_entries_are_whole_and_cited_once():
    assert len(entries()) > 30
    assert len(entries()) == len(re.findall(r"^@", (ROOT / "references.bib").read_text(), re.MULTILINE))  # no key twice
    assert all(text.count("{") == text.count("}") for text in entries().values())
    text = bibtex(["behrens2003", "bingham2019", "behrens2003"])
    assert re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE) == ["behrens2003", "bingham2019"]


@pytest.mark.usefixtures("quick")
def test_the_paragraph_states_what_was_run_and_its_references_are_beside_it(tmp_path, mask):
    folder = make(tmp_path / "out", mask, rec=record("msdki", **TRAINED))
    (folder / "fit" / "recipe.toml").write_text(RECIPE)
    write_report(folder)
    text = " ".join((folder / "methods.txt").read_text().split())
    for said in (
        "11 volumes of sub-01_dwi.nii.gz: 2 at b = 0 s/mm2; 3 at b = 1000 s/mm2; 6 at b = 2000 s/mm2.",
        "2 of 13 volumes were left out", "MSDKI (msdki) [@henriques2019]", "K was fixed at 0.75",
        "Each voxel was divided by its own S0", "recipe hierarchical: A population.",
        "a Rician likelihood [@gudbjartsson1995]", "[@bingham2019], 300 steps on 100 voxels with seed 3",
        "90 % predictive intervals contained 91 % of the measurements", "The fit carried 1 warning",
    ):  # fmt: skip
        assert said in text, said
    assert "free parameters D (" in text
    cited = re.findall(r"@(\w+)", text)
    found = re.findall(r"^@\w+\{(\w+),", (folder / "references.bib").read_text(), re.MULTILINE)
    assert set(cited) == set(found)


@pytest.mark.usefixtures("quick")
def test_a_folder_whose_record_or_recipe_is_lost_still_has_its_page(tmp_path, mask):
    folder = make(tmp_path / "out", mask)
    (folder / "fit" / "recipe.toml").write_text("doc = [")
    write_report(folder)
    assert "recipe hierarchical: ." not in (folder / "methods.txt").read_text()
    bare = make(tmp_path / "bare", mask)
    (bare / "fit" / "fit.json").unlink()
    write_report(bare)
    assert not (bare / "methods.txt").exists()
