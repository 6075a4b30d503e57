"""Tables as people save them: separated by commas, semicolons or tabs, in UTF-8 or as a spreadsheet writes Unicode."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence

_SEPARATORS = ",;\t"
_DECLARED = re.compile(r'"?sep=([,;\t])"?\s*', re.IGNORECASE)
"""A first line of spreadsheets, which names the separator."""

Rows = list[tuple[int, list[str]]]
"""Cells of each line that has any, with the number of the line that they end in."""


def text_of(content: bytes) -> str:
    """Decode text: UTF-16 where a mark at its beginning says so, else UTF-8, with or without a mark.

    Raises
    ------
    UnicodeDecodeError
        If it is in another encoding.
    """
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def rows_of(text: str, names: Collection[str], *, comments: bool = False) -> Rows:
    """Split a table into cells; the separator is the one with which its first line makes most sense.

    That is the one with which a column has one of the names. Without any, the first line is not taken for heads, and
    the separator is the one that comes first in it.

    Parameters
    ----------
    text : str
        Of the file.
    names : collection of str
        What a column may be called, in small letters.
    comments : bool
        Whether lines that begin with ``#`` are left out.

    Raises
    ------
    csv.Error
        If a quote has no end, text follows one, a cell has more than 131,072 characters, or lines end in several ways.
    """
    # A lone carriage return ends lines where nothing else does.
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


def column_of(heads: Sequence[str], names: Sequence[str]) -> int | None:
    """Return which column has the first of the names that any has, in whatever case; None without one."""
    lower = [_plain(head) for head in heads]
    return next((lower.index(name) for name in names if name in lower), None)


def _separator(line: str, names: Collection[str]) -> str:
    cells = {separator: next(csv.reader([line], delimiter=separator), []) for separator in _SEPARATORS}
    named = [separator for separator in _SEPARATORS if any(_plain(cell) in names for cell in cells[separator])]
    if named:
        return max(named, key=lambda separator: len(cells[separator]))
    several = [separator for separator in _SEPARATORS if len(cells[separator]) > 1]
    return min(several, key=lambda separator: len(cells[separator][0]), default=",")


def _plain(head: str) -> str:
    return head.strip().lower()


def _is_empty(line: str, comments: bool) -> bool:
    return not line.strip(f" \r\n{_SEPARATORS}") or (comments and line.lstrip().startswith("#"))


def _without_comments(lines: Sequence[str]) -> Iterator[str]:
    # Lines that are left out count too.
    return ("\n" if line.lstrip().startswith("#") else line for line in lines)
