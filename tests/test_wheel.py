"""The wheel works where there is no checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = sorted((REPOSITORY / "models").glob("*.toml"))

pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path) -> str:
    # what the surroundings say about where to look for modules must not help
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built with the tools that are here: nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    _run(sys.executable, "-m", "pip", "wheel", *flags, REPOSITORY, cwd=folder)
    (built,) = folder.glob("pyroqmri-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel in it; the dependencies are borrowed from the one that runs the tests.

    Their folders are named in a ``.pth`` file. Python appends them behind the
    environment's own folder and reads no ``.pth`` files inside them, so that an
    editable install of the checkout (which is one) stays out of sight.
    """
    home = tmp_path_factory.mktemp("clean") / "venv"
    venv.EnvBuilder(with_pip=False).create(home)
    python = home / "bin" / "python"
    flags = ("--no-deps", "--no-index", "--no-compile")
    _run(sys.executable, "-m", "pip", "--python", python, "install", *flags, wheel, cwd=home)
    own = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    borrowed = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return home


def test_the_wheel_holds_recipes_and_types_and_nothing_else(wheel):
    assert RECIPES, "models/ holds no recipe"
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        for path in RECIPES:
            assert archive.read(f"pyroqmri/recipes/{path.name}") == path.read_bytes()
    assert "pyroqmri/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pyroqmri"}


def test_the_checkout_is_out_of_sight(installed, tmp_path):
    program = "import sys, pyroqmri; print(pyroqmri.__file__, *sys.path, sep='\\n')"
    module, *paths = _run(installed / "bin" / "python", "-P", "-c", program, cwd=tmp_path).splitlines()
    assert Path(module).is_relative_to(installed)
    assert REPOSITORY not in {Path(p).resolve() for p in paths}


def test_list_recipes_away_from_the_checkout(installed, tmp_path):
    assert RECIPES, "models/ holds no recipe"
    said = _run(installed / "bin" / "pyroqmri", "list", "recipes", cwd=tmp_path)
    assert [path.stem for path in RECIPES if path.stem not in said] == []
