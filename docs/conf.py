"""Configuration of the documentation."""

from lungmix import __version__

project = "lungmix"
author = "The lungmix developers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False}
exclude_patterns = ["_build", "performance"]
numpydoc_show_class_members = False
autodoc_typehints = "none"
nitpicky = False
