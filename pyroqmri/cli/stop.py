"""Signals that end a command: the first lets it keep what it has, a second ends it at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "terminated, the terminal was closed"}


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def word(self) -> str:
        """What happened, in a word."""
        return WORDS[signal.Signals(self.number).name]

    @property
    def code(self) -> int:
        """Exit code: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` at the first signal; a signal that the caller ignores, as under nohup, stays ignored."""
    seen = False

    def stop(number: int, frame: Any) -> None:
        nonlocal seen
        if seen:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        seen = True
        raise Stopped(number)

    before: dict[int, Any] = {}
    main_thread = threading.current_thread() is threading.main_thread()  # no other may set handlers
    for name in WORDS if main_thread else ():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
