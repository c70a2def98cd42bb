"""Errors that are the caller's to mend."""


class InputError(ValueError):
    """The input or the call is wrong.

    The message is one sentence that says what is wrong, in which input, what
    was found and what to do. The command line prints it and exits with 2.
    """


class TrainingError(RuntimeError):
    """Training went wrong; the message names the site and the step."""
