"""Commands killed at random moments: is any file corrupt, or any result lost?

`fit`, `apply`, `cohort` and `denoise` of an image of 60 voxels run in a child process that ends by SIGKILL, before a
random one of its operations on files (three of four) or after a random time. Half of the runs replace an earlier
result, with a file of the user's in the folder. Then the same command runs again. Counted as corrupt: a file under its
final name that is neither the earlier result's nor the new one's, or a folder with some of each. Counted as lost: the
earlier result without a new one, the user's file, or a second run that does not end with the maps and weights of an
undisturbed one, byte for byte. Reports and samples of posteriors are not written: they take seconds and pass through
the same calls. Points that are in the file of results are not run again.
Run: python -m benchmarks.kill_points [points] [first]
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from pyroqmri.cli import main as command
from pyroqmri.commands import apply, denoise, fit
from pyroqmri.whole_files import write_bytes

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.copyfile", "os.truncate"}
RESULTS = Path(__file__).parent / "results" / "kill_points.json"
SHAPE, B = (5, 4, 3), np.repeat([0.0, 1000.0, 2000.0], [3, 9, 9])
SHORT = ["--quiet", "--set", "training.steps=6", "--set", "training.batch_size=32"]
COMMANDS = ("fit", "apply", "cohort", "denoise")
MINE = ("sub-01/mine.txt", "the user's own")


def write_image(stem: Path, seed: int) -> Path:
    """An image with its gradients: MS-DKI from a numpy formula, Rician noise."""
    rng = np.random.default_rng(seed)
    stem.parent.mkdir(parents=True, exist_ok=True)
    D, K = rng.normal(0.9, 0.1, (*SHAPE, 1)), rng.normal(0.8, 0.1, (*SHAPE, 1))
    x = B / 1000
    real, imaginary = rng.normal(scale=15.0, size=(2, *SHAPE, len(B)))
    y = np.hypot(500 * np.exp(-x * D + x**2 * D**2 * K / 6) + real, imaginary)
    g = np.random.default_rng(0).normal(size=(len(B), 3))
    g *= (B > 0)[:, None] / np.linalg.norm(g, axis=1, keepdims=True)
    image = stem.with_name(f"{stem.name}_dwi.nii.gz")
    nib.save(nib.Nifti1Image(y.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0])), image)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4) * [2, 2, 2, 1]), stem.with_name("mask.nii.gz"))
    np.savetxt(stem.with_name(f"{stem.name}_dwi.bval"), B[None], fmt="%g")
    np.savetxt(stem.with_name(f"{stem.name}_dwi.bvec"), g.T, fmt="%.6f")
    return image


def call(name: str, data: Path, out: Path, seed: int, again: bool) -> list[str]:
    """The words of a command; ``again`` is its second run."""
    image = data / "one" / "sub-01_dwi.nii.gz"
    here = [str(image), "--mask", str(image.with_name("mask.nii.gz")), "--out", str(out)]
    train = ["--signal", "msdki", "--recipe", "vae_unig", "--seed", str(seed), *SHORT]
    if name == "fit":
        kept = ["--set", "training.checkpoint_every=2", "--overwrite"]
        return ["fit", *here, *train, *kept, *(["--resume"] if again else [])]
    if name == "apply":
        return ["apply", str(data / f"fit{seed}"), *here, "--overwrite", "--quiet"]
    if name == "cohort":
        words = ["cohort", str(data / "bids"), str(out), "participant", "--no-pages", "--n-workers", "1", "--quiet"]
        plan = ["--signal", "msdki", "--recipe", "least_squares", "--sigma", str(15 + seed)]
        return [*words, *plan, *([] if again else ["--overwrite"])]
    few = ["--set", "schedule.epochs=4", "--set", "targets.voxels=500", "--seed", str(seed), "--overwrite", "--quiet"]
    return ["denoise", *here, "--recipe", "denoise_dae", *few, *(["--resume"] if again else [])]


def without_pages() -> None:
    """Have `fit` and `apply` leave out what takes seconds."""
    for module in (fit, apply):
        honest = module.write_results

        def short(*arguments, honest=honest, **options):
            return honest(*arguments, **{**options, "pages": False, "predictive": False})

        module.write_results = short
    denoise.write_denoising_report = lambda folder: write_bytes(folder / "report.html", b"page")


class Countdown:
    """Kills this process before the n-th operation on a file below a folder; counts all of them where n is 0."""

    def __init__(self, below: Path, n: int = 0) -> None:
        self.below, self.n, self.seen = str(below), n, 0
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple) -> None:
        if event in EVENTS and any(self.below in str(a) for a in arguments[:2]):
            self.seen += 1
            if self.seen == self.n:
                os.kill(os.getpid(), signal.SIGKILL)


def child(words: list[str], below: Path, n: int = 0, after: float = 0.0) -> tuple[int, int, float]:
    """Run a command in a process of its own; how it ended, its operations on files, its seconds."""
    begin, (read, write) = time.monotonic(), os.pipe()
    pid = os.fork()
    if pid == 0:
        count, code = Countdown(below, n), 70
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            try:
                command(words)
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os.write(write, str(count.seen).encode())
                os._exit(code)
    os.close(write)
    timer = threading.Timer(after, os.kill, (pid, signal.SIGKILL)) if after else None
    if timer is not None:
        timer.start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if timer is not None:
        timer.cancel()
    with os.fdopen(read) as pipe:
        return code, int(pipe.read() or 0), time.monotonic() - begin


def content(out: Path) -> dict[str, bytes]:
    """Maps and weights by name, as they are under their final names."""
    found = (path for path in sorted(out.rglob("*")) if path.name.endswith((".nii.gz", ".safetensors")))
    names = ((path.relative_to(out).as_posix(), path) for path in found)
    return {name: path.read_bytes() for name, path in names if not any(p[0] == "." for p in name.split("/"))}


def torn(out: Path) -> list[str]:
    """Files under final names that do not read."""
    bad = []
    for path in out.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            bad.append(path.name)
    return bad


@dataclass
class Undisturbed:
    """What a command writes when nothing happens, by seed, and what that takes."""

    maps: dict[int, dict[str, bytes]]
    operations: int
    seconds: float


def undisturbed(name: str, data: Path, work: Path) -> Undisturbed:
    """Run a command with two seeds; the second run of a seed has to give the same bytes."""
    maps, operations, seconds = {}, 0, 0.0
    for seed in (1, 0):
        out = work / f"{name}{seed}"
        code, operations, seconds = child(call(name, data, out, seed, False), out.parent)
        assert code == 0, f"{name} fails undisturbed: exit code {code}"
        maps[seed] = content(out)
    return Undisturbed(maps, operations, seconds)


def whole(name: str, found: dict[str, bytes], earlier: dict[str, bytes], new: dict[str, bytes], replaced: bool) -> str:
    """What is wrong with a folder after a kill, or nothing."""
    if name == "cohort":  # images have their names one by one
        other = [file for file, data in found.items() if data not in (new.get(file), replaced and earlier.get(file))]
        return f"corrupt: {other}" if other else ""
    if found == new or (replaced and found == earlier) or (not replaced and not found):
        return ""
    return "lost: the earlier result" if not found else "corrupt: neither the earlier result nor the new one"


def point(number: int, data: Path, known: dict[str, Undisturbed], work: Path) -> dict[str, object]:
    """One kill, and what it did."""
    rng, name = random.Random(number), COMMANDS[number % len(COMMANDS)]
    honest, replaced = known[name], number // len(COMMANDS) % 2 == 1
    folder = work / f"point{number}"
    out = folder / "out"
    folder.mkdir()
    if replaced:
        shutil.copytree(work / f"{name}1", out)
        if name == "cohort":
            (out / MINE[0]).write_text(MINE[1])
    at = rng.randrange(1, honest.operations + 1) if rng.random() < 0.75 else 0
    after = 0.0 if at else rng.uniform(0.02, honest.seconds)
    code, _, seconds = child(call(name, data, out, 0, False), folder, at, after)
    # a run that was begun put its earlier result aside; the next one brings it back before anything else
    aside = content(folder / ".out.old") if not out.exists() else {}
    wrong = (
        whole(name, content(out) or aside, honest.maps[1], honest.maps[0], replaced) if replaced or out.exists() else ""
    )
    wrong = wrong or ", ".join(f"corrupt: {one}" for one in torn(out))
    again, _, _ = child(call(name, data, out, 0, True), folder)
    if again != 0:
        wrong = wrong or f"lost: the second run ends with exit code {again}"
    elif content(out) != honest.maps[0]:
        wrong = wrong or "lost: the second run gives other maps"
    if replaced and name == "cohort" and (not (out / MINE[0]).exists() or (out / MINE[0]).read_text() != MINE[1]):
        wrong = wrong or "lost: the user's file"
    left = sorted(path.name for path in folder.iterdir() if path.name != "out")
    if not wrong:
        shutil.rmtree(folder)
    return {
        "point": number, "command": name, "replaced": replaced, "operation": at, "after": round(after, 3),
        "killed": code == -signal.SIGKILL, "seconds": round(seconds, 2), "left": left, "wrong": wrong,
    }  # fmt: skip


def prepare(data: Path, work: Path) -> dict[str, Undisturbed]:
    """Data, two fits to apply, and every command undisturbed."""
    write_image(data / "one" / "sub-01", 0)
    for i in (1, 2):
        image = write_image(data / "bids" / f"sub-0{i}" / "dwi" / f"sub-0{i}", i)
        image.with_name("mask.nii.gz").rename(image.with_name(f"sub-0{i}_desc-brain_mask.nii.gz"))
    (data / "bids" / "dataset_description.json").write_text('{"Name": "simulated", "BIDSVersion": "1.10.0"}')
    with contextlib.suppress(SystemExit):
        command(call("fit", data, data / "fit0", 0, False))
    assert child(call("fit", data, data / "fit1", 1, False), data)[0] == 0
    for name in COMMANDS:  # here, so that children find every module imported and every table made
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            command(call(name, data, work / "warm" / name, 0, False))
    return {name: undisturbed(name, data, work) for name in COMMANDS}


def main(n: int = 200, first: int = 0) -> None:
    """Run the points that are not in the results yet."""
    torch.set_num_threads(1)
    without_pages()
    os.fsync = lambda handle: None  # a kill is no crash of the machine
    done: dict[int, dict] = {one["point"]: one for one in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        known = prepare(work / "data", work)
        for name, one in known.items():
            print(f"{name}: {one.operations} operations on files, {one.seconds:.2f} s undisturbed", flush=True)
        for number in range(first, first + n):
            if number not in done:
                done[number] = point(number, work / "data", known, work)
                RESULTS.write_text("[\n" + ",\n".join(json.dumps(done[i]) for i in sorted(done)) + "\n]\n")
                if done[number]["wrong"]:
                    print(done[number], flush=True)
    killed = [one for one in done.values() if one["killed"]]
    bad = [one for one in killed if one["wrong"]]
    print(f"{len(done)} points, {len(killed)} killed, {len(bad)} corrupt or lost")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
