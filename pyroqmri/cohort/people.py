"""The table of participants: who they are, by column."""

from collections.abc import Sequence
from pathlib import Path

from pyroqmri.cohort.status_table import read_table
from pyroqmri.errors import InputError
from pyroqmri.files import read_text

_MISSING = {"", "n/a"}


def column_of(bids_dir: str | Path, column: str, tables: Sequence[str | Path] = ()) -> dict[str, str]:
    """A column of ``participants.tsv`` by subject's label; rows without a value are left out.

    Parameters
    ----------
    bids_dir
        The data set, in whose folder the table lies.
    column
        Its name.
    tables
        Files to read in place of the data set's.

    Raises
    ------
    InputError
        When there is no table, or it has no such column.
    """
    found: dict[str, str] = {}
    for path in tables or [Path(bids_dir) / "participants.tsv"]:
        read_text(path, "table of participants")  # names what is wrong with the file
        rows = read_table(Path(path))
        names = list(rows[0]) if rows else []
        if not {"participant_id", column} <= set(names):
            raise InputError(
                f"the table {path} has no column {column if 'participant_id' in names else 'participant_id'}; "
                f"it has {', '.join(names) or 'no rows'}"
            )
        found |= {row["participant_id"].removeprefix("sub-"): row.get(column, "") for row in rows}
    return {subject: value for subject, value in found.items() if value not in _MISSING}
