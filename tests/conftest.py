"""What every test starts from: one thread, the same seeds, no leftovers of another test."""

import os

# before torch is imported, and inherited by the processes that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    # a shell starts what runs in the background with these ignored, and tests interrupt themselves
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    if "PYROQMRI_CACHE" not in os.environ:
        os.environ["PYROQMRI_CACHE"] = str(_cache_folder(config))


def _cache_folder(config: pytest.Config) -> Path:
    """The user's cache where it has data already, else one that stays with the checkout.

    Tests leave the home folder alone, and a second run downloads nothing; the
    workers of one run share the folder.
    """
    users = Path(platformdirs.user_cache_dir("pyroqmri"))
    if users.is_dir() and any(users.rglob("PROVENANCE.md")):
        return users
    if (cache := getattr(config, "cache", None)) is not None:
        return cache.mkdir("pyroqmri")
    return Path(tempfile.gettempdir()) / "pyroqmri-tests"  # with -p no:cacheprovider


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs CUDA, and this machine has none"))


@pytest.fixture(autouse=True)
def same_start():
    """Seeds and an empty parameter store before each test, torch's global settings put back after it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    # imported only by the tests that need it: it takes seconds
    if (pyro := sys.modules.get("pyro")) is not None:
        pyro.clear_param_store()
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def disk_not_waited_for(monkeypatch):
    """Tests do not outlive a crash of the machine, and a busy disk takes its time for every file."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def no_pages(monkeypatch):
    """Fits and their application write no page, whose figures take most of the time of a small one."""
    from pyroqmri.commands import fit_outputs

    monkeypatch.setattr(fit_outputs, "write_report", lambda folder: None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans, beside the checkout or at $PYROQMRI_SHARED_DATA; they are never part of the repository."""
    given = os.environ.get("PYROQMRI_SHARED_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        where = "$PYROQMRI_SHARED_DATA" if given else "../shared/data"
        pytest.skip(f"no real scans: {where} is no folder; set PYROQMRI_SHARED_DATA to one")
    return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in this process; its exit code and what it printed."""
    from pyroqmri.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call
