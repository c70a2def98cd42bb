"""A cohort that is mapped once for all tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from pyroqmri.cohort import run_participants
from pyroqmri.cohort.record import Record
from tests.cohort import bids


@dataclass
class Made:
    """Three participants that are fine, one of them in a session, five broken and one without an image; mapped."""

    folder: Path
    subjects: dict[str, bids.Subject]
    words: dict[str, str]
    records: list[Record]


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("cohort")
    subjects = dict(zip([f"{i:02d}" for i in range(1, 9)], bids.data_set(folder / "bids", 8), strict=True))
    words = {label: break_it(subjects[label]) for label, break_it in bids.BROKEN.items()}
    (folder / "bids" / "sub-09" / "anat").mkdir(parents=True)
    rows = ["participant_id\tgroup", *(f"sub-{label}\t{'ab'[label > '01']}" for label in subjects)]
    (folder / "bids" / "participants.tsv").write_text("\n".join(rows) + "\n")
    records = run_participants(bids.cohort_of(folder / "bids", folder / "out"))
    return Made(folder, subjects, words, records)
