"""Text and CSV files that list sources."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from lungmix.errors import SourceError, is_encodable, mark_path
from lungmix.formats.native import local_name
from lungmix.formats.tables import Rows, column_of, rows_of, text_of
from lungmix.s3 import is_remote

LIST_EXTENSIONS = (".txt", ".csv", ".tsv", ".list")
_TABLE_EXTENSIONS = (".csv", ".tsv")
LARGEST_LIST = 16 << 20
LONGEST_ENTRY = 4096
LONGEST_PART = 255
MOST_ENTRIES = 200_000

_COLUMNS = (
    "path", "source", "file", "image",
    "filepath", "file_path", "file path", "filename", "file_name", "file name", "image_path", "folder",
)  # fmt: skip


def is_list(path: Path) -> bool:
    """Whether the name is that of a list of sources."""
    return path.suffix.lower() in LIST_EXTENSIONS


def read_list(path: Path, beside: str | None = None) -> list[Path | str]:
    """The sources that a file lists, each once, relative ones beside it; ``s3://`` addresses as they stand.

    A table has them in a column called path, source, file, image or the like, or else in its first one; every other
    file has one a line. A text file is a table if its first line has several heads, such a one among them.

    Parameters
    ----------
    path : Path
        The list.
    beside : str, optional
        Where the list lies in an object store: relative sources lie there too, and there are no others.

    Raises
    ------
    SourceError
        If it is no text, lists nothing, or more than is reasonable, or files of this machine from a bucket.
    """
    with path.open("rb") as stream:
        content = stream.read(LARGEST_LIST + 1)
    if len(content) > LARGEST_LIST:
        raise SourceError(
            f"{mark_path(path)} is too large for a list of sources: give one path a line, in several lists"
        )
    try:
        text, is_utf8 = text_of(content), True
    except UnicodeDecodeError:
        text, is_utf8 = content.decode("utf-8", "surrogateescape"), False
    no_text = SourceError(
        f"{mark_path(path)} is no text in UTF-8 or UTF-16: give a list with one path a line, saved as UTF-8"
    )
    if "\0" in text:
        raise no_text
    entries = list(dict.fromkeys(_entries(path, text)))
    # Names of files may have any bytes, so an entry that leads nowhere is no reason to refuse the others.
    if not is_utf8 and not _leads_anywhere(path, entries, beside):
        raise no_text
    if not entries:
        raise SourceError(f"{mark_path(path)} lists nothing: give one path a line")
    if len(entries) > MOST_ENTRIES:
        raise SourceError(f"{mark_path(path)} lists more than {MOST_ENTRIES:,} sources: give several lists")
    return [_source(path, entry, beside) for entry in entries]


def _leads_anywhere(path: Path, entries: Sequence[str], beside: str | None) -> bool:
    """Return True if an entry is a source: a file that exists, or an address that an object store can hold."""
    if beside is not None:
        return any(is_encodable(entry) for entry in entries)
    return any(
        is_encodable(entry) if is_remote(entry) else (path.parent / local_name(entry)).exists() for entry in entries
    )


def _source(path: Path, entry: str, beside: str | None) -> Path | str:
    if is_remote(entry):
        return entry
    if beside is None:
        return path.parent / local_name(entry)
    if entry.startswith("/") or ".." in entry.split("/"):
        raise SourceError(f"{mark_path(path)} lists {mark_path(entry)} outside its own folder: give its s3:// address")
    return f"{beside}/{entry}"


def _entries(path: Path, text: str) -> list[str]:
    is_table = path.suffix.lower() in _TABLE_EXTENSIONS
    try:
        rows = rows_of(text, _COLUMNS, comments=True)
    except csv.Error:
        if is_table:
            raise SourceError(
                f"{mark_path(path)} is no table that can be read: check its quotes, or give one path a line"
            ) from None
        rows = []
    column = column_of(rows[0][1], _COLUMNS) if rows else None
    if is_table or (column is not None and len(rows[0][1]) > 1):
        lines = _cells(rows if column is None else rows[1:], column or 0)
    else:
        lines = [(number, line.strip()) for number, line in enumerate(re.split("\r\n|\r|\n", text), 1)]
        lines = [(number, line) for number, line in lines if not line.startswith("#")]
    for number, line in lines:
        parts = line.encode("utf-8", "surrogateescape").split(b"/")
        if len(line) > LONGEST_ENTRY or any(len(part) > LONGEST_PART for part in parts):
            raise SourceError(
                f"{mark_path(path)} has a line {number} that is too long for a path: give one path a line"
            )
    return [line for _, line in lines if line]


def _cells(rows: Rows, column: int) -> list[tuple[int, str]]:
    return [(number, cells[column].strip()) for number, cells in rows if len(cells) > column]
