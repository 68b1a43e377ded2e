"""Sphinx's settings: ``make docs`` writes the pages to build/docs. They open from files, and ask nothing from a network."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "extensions"), str(DOCS.parent), str(DOCS.parent / "extract")]

from manigeo import __version__  # noqa: E402

project = "manigeo"
author = "the manigeo authors"
project_copyright = author  # no year: the same pages whenever they are built
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "commands", "mathml", "notebooks", "public", "references"]
exclude_patterns = ["extensions"]
smartquotes = False  # they make a dash of two hyphens, also in --option
nitpicky = True  # see extensions/references.py for names that have no page

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a notebook is shown as it ran
suppress_warnings = ["mystnb.unknown_mime_type"]  # verdicts for programs, beside their table
nb_ipywidgets_js = {}
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
add_module_names = False
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"manigeo {version}"
html_static_path = ["_static"]
html_css_files = ["manigeo.css"]
html_copy_source = False
html_math_renderer = "mathml"
