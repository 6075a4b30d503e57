"""Configuration of the documentation."""

from docutils import nodes
from docutils.parsers.rst import Directive

from lungmix import __version__
from lungmix.kernels import columns

project = "lungmix"
author = "The lungmix developers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_prev_next": False}
exclude_patterns = ["_build", "performance", "recipes"]
numpydoc_show_class_members = False
autodoc_typehints = "none"
nitpicky = False


class Columns(Directive):
    """A table of the data dictionary, from the code that writes the columns."""

    required_arguments = 1

    def run(self):
        """See docutils."""
        table = nodes.table()
        group = nodes.tgroup(cols=3)
        table += group
        group += [nodes.colspec(colwidth=width) for width in (3, 1, 6)]
        rows = [(nodes.literal(text=c.key), nodes.Text(c.unit), nodes.Text(c.meaning)) for c in self._columns()]
        head, body = nodes.thead(), nodes.tbody()
        head += self._row([nodes.Text(text) for text in ("column", "unit", "meaning")])
        body += [self._row(row) for row in rows]
        group += [head, body]
        return [table]

    def _columns(self):
        return getattr(columns, self.arguments[0])

    @staticmethod
    def _row(cells):
        row = nodes.row()
        for cell in cells:
            row += nodes.entry("", nodes.paragraph("", "", cell))
        return row


def setup(app):
    """Register what the pages use."""
    app.add_directive("columns", Columns)
