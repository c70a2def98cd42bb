"""The folder of a run: one run at a time, whole or not there after any kill, and never a file of the user's removed."""

import errno
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from pyroqmri.commands import folder_lock, manifest, output_folder, publish
from pyroqmri.commands.manifest import CALL, CHECKPOINT, MANIFEST
from pyroqmri.commands.output_folder import output_folder as opened
from pyroqmri.commands.output_folder import remember_call
from pyroqmri.commands.publish import file_set
from pyroqmri.errors import InputError
from pyroqmri.whole_files import is_temporary, move_file, write_bytes
from tests.kills import killed_at

NAMES = {"old": ("only_old", "sub/map", "fit/fit.json"), "new": ("only_new", "sub/map", "fit/fit.json", "fit/deep/x")}


def write(out, text="new", pause=0.0, **options):
    """A run: some files, then the record."""
    with opened(out, **options) as folder:
        for name in NAMES.get(text, ("map", "fit/fit.json")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
            time.sleep(pause)
        (folder / "dataset_description.json").write_text(json.dumps({"text": text, "GeneratedBy": "pyroqmri"}))


def content(out, text):
    """Every file that a run of this text writes."""
    return {name: text for name in NAMES.get(text, ("map", "fit/fit.json"))}


def found(out):
    """Contents by name, without the list and the record, which say the same."""
    assert json.loads((out / "dataset_description.json").read_text())["text"]
    return {
        p.relative_to(out).as_posix(): p.read_text()
        for p in out.rglob("*")
        if p.is_file() and p.name != "dataset_description.json" and not hidden(p.relative_to(out))
    }


def hidden(path):
    """What names nothing: the list of files, and what a run that is going on, or was killed, has of its own."""
    return any(part.startswith(".pyroqmri") or is_temporary(part) for part in path.parts)


def is_whole(out, *texts):
    return any(found(out) == content(out, text) for text in texts)


def forked(work):
    """Run in a child process; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except InputError:
            code = 2
        except BaseException:
            code = 3
        finally:
            os._exit(code)
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# one run at a time


def without_flock(monkeypatch):
    def none(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(folder_lock.fcntl, "flock", none)


@pytest.mark.parametrize("locks", ["flock", "files", "none"])
@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_of_two_runs_at_once_one_is_whole_and_the_other_refused(locks, options, tmp_path, monkeypatch):
    if locks == "files":
        without_flock(monkeypatch)
    elif locks == "none":
        monkeypatch.setattr(folder_lock, "fcntl", None)
    rng = random.Random(len(locks))
    for k in range(12):
        out = tmp_path / str(k)
        if "overwrite" in options:
            write(out, "old")
        waits = [0.0, rng.choice([0, 0, 0.002, 0.005, 0.02])]
        runs = [
            forked(lambda out=out, text=text, wait=wait: (time.sleep(wait), write(out, text, 0.001, **options)))
            for text, wait in zip(("one", "two"), waits, strict=True)
        ]
        codes = [ended(pid) for pid in runs]
        assert sorted(codes)[0] == 0
        assert set(codes) <= {0, 2}
        won = [text for text, code in zip(("one", "two"), codes, strict=True) if code == 0]
        assert is_whole(out, *won)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(str(i) for i in range(k + 1))


def test_the_second_run_is_refused_at_once_and_told_by_whom(tmp_path):
    with (
        opened(tmp_path / "out"),
        pytest.raises(InputError, match=rf"another run \(process {os.getpid()} on .*is writing .*out"),
        opened(tmp_path / "out", resume=True),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("flock", [True, False])
def test_the_lock_of_a_killed_run_does_not_stop_the_next(flock, tmp_path, monkeypatch):
    if not flock:
        without_flock(monkeypatch)
    out = tmp_path / "out"

    def dies():
        with opened(out):
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(dies)) == -signal.SIGKILL
    assert (tmp_path / ".out.lock").exists()
    write(out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("owner", "free"),
    [
        ({"pid": 1, "host": "elsewhere", "started": "", "token": ""}, False),
        ({"pid": os.getpid(), "host": "", "started": "1", "token": "of another process with this number"}, True),
        ({"pid": 1, "host": "", "started": "another time", "token": ""}, True),
        ({"pid": 1, "host": "", "started": "", "token": ""}, False),
    ],
)
def test_without_locks_a_lock_file_counts_while_its_process_lives(owner, free, tmp_path, monkeypatch):
    without_flock(monkeypatch)
    owner = owner | {"host": owner["host"] or folder_lock.socket.gethostname()}
    (tmp_path / ".out.lock").write_text(json.dumps(owner))
    if free:
        write(tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
        return
    with pytest.raises(InputError, match="another run"):
        write(tmp_path / "out")


# killed at any moment


def plain(monkeypatch, out):
    """Beside, by a rename."""


def at_home(monkeypatch, out):
    """The caller stands in the folder: it has to stay."""
    if out.exists():
        monkeypatch.chdir(out)


def mounted(monkeypatch, out):
    """Nothing beside the folder belongs to it."""
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)


@pytest.mark.parametrize(
    ("place", "before"),
    [*((plain, before) for before in ("nothing", "empty", "old")),
     *((place, before) for place in (at_home, mounted) for before in ("empty", "old"))],
)  # fmt: skip
def test_killed_at_any_moment_the_earlier_result_or_the_new_one_is_whole(place, before, tmp_path, monkeypatch):
    options = {"overwrite": True} if before == "old" else {}
    n, step = 0, 1 if (place, before) in ((plain, "old"), (at_home, "old")) else 4
    while True:
        n += step
        out = tmp_path / str(n) / "out"
        out.parent.mkdir()
        if before == "old":
            write(out, "old")
        elif before == "empty":
            out.mkdir()
        place(monkeypatch, out)
        if not killed_at(lambda out=out: write(out, "new", **options), tmp_path, n):
            break
        if out.exists() and (out / "dataset_description.json").exists():
            # what reads as a result is one
            assert is_whole(out, "old", "new") or not manifest.is_finished(out), n
        # a run that may not replace anything mends the folder first, and loses nothing
        refused = attempted(out, "third")
        assert is_whole(out, *("old", "new") if before == "old" else ("new",)) if refused else is_whole(out, "third"), n
        assert refused or before != "old", n
        write(out, "new", overwrite=True)
        assert is_whole(out, "new"), n
        monkeypatch.chdir(tmp_path)
        assert [p.name for p in out.parent.iterdir()] == ["out"], n
        shutil.rmtree(out.parent)
    assert n > 20  # the harness sees the operations


def attempted(out, text):
    """A run that may replace nothing; why it was refused."""
    try:
        write(out, text)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["fresh", "again"])
def test_a_killed_set_of_files_is_never_mixed(kind, tmp_path):
    names = ("x.nii.gz", "x.json", "x.bval")

    def join(folder, text, sidecars=names[1:]):
        with file_set([folder / name for name in names]) as made:
            for name in (names[0], *sidecars):
                write_bytes(made / name, text.encode())

    n = 0
    while True:
        n += 1
        folder = tmp_path / str(n)
        folder.mkdir()
        if kind == "again":
            join(folder, "old")
        if not killed_at(lambda folder=folder: join(folder, "new", ("x.json",)), tmp_path, n):
            break
        if (folder / names[0]).exists():
            texts = {name: (folder / name).read_text() for name in names if (folder / name).exists()}
            assert len(set(texts.values())) == 1, n
            assert "x.json" in texts, n
            assert ("x.bval" in texts) == (texts["x.json"] == "old"), n
        join(folder, "last")
        assert {p.name: p.read_text() for p in folder.iterdir()} == dict.fromkeys(names, "last"), n
    assert n > 10


# folders that cannot be moved


def busy(monkeypatch, *of):
    honest = os.replace

    def replace(source, target):
        if {str(source), str(target)} & {str(path) for path in of}:
            raise OSError(errno.EBUSY, "Device or resource busy")
        honest(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("before", ["empty", "old"])
def test_a_folder_that_cannot_be_renamed_is_written_in_place(before, tmp_path, monkeypatch):
    out = tmp_path / "out"
    if before == "old":
        write(out, "old")
    else:
        out.mkdir()
    inode = out.stat().st_ino
    busy(monkeypatch, out)
    write(out, "new", overwrite=True)
    assert is_whole(out, "new")
    assert out.stat().st_ino == inode
    assert manifest.is_finished(out)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_another_file_system_is_written_by_copies(tmp_path, monkeypatch):
    out, honest = tmp_path / "out", os.replace
    out.mkdir()

    def replace(source, target):
        if Path(target).is_relative_to(out) != Path(source).is_relative_to(out):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        honest(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write(out)
    assert is_whole(out, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_parent_that_cannot_be_written_is_left_alone(tmp_path, monkeypatch):
    out, honest = tmp_path / "parent" / "out", (os.open, os.mkdir, os.replace)

    def guard(function, k):
        def guarded(path, *more, **rest):
            for name in (path, *more[:1]):
                if isinstance(name, str | Path) and Path(name).parent == out.parent:
                    raise PermissionError(errno.EACCES, "Permission denied", str(name))
            return honest[k](path, *more, **rest)

        monkeypatch.setattr(os, function, guarded)

    write(out, "old")
    for k, function in enumerate(("open", "mkdir", "replace")):
        guard(function, k)
    write(out, "new", overwrite=True)
    assert is_whole(out, "new")
    with pytest.raises(InputError, match=r"other.*cannot be written \(Permission denied\)"):
        write(out.parent / "other")
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert not [name for name in os.listdir(out) if name.startswith(".pyroqmri.") and name != MANIFEST]


def test_a_result_that_cannot_be_placed_is_kept_and_the_next_run_places_it(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:

        def never(source, target):
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(publish, "move_file", never)
        busy(patch, out)
        with pytest.raises(InputError, match=rf"finished but could not be moved.*kept, whole, in .*{out.name}.partial"):
            write(out)
    with pytest.raises(InputError, match="run that was killed had finished"):
        write(out, "third")
    assert is_whole(out, "new")


def test_a_full_disk_is_named_leaves_nothing_broken_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    out, honest = tmp_path / "out", os.fsync

    def full(handle):
        if os.fstat(handle).st_size > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(handle)

    def run(**options):
        with opened(out, **options) as folder:
            remember_call(folder, {"seed": 0}, resume=options.get("resume", False))
            if not options:
                write_bytes(folder / CHECKPOINT, b"state")
            assert (folder / CHECKPOINT).read_bytes() == b"state"
            write_bytes(folder / "map", bytes(2000))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*map") as caught:
        run()
    assert any("--resume" in note for note in caught.value.__notes__)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [CALL, CHECKPOINT]
    monkeypatch.undo()
    run(resume=True)
    assert sorted(p.name for p in out.iterdir()) == [MANIFEST, "map"]


# files of the user's


def test_no_file_of_the_users_is_removed(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    (out / "sub" / "notes.txt").write_text("mine")
    (out / "plans").mkdir()
    (out / ".DS_Store").write_text("")
    with pytest.raises(InputError, match=r"did not write \(plans, sub/notes.txt\); move them"):
        write(out, overwrite=True)
    assert found(out)["only_old"] == "old"
    (out / "plans").rmdir()
    (out / "sub" / "notes.txt").rename(tmp_path / "notes.txt")
    write(out, overwrite=True)
    assert is_whole(out, "new")


def test_a_file_that_comes_while_a_run_is_going_on_stays(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    with opened(out, overwrite=True) as folder:
        (folder / "map").write_text("ours")
        (out / "notes.txt").write_text("mine")
        (out / "map").write_text("mine")
    assert {p.name: p.read_text() for p in out.iterdir() if p.name != MANIFEST} == {
        "map": "ours", "map.kept": "mine", "notes.txt": "mine",
    }  # fmt: skip


def test_the_check_of_a_fit_goes_with_it_and_another_run_in_it_does_not(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    write(out / "check")
    write(out, overwrite=True)
    assert is_whole(out, "new")
    write(out / "applied")
    with pytest.raises(InputError, match=r"did not write \(applied/"):
        write(out, overwrite=True)


def test_a_folder_of_an_earlier_version_is_not_guessed_at(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "pyroqmri"}]}')
    with pytest.raises(InputError, match="earlier pyroqmri, which kept no list"):
        write(out, overwrite=True)


def test_an_earlier_result_put_aside_by_an_earlier_version_comes_back(tmp_path):
    aside = tmp_path / ".out.old"
    aside.mkdir()
    (aside / "map").write_text("old")
    with pytest.raises(InputError, match="not empty"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "map").read_text() == "old"


def test_hidden_folders_that_are_not_ours_are_left_alone(tmp_path):
    for name in (".out.partial", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=rf"{name} contains files that pyroqmri did not write"):
            write(tmp_path / "out")
        assert (tmp_path / name / "mine").read_text() == "mine"
        shutil.rmtree(tmp_path / name)


@pytest.mark.parametrize(
    "name", [".out.partial", ".out.old", ".out.lock", "out/.pyroqmri.partial", "out/.pyroqmri.lock"]
)
def test_hidden_names_that_lead_elsewhere_are_not_followed(name, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, "old")  # what is ours there is not this run's to empty either
    target = elsewhere / "only_old" if name.endswith("lock") else elsewhere
    write(tmp_path / "out", "old")
    if name.startswith("out/"):
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "out")
    (tmp_path / name).symlink_to(target)
    with pytest.raises(InputError, match=rf"{Path(name).name}, where .* is a link to elsewhere; remove the link"):
        write(tmp_path / "out", overwrite=True)
    assert is_whole(elsewhere, "old")
    (tmp_path / name).unlink()
    write(tmp_path / "out", overwrite=True)
    assert is_whole(tmp_path / "out", "new")


@pytest.mark.parametrize("out", ["/", "nul\0", "x" * 300])
def test_names_that_cannot_be(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="output folder"):
        write(out)


def test_a_list_that_names_files_elsewhere_removes_none_of_them(tmp_path):
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.write_text("mine")
    write(out, "old")
    record = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps(record | {"files": [*record["files"], "../mine", str(mine)]}))
    write(out, overwrite=True)
    record = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps(record | {"finished": False, "removing": ["../mine", str(mine)]}))
    write(out, overwrite=True)
    assert mine.read_text() == "mine"


# calls that a checkpoint belongs to


def test_a_checkpoint_goes_on_with_its_own_call_and_the_difference_is_named(tmp_path):
    call = {"seed": 0, "recipe": "[training]\nsteps = 5\n", "protocol": {"bval": "ab" * 32, "te": "cd" * 32}}
    remember_call(tmp_path, call, resume=False)
    (tmp_path / CHECKPOINT).write_text("state")
    assert "went on" in remember_call(tmp_path, call, resume=True)[0]
    for changed, words in [
        ({"seed": 1}, "seed differs: 0 then, 1 now"),
        ({"recipe": "[training]\nsteps = 6\n"}, "recipe.training.steps differs: 5 then, 6 now"),
        ({"protocol": {"bval": "ab" * 32, "te": "ce" * 32}}, "protocol.te differs; leave out"),
        ({"protocol": {"bval": "ab" * 32}}, "protocol.te differs"),
    ]:
        with pytest.raises(InputError, match=words):
            remember_call(tmp_path, call | changed, resume=True)
    (tmp_path / CALL).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        remember_call(tmp_path, call, resume=True)


def test_resuming_without_a_checkpoint_is_said(tmp_path):
    assert "no checkpoint to resume from" in remember_call(tmp_path, {"seed": 0}, resume=True)[0]


# files by themselves


def test_a_file_is_the_earlier_one_or_the_new_one_and_nothing_else_is_left(tmp_path, monkeypatch):
    path = write_bytes(tmp_path / "x", b"one")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_bytes(path, b"two")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    umask = os.umask(0o027)
    try:
        assert write_bytes(tmp_path / "y", b"two").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(umask)
    assert output_folder.CHECKPOINT == CHECKPOINT
    move_file(path, tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == b"one"
