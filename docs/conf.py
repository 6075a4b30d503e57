"""Configuration of the documentation."""

import sys
from pathlib import Path

from lungmix import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "lungmix"
author = "The lungmix developers"
version = release = __version__
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc",
    "command_line", "generated_tables", "glossary_links", "notebook_pages",
]  # fmt: skip
exclude_patterns = ["_build", "performance", "recipes", "extensions"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = False

numpydoc_show_class_members = False
autodoc_typehints = "none"
autosummary_generate = False
add_module_names = False

glossary_links_exclude = ["glossary", "changelog", "index", "start", "howto", "concepts", "reference", "dependencies"]

html_theme = "pydata_sphinx_theme"
html_title = "lungmix"
html_static_path = ["_static"]
html_css_files = ["lungmix.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 5,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "search_bar_text": "Search: LI, slab, --preset ...",
}
copyright = "The lungmix developers. For research only, not for diagnosis"
# The home page and the pages without a section have no navigation of their own to show.
html_sidebars = {"index": [], "search": [], "genindex": []}
