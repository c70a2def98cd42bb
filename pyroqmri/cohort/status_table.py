"""The table of what became of each image, and what it says in a line."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyroqmri.cohort.record import DONE, FAILED, Record
from pyroqmri.whole_files import write_bytes

STATUS_TABLE = "participants_status.tsv"
HEADER = (
    "participant_id", "session_id", "label", "status", "why", "n_voxels", "n_fine", "n_warnings", "seconds", "peak_gb",
    "image",
)  # fmt: skip


def write_status(out: Path, records: Iterable[Record]) -> Path:
    """Write ``participants_status.tsv``: a row per image, BIDS's ``n/a`` where nothing is known."""
    return write_table(out / STATUS_TABLE, [HEADER, *(_row(record) for record in records)])


def write_table(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    """Write a TSV file; what would break its rows becomes a blank."""
    lines = ("\t".join(" ".join(str(cell).split()) or "n/a" for cell in row) for row in rows)
    return write_bytes(path, ("\n".join(lines) + "\n").encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a TSV file by its header."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return [dict(zip(lines[0], row, strict=False)) for row in lines[1:]]


def summary(records: Sequence[Record]) -> str:
    """How many images have which status."""
    counts = Counter(record.status for record in records)
    return f"{len(records)} images: " + ", ".join(f"{n} {status}" for status, n in counts.items())


def exit_code(records: Sequence[Record]) -> int:
    """0 where nothing failed or was left, else 1."""
    return int(any(record.status not in (DONE, "skipped") for record in records))


def failures(records: Sequence[Record]) -> list[Record]:
    """Those that failed."""
    return [record for record in records if record.status == FAILED]


def _row(record: Record) -> tuple[str, ...]:
    done = record.status == DONE
    counts = [str(n) if done else "n/a" for n in (record.n_voxels, record.n_fine, len(record.warnings))]
    used = [f"{record.seconds:.1f}" if record.seconds else "n/a", f"{record.peak_gb:.2f}" if record.peak_gb else "n/a"]
    session = f"ses-{record.session}" if record.session else "n/a"
    who = (f"sub-{record.subject}", session, record.label, record.status, record.why)
    return (*who, *counts, *used, record.image)
