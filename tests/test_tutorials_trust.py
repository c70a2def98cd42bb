"""The pages on ArviZ, comparisons and regions do what they say."""

import runpy

import pytest

from tests.test_readme import REPOSITORY, python_blocks, run


@pytest.mark.slow
def test_the_page_on_arviz_runs(tmp_path, monkeypatch):
    pytest.importorskip("arviz")
    printed = run(python_blocks(REPOSITORY / "docs" / "tutorials" / "arviz.md"), tmp_path, monkeypatch).splitlines()
    assert printed[0] == "um2/ms ('chain', 'draw', 'voxel', 'measurement')"
    assert printed[1].startswith("('chain', 'draw', 'school') k-hat ")
    assert float(printed[1].split()[-1]) < 1.0
    assert (tmp_path / "posterior.nc").exists()


@pytest.mark.slow
def test_the_page_on_comparisons_runs(tmp_path, monkeypatch):
    page = REPOSITORY / "docs" / "tutorials" / "compare.md"
    printed = run(python_blocks(page), tmp_path, monkeypatch)
    assert "PSIS-LOO" in printed
    assert "Evidence" in printed


@pytest.mark.slow
def test_groups_are_compared_with_what_is_known_of_each_subject(monkeypatch, capsys):
    path = REPOSITORY / "inference" / "compare_groups.py"
    words = ["compare_groups", "--subjects", "3", "--steps", "20", "--difference", "0.3"]
    monkeypatch.setattr("sys.argv", words)
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert "uncertainty carried through" in printed
    # a difference of ten times the spread between subjects: six subjects of 4 to 60 voxels see it
    assert float(printed.split("carried through: ")[1].split(",")[0]) > 0.15
