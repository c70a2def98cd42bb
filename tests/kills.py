"""A kill in this process: from an operation on a file on, nothing reaches the disk any more."""

import sys

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.copyfile", "os.truncate"}


class Killed(BaseException):
    """Stands for SIGKILL: from here on no file is touched any more, whatever is caught or cleaned up."""


class Operations:
    """Counts the operations on files below a folder, and ends them all from the n-th on."""

    def __init__(self):
        self.below, self.left = None, None
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if self.below is None or event not in EVENTS or not any(self.below in str(a) for a in arguments[:2]):
            return
        self.left -= 1
        if self.left < 0:
            raise Killed


OPERATIONS = Operations()  # a hook stays as long as the process


def killed_at(work, below, n):
    """Run until before the n-th operation on a file below a folder; whether it came to that."""
    OPERATIONS.below, OPERATIONS.left = str(below), n - 1
    try:
        work()
    except Killed:
        return True
    finally:
        OPERATIONS.below = None
    return False
