"""What workers of the tests are handed."""

import os
import signal
import time
from pathlib import Path


def square(x: int) -> int:
    return x * x


def fail(x: int) -> int:
    raise ValueError(f"no {x}")


def killed_once(mark: str) -> str:
    """Be killed as by the system when memory is short, the first time."""
    path = Path(mark)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark


def killed(x: int) -> int:
    """Odd ones are killed whenever they are tried."""
    if x % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def take_memory(gigabytes: float) -> int:
    return len(bytearray(int(gigabytes * 1e9)))


def process(_: int) -> int:
    return os.getpid()


def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
