"""The command line: calls, exit codes, what is printed."""

import re

import pytest

from pyroqmri.cli import main

QUICK = ["--no-pages", "--n-workers", "1", "--quiet"]


def run(capsys, *words):
    with pytest.raises(SystemExit) as found:
        main(["cohort", *map(str, words)])
    return found.value.code, capsys.readouterr()


def test_labels_with_blanks_and_a_given_fit_with_its_level(made, tmp_path, capsys):
    words = [made.folder / "bids", tmp_path / "out", "participant", "--fit", made.folder / "out" / "fit"]
    code, said = run(capsys, *words, "--participant-label", "sub-01", "03", *QUICK)
    assert code == 0
    assert "2 images: 2 done" in said.err
    assert sorted(path.name for path in (tmp_path / "out").glob("sub-*")) == ["sub-01", "sub-03"]
    assert "population of this subject, medians: D" in (tmp_path / "out" / "logs" / "sub-01.log").read_text()


def test_without_the_level_the_population_is_that_of_all(made, tmp_path, capsys):
    words = [made.folder / "bids", tmp_path / "out", "participant", "--fit", made.folder / "out" / "fit"]
    code, _ = run(capsys, *words, "--participant-label", "01", "--no-subject-level", *QUICK)
    assert code == 0
    assert "population of this subject" not in (tmp_path / "out" / "logs" / "sub-01.log").read_text()
    code, said = run(capsys, made.folder / "bids", tmp_path / "out", "group")
    assert code == 0
    assert "drawn towards the mean of all subjects" in said.err


def test_the_dry_run_lists_and_writes_nothing(made, tmp_path, capsys):
    words = [made.folder / "bids", tmp_path / "out", "participant", "--fit", made.folder / "out" / "fit", "--dry-run"]
    code, said = run(capsys, *words)
    assert code == 0
    assert "sub-02_ses-1_dwi.nii.gz" in said.out
    assert not (tmp_path / "out").exists()


def test_a_failed_image_is_exit_code_1_and_is_named(made, tmp_path, capsys):
    words = [made.folder / "bids", tmp_path / "out", "participant", "--fit", made.folder / "out" / "fit"]
    code, said = run(capsys, *words, "--participant-label", "04", *QUICK)
    assert code == 1
    assert said.err.startswith("failed: sub-04: ")


def test_the_group_level_compares(made, capsys):
    code, said = run(capsys, made.folder / "bids", made.folder / "out", "group", "--group-column", "group")
    assert code == 0
    assert said.out.strip().endswith("report.html")
    assert "\tb\ta\t" in (made.folder / "out" / "group" / "comparison.tsv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--signal", "msdki"], "both --signal and --recipe"),
        (["--fit", "x", "--signal", "msdki"], "both|brings its signal"),
        (["--signal", "msdki", "--recipe", "hierarchical", "stray"], "stray is no option"),
        (["--signal", "msdki", "--recipe", "hierarchical", "--site-column", "site"], "no column site"),
        (["--fit", "none"], "no readable fit"),
        (["--signal", "nonsense", "--recipe", "hierarchical"], "no signal 'nonsense'"),
    ],
)
def test_a_wrong_call_is_exit_code_2_in_a_line(made, tmp_path, capsys, words, message):
    code, said = run(capsys, made.folder / "bids", tmp_path / "out", "participant", *words)
    assert code == 2
    assert re.search(message, said.err)
    assert len(said.err.strip().splitlines()) == 1


def test_coils_are_those_of_the_noise_level_and_of_the_likelihood(tmp_path, capsys, monkeypatch):
    plans = []
    monkeypatch.setattr("pyroqmri.cohort.planned", lambda plan: plans.append(plan) or [])
    words = [tmp_path, tmp_path / "out", "participant", "--signal", "msdki", "--recipe", "hierarchical", "--dry-run"]
    assert run(capsys, *words, "--coils", 4)[0] == 0
    assert run(capsys, *words)[0] == 0
    several, one = plans
    assert several.reading.coils == 4
    assert '[likelihood]\nkind = "ncchi"\ncoils = 4.0\n' in several.training.record()["recipe"]
    assert several.reading.record()["coils"] == 4
    assert "coils" not in one.reading.record()  # folders of before there was the option stay those of their call
    code, said = run(capsys, *words[:3], "--fit", "x", "--coils", 4, "--dry-run")
    assert code == 2
    assert "leave out --signal, --recipe, --likelihood, --coils" in said.err
