"""Sphinx configuration; `make docs` builds the documentation into docs/_build/html."""

from __future__ import annotations

import sys
from importlib.metadata import version as _version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import reference

reference.write(Path(__file__).resolve().parent / "reference")

project = "Cutline"
author = "The Cutline developers"
copyright = "the Cutline developers"
release = version = _version("cutline")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
INCLUDED = ["dev.md", "dev-coco.md", "compare-flickr8k.md", "compare-coco.md", "classics.md"]
exclude_patterns = ["_build", "cards", *INCLUDED]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
html_theme = "furo"
html_title = f"Cutline {release}"
