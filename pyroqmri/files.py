"""Files that users name, distrusted: regular files of a bounded size, text that is text, JSON of a sane shape."""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from pyroqmri.errors import InputError

MAX_TEXT_BYTES = 16 << 20  # a protocol of a million volumes is no protocol
_MOST_DIGITS = 40
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def open_regular(path: str | Path, what: str) -> BinaryIO:
    """A regular file, opened for reading; anything that could wait or go on for ever is refused unread.

    Parameters
    ----------
    path
        The file; links to regular files are followed.
    what
        What it is to be, as messages name it: ``image``, ``recipe``, ``bval file``.

    Raises
    ------
    InputError
        When it is missing, may not be read, or is a folder, a pipe, a device or a socket.
    """
    try:
        # a pipe opened without O_NONBLOCK waits for its writer before it can be looked at
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}); check its name") from error
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise InputError(f"{what} {str(path)!r} is no possible file name ({error}); check its name") from error
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise InputError(f"{what} {path} is {_KINDS.get(kind, 'no regular file')}; give a regular file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, what: str, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a regular file of up to ``limit`` bytes.

    Raises
    ------
    InputError
        As :func:`open_regular`, and when the file is longer.
    """
    with open_regular(path, what) as file:
        content, size = bytearray(), os.fstat(file.fileno()).st_size
        try:
            # pieces: a read of `limit` bytes would ask for them all
            while size <= limit and len(content) <= limit and (piece := file.read(1 << 16)):
                content += piece
        except OSError as error:
            raise InputError(f"{what} {path} cannot be read ({error.strerror})") from error
        if max(size, len(content)) > limit:
            raise InputError(
                f"{what} {path} is {max(size, len(content))} bytes long and the limit is {limit}; is it another file?"
            )
    return bytes(content)


def read_text(path: str | Path, what: str, limit: int = MAX_TEXT_BYTES) -> str:
    """The text of a regular file of up to ``limit`` bytes: UTF-8, with or without a byte-order mark.

    Raises
    ------
    InputError
        As :func:`read_bytes`, and when it is no UTF-8 text.
    """
    content = read_bytes(path, what, limit)
    if content.startswith(_UTF_16):
        raise InputError(f"{what} {path} is UTF-16 text; save it as UTF-8 or ASCII")
    if b"\0" in content:
        raise InputError(f"{what} {path} is not text (it contains NUL bytes); is it another file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not text (byte {error.start} is not UTF-8); is it another file?") from error


def read_json(path: str | Path, what: str, limit: int = MAX_TEXT_BYTES) -> Any:
    """The value in a JSON file of up to ``limit`` bytes, nested to a depth that Python can follow.

    Numbers that no float can contain, such as 1e999 or one of 400 digits, are refused; NaN and Infinity, which
    Python writes, are read.

    Raises
    ------
    InputError
        As :func:`read_text`, and when it is not valid JSON.
    """
    text = read_text(path, what, limit)
    try:
        return json.loads(text, parse_int=_whole, parse_float=_finite)
    except RecursionError as error:
        raise InputError(f"{what} {path} is nested too deeply to be read; correct it or take it away") from error
    except ValueError as error:
        raise InputError(f"{what} {path} is not valid JSON ({error}); correct it or take it away") from error


def read_table(path: str | Path, what: str, limit: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """The object, names and values, in a JSON file.

    Raises
    ------
    InputError
        As :func:`read_json`, and when the file contains something else than an object.
    """
    content = read_json(path, what, limit)
    if not isinstance(content, dict):
        raise InputError(f"{what} {path} contains no table of names and values; correct it or take it away")
    return content


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"a number out of range, {digits[:20]}")
    return value
