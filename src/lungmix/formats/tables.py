"""Parser of tables that users provide, with commas, semicolons or tabs between cells, in UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence

_SEPARATORS = ",;\t"
_DECLARED = re.compile(r'"?sep=([,;\t])"?\s*', re.IGNORECASE)
"""First line of some spreadsheets, which declares the separator."""

Rows = list[tuple[int, list[str]]]
"""Non-empty rows, each as the number of its last line in the file and its cells."""


def text_of(content: bytes) -> str:
    """Return the text in bytes: decoded as UTF-16 if they begin with its byte order mark, else as UTF-8.

    Raises
    ------
    UnicodeDecodeError
        If the text is in another encoding.
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def rows_of(text: str, names: Collection[str], *, comments: bool = False) -> Rows:
    """Return the rows of a table, split into cells.

    A line such as ``sep=;`` may declare the separator. Else it is the separator that makes one of the names a cell of
    the first line. If no separator does, the first line is no header, and the first separator in it is used.

    Parameters
    ----------
    text : str
        Text of the file.
    names : collection of str
        Possible column names, in lower case.
    comments : bool
        True to ignore lines that begin with ``#``.

    Raises
    ------
    csv.Error
        If a quote is not closed or is followed by text, a cell has more than 131,072 characters, or different line
        ends are mixed.
    """
    # Carriage returns alone end lines in files without line feeds.
    lines = list(io.StringIO(text, newline="\n" if "\n" in text else ""))
    first = next((n for n, line in enumerate(lines) if not _is_empty(line, comments)), len(lines))
    declared = _DECLARED.fullmatch(lines[first]) if first < len(lines) else None
    if declared:
        lines[first] = ""
        first = next((n for n, line in enumerate(lines) if not _is_empty(line, comments)), len(lines))
    if first == len(lines):
        return []
    separator = declared[1] if declared else _separator(lines[first], names)
    reader = csv.reader(_without_comments(lines) if comments else lines, delimiter=separator, strict=True)
    return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]


def column_of(column_names: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the index of the column whose name comes first in `names`, ignoring case; None without such a column."""
    lower = [_normalize(column_name) for column_name in column_names]
    return next((lower.index(name) for name in names if name in lower), None)


def _separator(line: str, names: Collection[str]) -> str:
    cells = {separator: next(csv.reader([line], delimiter=separator), []) for separator in _SEPARATORS}
    named = [separator for separator in _SEPARATORS if any(_normalize(cell) in names for cell in cells[separator])]
    if named:
        return max(named, key=lambda separator: len(cells[separator]))
    several = [separator for separator in _SEPARATORS if len(cells[separator]) > 1]
    return min(several, key=lambda separator: len(cells[separator][0]), default=",")


def _normalize(column_name: str) -> str:
    return column_name.strip().lower()


def _is_empty(line: str, comments: bool) -> bool:
    return not line.strip(f" \r\n{_SEPARATORS}") or (comments and line.lstrip().startswith("#"))


def _without_comments(lines: Sequence[str]) -> Iterator[str]:
    # Comments become empty lines, so that line numbers stay correct.
    return ("\n" if line.lstrip().startswith("#") else line for line in lines)
