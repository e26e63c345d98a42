"""How Sphinx builds the site: `make docs`, into build/docs. Every warning fails it."""

from __future__ import annotations

import sys
from pathlib import Path

import lth_sparse

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "lth_sparse"
author = "the authors of lth_sparse"
version = release = lth_sparse.__version__
html_title = f"lth_sparse {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "repository_links"]
exclude_patterns = ["results/*/*.md", "results/claims/*/*.md"]  # Comments on the runs, which results/README.md repeats.
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["layout.css"]
html_show_copyright = False
smartquotes = False

# Pages are read in a browser of the repository too, so their anchors are those that GitHub makes of headings.
myst_heading_anchors = 4

# Docstrings are plain text: what stands between backquotes is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

# Types of others: their documentation is on the network, which a build has to do without.
nitpick_ignore_regex = [("py:class", r"(torch|collections|os|pathlib)\..*")]
