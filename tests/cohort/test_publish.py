"""The files of one image: killed at any operation, a record that is done has all of them, and the next run mends."""

import json
import threading
import time

import pytest

from pyroqmri.cohort.image import CohortImage
from pyroqmri.cohort.map_image import map_image
from pyroqmri.cohort.record import DONE, WAITING, is_done, read_record
from pyroqmri.cohort.task import Reading, Task
from tests.kills import killed_at

NAMES = {"old": ("D", "K", "onlyold"), "new": ("D", "K", "onlynew")}


def written(text):
    """What stands in for mapping: maps of some bytes, sidecars and the record of a fit."""

    def apply_image(fit, files, *, out, **options):
        (out / "fit").mkdir(parents=True, exist_ok=True)
        for name in NAMES[text]:
            (out / f"sub-01_model-msdki_param-{name}_stat-mean_dwimap.nii.gz").write_text(text)
        record = {"notes": [], "sigma": {"note": ""}, "warnings": [], "n_mapped": 1, "status_counts": {"1": 1}}
        (out / "fit" / "fit.json").write_text(json.dumps({**record, "text": text}))

    return apply_image


def contents(out):
    return {
        p.name.partition("param-")[2].partition("_")[0]: p.read_text()
        for p in (out / "sub-01").rglob("*_dwimap.nii.gz")
    }


@pytest.mark.parametrize("before", ["nothing", "old"])
def test_killed_at_any_operation_an_image_is_done_or_not(before, tmp_path, monkeypatch):
    image = tmp_path / "sub-01_dwi.nii.gz"
    image.write_text("image")
    one = CohortImage("01", "", "dwi", "sub-01", (image,))

    def run(out, text):
        monkeypatch.setattr("pyroqmri.commands.apply.apply_image", written(text))
        return map_image(Task(one, out, Reading("msdki"), key=text, fit=tmp_path, pages=False))

    step = 1 if before == "old" else 4
    n, new = 0, dict.fromkeys(NAMES["new"], "new")
    while True:
        n += step
        out = tmp_path / f"out{n}"
        if before == "old":
            assert run(out, "old").status == DONE
            (out / "sub-01" / "mine.txt").write_text("mine")
        killed = killed_at(lambda out=out: run(out, "new"), out, n)
        found = contents(out) if out.exists() else {}
        assert all(text in ("old", "new") for text in found.values()), n
        for text in ("old", "new"):
            if out.exists() and is_done(out, one, text):
                assert found == dict.fromkeys(NAMES[text], text), n
        record = run(out, "new")
        assert (record.status, record.why) == (DONE, ""), n
        assert contents(out) == new, n
        assert set(read_record(out, "sub-01").files) == {
            p.relative_to(out).as_posix() for p in (out / "sub-01").rglob("*") if p.is_file() and p.name != "mine.txt"
        }, n
        assert before == "nothing" or (out / "sub-01" / "mine.txt").read_text() == "mine", n
        if not killed:
            break
    assert n > 20


def test_an_image_that_another_run_has_in_hand_is_waited_for_and_mapped_once(tmp_path, monkeypatch):
    image, calls, begun = tmp_path / "sub-01_dwi.nii.gz", [], threading.Event()
    image.write_text("image")
    task = Task(CohortImage("01", "", "dwi", "sub-01", (image,)), tmp_path / "out", Reading("msdki"), "key", tmp_path)

    def slow(*arguments, **options):
        calls.append(1)
        begun.set()
        time.sleep(0.3)
        written("new")(*arguments, **options)

    monkeypatch.setattr("pyroqmri.commands.apply.apply_image", slow)
    other = threading.Thread(target=map_image, args=(task,))
    other.start()
    begun.wait(30)
    with monkeypatch.context() as patch:
        patch.setattr("pyroqmri.cohort.attempt.PATIENCE", 0.0)
        left = map_image(task)
    assert left.status == WAITING
    assert "another run" in left.why
    assert map_image(task).status == DONE
    other.join()
    assert len(calls) == 1
