"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Report(Protocol):
    """What long work calls: steps done, and a few words such as the loss."""

    def __call__(self, done: int, note: str = "") -> None:
        """Say that ``done`` steps are done."""
        ...


def say_phase(title: str, show: bool = True) -> None:
    """Name on a terminal what goes on now, where it may take a while and has no steps to count."""
    if show and sys.stderr.isatty():
        print(f"{title} ...", file=sys.stderr, flush=True)


def _silent(done: int, note: str = "") -> None:
    pass


@contextmanager
def progress_bar(title: str, total: int, show: bool = True) -> Iterator[Report]:
    """Bar with the time left on a terminal, else a line every ten seconds; nothing when ``show`` is false."""
    if not show:
        yield _silent
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)
    else:
        yield _lines(title, total)


def _lines(title: str, total: int, every: float = 10.0) -> Report:
    begin = last = time.monotonic()

    def report(done: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every and done < total:
            return
        last = now
        left = (now - begin) / max(done, 1) * (total - done)
        print(f"{title}: {done}/{total} {note} {now - begin:.0f} s, {left:.0f} s left", file=sys.stderr, flush=True)

    return report
