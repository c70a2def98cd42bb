"""Container recipes: what they copy is all that the package is built from. No engine is needed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "docs" / "cluster"
FOLDERS = ("pyroqmri", "models")


def copied(name: str) -> list[str]:
    """Files and folders of the checkout that a recipe copies."""
    text = (CLUSTER / name).read_text()
    if name == "Dockerfile":
        return [word for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    block = text.partition("%files\n")[2].partition("\n%")[0]
    return [line.split()[0] for line in block.splitlines() if line.strip()]


def test_both_recipes_copy_the_same():
    assert sorted(copied("Dockerfile")) == sorted(copied("pyroqmri.def"))


def test_every_file_that_the_build_names_is_copied(tmp_path):
    pytest.importorskip("hatchling", reason="needs the extra test")
    for name in copied("Dockerfile"):
        if name in FOLDERS:
            ignore = shutil.ignore_patterns("__pycache__", "*.js", "*.pyc")
            shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, tmp_path / name)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "dist").glob("pyroqmri-*.whl"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_array_job_is_a_script_that_bash_reads():
    done = subprocess.run(["bash", "-n", CLUSTER / "cohort_array.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
