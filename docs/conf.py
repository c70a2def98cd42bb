"""Sphinx settings."""

import shutil
from pathlib import Path

from pyroqmri import __version__

# the site shows the executed notebooks of the checkout, and Sphinx reads nothing from outside its folder
HERE = Path(__file__).parent
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".*"))

project = "pyroqmri"
author = "The pyroqmri developers"
project_copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]

# $...$ and $$...$$ are what GitHub renders as well
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests execute them
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"pyroqmri {release}"


def _without_nameless(app, context, lines: list[str]) -> None:
    """An argument that help hides (``cohort``'s spare words) has no name to be documented under."""
    kept = [i for i, line in enumerate(lines) if line.strip() == ".. option::"]
    for i in reversed(kept):
        del lines[i : i + 3]


def setup(app) -> None:
    """What Sphinx calls."""
    app.connect("sphinx-click-process-arguments", _without_nameless)
