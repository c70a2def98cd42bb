"""What archives and package collections read states what pyproject.toml states."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from pyroqmri import __version__

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CONDA = {"matplotlib": "matplotlib-base", "isal": "python-isal", "torch": "pytorch"}  # names that differ there


def test_the_conda_recipe_requires_what_the_package_requires():
    yaml = pytest.importorskip("yaml")
    recipe = yaml.safe_load((REPOSITORY / "recipe" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == __version__
    wanted = {}
    for requirement in PROJECT["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        wanted[CONDA.get(name, name)] = bounds
    python, *others = recipe["requirements"]["run"]
    assert dict(line.split(" ") for line in others) == wanted
    assert (
        python.replace("${{ python_min }}", recipe["context"]["python_min"]) == f"python {PROJECT['requires-python']}"
    )
    (entry,) = recipe["build"]["python"]["entry_points"]
    assert entry == f"pyroqmri = {PROJECT['scripts']['pyroqmri']}"
    assert recipe["about"]["summary"] == PROJECT["description"]


def test_citation_and_archive_name_the_version_and_the_licence():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    archive = json.loads((REPOSITORY / ".zenodo.json").read_text())
    for record in (citation, archive):
        assert record["version"] == __version__
        assert record["license"] == PROJECT["license"]
        assert record["keywords"] == citation["keywords"]
    assert archive["title"] == citation["title"]
    assert archive["description"] == citation["abstract"]
    assert [one["name"] for one in archive["creators"]] == [one["name"] for one in PROJECT["authors"]]
