"""Tables that are generated from the code: columns of the tables of a store, classes of errors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

import lungmix
from lungmix import errors
from lungmix.kernels import columns


class TableDirective(Directive):
    """A table whose rows come from the code."""

    heads: tuple[str, ...]
    widths: tuple[int, ...]

    def rows(self) -> Iterator[list[nodes.Node]]:
        """Return the cells of each row."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """See docutils."""
        table = nodes.table()
        group = nodes.tgroup(cols=len(self.heads))
        table += group
        group += [nodes.colspec(colwidth=width) for width in self.widths]
        head, body = nodes.thead(), nodes.tbody()
        head += self._row([nodes.Text(text) for text in self.heads])
        body += [self._row(row) for row in self.rows()]
        group += [head, body]
        return [table]

    @staticmethod
    def _row(cells: list[Any]) -> nodes.row:
        row = nodes.row()
        for cell in cells:
            row += nodes.entry("", nodes.paragraph("", "", cell))
        return row


class Columns(TableDirective):
    """A table of the data dictionary."""

    required_arguments = 1
    heads, widths = ("column", "unit", "meaning"), (3, 1, 6)

    def rows(self) -> Iterator[list[nodes.Node]]:
        """See `TableDirective`."""
        for column in getattr(columns, self.arguments[0]):
            yield [nodes.literal(text=column.key), nodes.Text(column.unit), nodes.Text(column.meaning)]


class ErrorClasses(TableDirective):
    """A table of every class of errors with the exit status of a command that it ends."""

    heads, widths = ("class", "base", "exit status", "raised when"), (3, 3, 1, 6)

    def rows(self) -> Iterator[list[nodes.Node]]:
        """See `TableDirective`."""
        for error in error_classes():
            yield [
                nodes.literal(text=error.__name__), nodes.literal(text=error.__bases__[0].__name__),
                nodes.Text(str(error.status)), nodes.Text((error.__doc__ or "").partition("\n")[0].replace("`", "")),
            ]  # fmt: skip


class ErrorMessages(TableDirective):
    """A table of every message that the source code raises, by class of error."""

    heads, widths = ("class", "message"), (2, 10)

    def rows(self) -> Iterator[list[nodes.Node]]:
        """See `TableDirective`."""
        for error, message in sorted(set(raised_messages())):
            yield [nodes.literal(text=error), nodes.Text(message)]


def raised_messages() -> Iterator[tuple[str, str]]:
    """Iterate over class and message of every error that is made in the source code; what varies becomes an ellipsis."""
    names = {error.__name__ for error in error_classes()}
    for path in sorted(Path(lungmix.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                message = template_of(node.args[0])
                if len(message.replace(ELLIPSIS, "").split()) > 3:
                    yield node.func.id, message


def template_of(node: ast.expr) -> str:
    """Return a string of the source code with an ellipsis for each part that varies; "" for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = [template_of(value) if isinstance(value, ast.Constant) else ELLIPSIS for value in node.values]
        return "".join(parts)
    return ""


ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def error_classes(base: type[errors.LungmixError] = errors.LungmixError) -> Iterator[type[errors.LungmixError]]:
    """Iterate over a class of errors and all that derive from it, in the order of their definitions."""
    yield base
    for derived in base.__subclasses__():
        if derived.__module__ == errors.__name__:
            yield from error_classes(derived)


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("columns", Columns)
    app.add_directive("error-classes", ErrorClasses)
    app.add_directive("error-messages", ErrorMessages)
    return {"parallel_read_safe": True}
