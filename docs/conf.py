"""Sphinx: `pip install -e '.[docs]'`, then `sphinx-build -W docs docs/_build`."""

from importlib.metadata import version as version_of

project = "gather-async"
author = "The gather-async authors"
release = version = version_of("gather-async")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "gather-async"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
