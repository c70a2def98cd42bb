"""Sphinx settings."""

from pyroqmri import __version__

project = "pyroqmri"
author = "The pyroqmri developers"
project_copyright = author
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]

# $...$ and $$...$$ are what GitHub renders as well
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"pyroqmri {release}"
