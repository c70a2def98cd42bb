"""Signals to stop that wait for the end of a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def interrupts_between_steps() -> Iterator[Callable[..., None]]:
    """Keep a signal to stop until the function that this returns is called; a second one does not wait.

    An exception that breaks into a gradient step can be swallowed by a callback that is running just then, and the
    training would go on. Only signals that have a Python handler are kept: Ctrl-C has one, and the command line
    gives one to SIGTERM and SIGHUP. The function takes what is to be done first when there was a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda first=None: None
        return
    before: dict[int, Any] = {n: handler for n in STOPS if callable(handler := signal.getsignal(n))}
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            before[number](number, frame)
        asked.append(number)

    def check(first: Callable[[], Any] | None = None) -> None:
        if not asked:
            return
        if first is not None:
            first()
        before[asked[0]](asked[0], None)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, note)
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
