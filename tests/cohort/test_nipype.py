"""The interfaces for Nipype; what runs it is skipped where the extra `nipype` is not installed."""

import ast
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from pyroqmri.cli import main
from tests.small_scan import write_scan

os.environ.setdefault("NO_ET", "1")  # Nipype asks a server for news of itself
SOURCE = Path(__file__).resolve().parents[2] / "pyroqmri" / "nipype.py"
CLASSES = {"FitInputs": ["fit"], "_ScanInputs": ["fit", "apply"], "CohortInputs": ["cohort"]}


def options(source: str) -> dict[str, set[str]]:
    """Options of the command line that each class of inputs writes."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            texts = [k.value.value for k in ast.walk(node) if isinstance(k, ast.keyword) and k.arg == "argstr"]
            found[node.name] = {text.split()[0] for text in texts if text.startswith("--")}
    return {name: words for name, words in found.items() if words}


def test_every_option_is_one_of_the_command(capsys):
    found = options(SOURCE.read_text())
    assert set(found) == set(CLASSES)
    for name, commands in CLASSES.items():
        for command in commands:
            with pytest.raises(SystemExit):
                main([command, "--help"])
            words = capsys.readouterr().out.replace(",", " ").replace("/", " ").split()
            assert found[name] <= set(words), (name, command)


def test_without_nipype_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "nipype.interfaces.base", None)
    monkeypatch.delitem(sys.modules, "pyroqmri.nipype", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'pyroqmri\[nipype\]'"):
        __import__("pyroqmri.nipype")


@pytest.mark.slow
def test_a_node_fits_and_another_applies(tmp_path, monkeypatch):
    pytest.importorskip("nipype", reason="needs the extra nipype")
    from pyroqmri.nipype import Apply, Fit

    monkeypatch.chdir(tmp_path)
    scan = write_scan(tmp_path / "in")
    short = ["training.steps=20", "training.batch_size=64"]
    node = Fit(in_file=str(scan.image), mask=str(scan.mask), signal="msdki", recipe="hierarchical", settings=short)
    found = node.run(cwd=str(tmp_path)).outputs
    assert [Path(path).name.partition("_model-")[2] for path in found.means] == [
        "msdki_param-D_stat-mean_dwimap.nii.gz", "msdki_param-K_stat-mean_dwimap.nii.gz",
    ]  # fmt: skip
    again = Apply(fit_dir=found.fit_dir, in_file=str(scan.image), mask=str(scan.mask), out_dir="again")
    nib = pytest.importorskip("nibabel")
    for one, other in zip(found.means, again.run(cwd=str(tmp_path)).outputs.means, strict=True):
        np.testing.assert_allclose(nib.load(one).get_fdata(), nib.load(other).get_fdata(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_node_of_a_cohort_gives_its_table(made, tmp_path):
    pytest.importorskip("nipype", reason="needs the extra nipype")
    from pyroqmri.nipype import Cohort

    node = Cohort(bids_dir=str(made.folder / "bids"), out_dir=str(tmp_path / "out"), level="participant")
    node.inputs.fit_dir, node.inputs.participants = str(made.folder / "out" / "fit"), ["01", "03"]
    node.inputs.args = "--no-pages --n-workers 1"
    table = Path(node.run().outputs.status_table).read_text()
    assert table.count("\tdone\t") == 2
