"""Broken inputs for every reader: each is refused in a sentence, or read as something that can be.

    python -m benchmarks.fuzz --n 10000
    python -m benchmarks.fuzz --n 200 --readers gradients images

Sound files of each reader are changed at random (bytes, stretches, numbers, words, entries, fields of a header) and
read; two in a thousand are also used as a command uses them. What is counted: refusals (`InputError`), readings that
can be true, tracebacks (any other exception), hangs (longer than 20 s) and accepted nonsense (what
`benchmarks.fuzz_readers` finds in what was read). Input i of a reader is that of the seed (reader, i), so that a run
goes on where the last one ended; ``benchmarks/results/fuzz.json`` keeps the counts and the seeds of failures, and
``--again READER:I`` repeats one with its traceback.
"""

import argparse
import gzip
import json
import logging
import random
import signal
import struct
import tempfile
import time
import traceback
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.fuzz_readers import READERS, SEALED, WHOLE, Reader
from pyroqmri.errors import InputError

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
HANG = 20  # seconds
USED = 0.002  # share of the inputs that are not only read but used as a command uses them
NUMBERS = ("nan", "inf", "-inf", "1e308", "1e-320", "1e999", "-1", "0", "1_000", "0x10", "1,5", "9" * 50, "--3", "1e",
           "\u0663", "1e30", "1000000000", "-0.0")  # fmt: skip
WORDS = (b"\0", b"NaN", b"[]", b"{}", b'"x"', b"true", b"null", b"[" * 3000, b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n",
         b"\t", b"#", b";", b",", b"<script>", b"\xe2\x80\xa8")  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, -1, 0, 1e308, 10**30, "x", "<b>", "0.03", [], {}, [[]], [None], "nan", 1e-300,
                           float("nan"), float("inf"), [1] * 99)  # fmt: skip
FIELDS = ("<h", "<f", "<i", ">h", "<d")
SPECIAL = (0, -1, 1, 2, 7, 255, 32767, -32768, 1e30, -1e30, float("nan"), float("inf"), 1e-30)


def broken(content: bytes, name: str, rng: random.Random) -> bytes:
    """The content of a file with one to three changes."""
    packed = name.endswith(".gz") and rng.random() < 0.7
    content = gzip.decompress(content) if packed else content
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = _change(content, name, rng)
    return gzip.compress(content, 1) if packed else content


def _change(content: bytes, name: str, rng: random.Random) -> bytes:
    if ".nii" in name and rng.random() < 0.6:
        return _header(content, rng)
    if name.endswith(".json") and rng.random() < 0.6:
        return _entry(content, rng)
    if not name.endswith((".gz", ".nii", ".safetensors")) and rng.random() < 0.5:
        return _word(content, rng)
    return _bytes(content, rng)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """A byte, a stretch gone or twice, the end cut off, something in between."""
    i = rng.randrange(len(content) + 1)
    j = min(len(content), i + rng.randrange(40))
    kind = rng.randrange(5)
    if kind == 0:
        return content[:i] + bytes([rng.randrange(256)]) + content[i + 1 :]
    if kind == 1:
        return content[:i] + content[j:]
    if kind == 2:
        return content[:j] + content[i:j] + content[j:]
    if kind == 3:
        return content[:i]
    return content[:i] + rng.choice(WORDS) + content[j:]


def _word(content: bytes, rng: random.Random) -> bytes:
    """One of the words between blanks is another, gone or there twice."""
    words = content.split(b" ")
    i = rng.randrange(len(words))
    words[i : i + 1] = rng.choice(([rng.choice(NUMBERS).encode()], [], [words[i]] * 2, [rng.choice(WORDS)]))
    return b" ".join(words)


def _entry(content: bytes, rng: random.Random) -> bytes:
    """One value of a JSON file, however deep, is another, or gone."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, rng)
    place = tree
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
            place = place[key]
        elif rng.random() < 0.15:
            del place[key]
            break
        else:
            place[key] = rng.choice(VALUES)
            break
    return json.dumps(tree).encode()


def _header(content: bytes, rng: random.Random) -> bytes:
    """A number of the header or of the measurements is another."""
    kind, value = rng.choice(FIELDS), rng.choice(SPECIAL)
    try:
        new = struct.pack(kind, int(value) if kind[1] in "hi" else value)
    except (struct.error, OverflowError, ValueError):
        new = bytes([rng.randrange(256)] * struct.calcsize(kind))
    top = min(len(content), 352 if rng.random() < 0.7 else len(content))
    i = 2 * rng.randrange(top // 2 + 1)
    return content[:i] + new + content[i + len(new) :]


class HangError(Exception):
    """A reading took too long."""


def _ring(*_: object) -> None:
    raise HangError


@cache
def sound_files(reader: Reader) -> dict[str, bytes]:
    """A reader's sound files: their contents by name."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        reader.write(folder)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_sound(sound: dict[str, bytes], folder: Path) -> None:
    """Put sound files into a folder."""
    for path, content in sound.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def one(reader: Reader, name: str, i: int, sound: dict[str, bytes], folder: Path) -> str:
    """``refused``, ``read``, or what is wrong with input ``i``; the folder has the sound files before and after."""
    rng = random.Random(f"{name}:{i}")
    changed = rng.choice(reader.broken)
    (folder / changed).write_bytes(broken(sound[changed], changed, rng))
    for mark, share in ((SEALED, 0.5), (WHOLE, USED)):
        (folder / mark).touch() if rng.random() < share else (folder / mark).unlink(missing_ok=True)
    signal.signal(signal.SIGALRM, _ring)
    signal.alarm(HANG)
    try:
        wrong = reader.read(folder, changed)
    except InputError:
        return "refused"
    except HangError:
        return "hang"
    except Exception as error:  # that is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback: {type(error).__name__} in {Path(place.filename).name}:{place.lineno} {error}"[:200]
    finally:
        signal.alarm(0)
        (folder / changed).write_bytes(sound[changed])
    return f"nonsense: {wrong}"[:200] if wrong else "read"


def run(name: str, first: int, last: int) -> dict[str, Any]:
    """Inputs ``first`` to ``last`` of a reader: counts of each outcome, and the failures by number."""
    reader, counts, failed = READERS[name], {"refused": 0, "read": 0}, dict[str, str]()
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound = sound_files(reader)
        write_sound(sound, Path(temporary))
        for i in range(first, last):
            found = one(reader, name, i, sound, Path(temporary))
            if found in counts:
                counts[found] += 1
            else:
                failed[str(i)] = found
    return {"inputs": last - first, **counts, "failed": failed}


def _kept() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def again(name: str, i: int) -> None:
    """One input once more, with its traceback."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, reader, rng = Path(temporary), READERS[name], random.Random(f"{name}:{i}")
        sound = sound_files(reader)
        write_sound(sound, folder)
        print(one(reader, name, i, sound, folder))
        changed = rng.choice(reader.broken)
        (folder / changed).write_bytes(broken(sound[changed], changed, rng))
        print(changed, reader.read(folder, changed))


def main() -> None:
    """Go on with each reader until it has had ``--n`` inputs; exit 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--fresh", action="store_true", help="from the first input on, as after a change")
    parser.add_argument("--again", metavar="READER:I")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # nibabel remarks on headers
    if args.again:
        name, i = args.again.split(":")
        again(name, int(i))
        return
    failures = 0
    for name in args.readers:
        row = {} if args.fresh else _kept().get(name, {})
        begin, before = time.perf_counter(), row.get("inputs", 0)
        while row.get("inputs", 0) < args.n:
            done = row.get("inputs", 0)
            new = run(name, done, min(args.n, done + 200))
            row = {k: (row.get(k, {}) | v if k == "failed" else row.get(k, 0) + v) for k, v in new.items()}
            RESULTS.write_text(json.dumps(_kept() | {name: row}, indent=0) + "\n")
        each = (time.perf_counter() - begin) / max(1, row.get("inputs", 0) - before) * 1000
        print(f"{name:10s} {row['inputs']} inputs, {row['refused']} refused, {row['read']} read, "
              f"{len(row['failed'])} failed, {each:.1f} ms each", flush=True)  # fmt: skip
        for i, what in list(row["failed"].items())[:20]:
            print(f"    {name}:{i} {what}")
        failures += len(row["failed"])
    raise SystemExit(int(failures > 0))


if __name__ == "__main__":
    main()
