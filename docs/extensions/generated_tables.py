"""Tables that are generated from the code: columns of the tables of a store, flags, checks, classes of errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from message_index import error_classes, raised_messages

from lungmix.kernels import data_dictionary
from lungmix.kernels.diagnosis import BELOW, CHECKS, TISSUE_RANGES
from lungmix.quality_flags import FLAGS


def with_code(text: str) -> nodes.inline:
    """Return text whose parts between backticks are code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return nodes.inline("", "", nodes.Text(text))
    cells = [nodes.literal(text=part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts)]
    return nodes.inline("", "", *cells)


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
        for column in getattr(data_dictionary, self.arguments[0]):
            yield [nodes.literal(text=column.key), nodes.Text(column.unit), nodes.Text(column.meaning)]


class QualityFlags(TableDirective):
    """A table of every flag of quality control."""

    heads, widths = ("flag", "number", "raised", "what is measured", "why this threshold"), (3, 3, 2, 6, 6)

    def rows(self) -> Iterator[list[nodes.Node]]:
        """See `TableDirective`."""
        raised = {"from": "from {}", "below": "below {}", "away": "{} or more from -1000"}
        for flag in FLAGS:
            limit = f"{flag.threshold:,g} {flag.unit}".strip()
            yield [
                nodes.literal(text=flag.name), nodes.literal(text=flag.number),
                *(nodes.Text(text) for text in (raised[flag.raised].format(limit), flag.measured, flag.reason)),
            ]  # fmt: skip


class MixtureChecks(TableDirective):
    """A table of every check of a mixture."""

    heads, widths = ("check", "number", "raised", "result", "why this limit"), (2, 6, 2, 2, 6)

    def rows(self) -> Iterator[list[nodes.Node]]:
        """See `TableDirective`."""
        for check in CHECKS:
            limit = "above 0 HU" if check.name == "range" else f"from {check.limit:g} {check.unit}".strip()
            if check.name in BELOW:
                limit = f"below {check.limit:g} {check.unit}".strip()
            result = "fails" if check.fails else "remark"
            yield [
                nodes.literal(text=check.name),
                *(nodes.Text(text) for text in (check.measured, limit, result, check.reason)),
            ]  # fmt: skip


class TissueRanges(TableDirective):
    """A table of the HU of tissues with their sources."""

    heads, widths = ("tissue", "mean, HU", "source"), (2, 2, 8)

    def rows(self) -> Iterator[list[nodes.Node]]:
        """See `TableDirective`."""
        for tissue in TISSUE_RANGES:
            yield [
                nodes.literal(text=tissue.key),
                nodes.Text(f"{tissue.low:g} to {tissue.high:g}"),
                nodes.Text(tissue.source),
            ]


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
            yield [nodes.literal(text=error), with_code(message)]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("columns", Columns)
    app.add_directive("quality-flags", QualityFlags)
    app.add_directive("mixture-checks", MixtureChecks)
    app.add_directive("tissue-ranges", TissueRanges)
    app.add_directive("error-classes", ErrorClasses)
    app.add_directive("error-messages", ErrorMessages)
    return {"parallel_read_safe": True}
