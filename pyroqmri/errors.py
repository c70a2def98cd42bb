"""Errors that are the caller's to mend."""

from typing import Any


class InputError(ValueError):
    """The input or the call is wrong.

    The message is one sentence that says what is wrong, in which input, what
    was found and what to do. The command line prints it and exits with 2.
    """


class TrainingError(RuntimeError):
    """Training went wrong; the message names the site and the step."""


def brief(value: Any, most: int = 60) -> str:
    """A value as messages show it: its repr, cut to ``most`` characters."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits; nesting without end
        return f"a {type(value).__name__} too long to show"
    return shown if len(shown) <= most else f"{shown[:most]}..."
