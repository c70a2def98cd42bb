"""Broken inputs are refused in a sentence, or read as something that can be: a sample of `benchmarks.fuzz`."""

import pytest

from benchmarks.fuzz import run
from benchmarks.fuzz_readers import READERS

FEW = {"texts": 150, "gradients": 100, "sidecars": 100, "recipes": 40, "images": 40, "weights": 8, "grad_dev": 8}


@pytest.mark.parametrize("name", FEW)
def test_broken_inputs_are_refused_or_read_right(name):
    found = run(name, 0, FEW[name])
    assert found["failed"] == {}
    assert found["refused"] > 0


@pytest.mark.parametrize("name", FEW)
def test_sound_inputs_are_read(name, tmp_path):
    READERS[name].write(tmp_path)
    for path in READERS[name].broken[:5]:
        assert READERS[name].read(tmp_path, path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_broken_inputs_are_refused_or_read_right(name):
    assert run(name, 0, 5 * FEW.get(name, 20))["failed"] == {}


def test_what_cannot_be_is_found(tmp_path, monkeypatch):
    """Readers that believe everything fail, each in its way."""
    reader = READERS["texts"]
    for wrong, said in (("no number", "nonsense: no number"), ("", None)):
        monkeypatch.setitem(READERS, "texts", reader._replace(read=lambda folder, name, wrong=wrong: wrong))
        found = run("texts", 0, 3)
        assert list(found["failed"].values()) == ([said] * 3 if said else [])
    monkeypatch.setitem(READERS, "texts", reader._replace(read=lambda folder, name: float("x")))
    assert all("traceback: ValueError" in what for what in run("texts", 0, 3)["failed"].values())
