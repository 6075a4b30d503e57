"""Text and CSV files with lists of sources."""

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
MAX_LIST_BYTES = 16 << 20
MAX_ENTRY_LENGTH = 4096
MAX_PART_BYTES = 255
MAX_ENTRIES = 200_000

_COLUMNS = (
    "path", "source", "file", "image",
    "filepath", "file_path", "file path", "filename", "file_name", "file name", "image_path", "folder",
)  # fmt: skip


def is_list(path: Path) -> bool:
    """Return True for the name of a list of sources."""
    return path.suffix.lower() in LIST_EXTENSIONS


def read_list(path: Path, base_url: str | None = None) -> list[Path | str]:
    """Return the sources that a list names, without duplicates.

    Relative paths are resolved against the folder of the list; addresses are unchanged. In a table, sources are in a
    column named path, source, file, image or similar (`_COLUMNS`), or else in the first column. Any other file has one
    source per line. A text file is a table if its first line has several cells and one of them is such a column name.

    Parameters
    ----------
    path : Path
        The list.
    base_url : str, optional
        Address of the folder of the list, if the list is in an object store.

    Raises
    ------
    SourceError
        If the list is not text, is empty or too long, or if a list in an object store names files of this machine.
    """
    with path.open("rb") as stream:
        content = stream.read(MAX_LIST_BYTES + 1)
    if len(content) > MAX_LIST_BYTES:
        raise SourceError(
            f"{mark_path(path)} is too large for a list of sources: give one path per line, in several lists"
        )
    try:
        text, is_utf8 = text_of(content), True
    except UnicodeDecodeError:
        text, is_utf8 = content.decode("utf-8", "surrogateescape"), False
    encoding_error = SourceError(
        f"{mark_path(path)} is no text in UTF-8 or UTF-16: give a list with one path per line, saved as UTF-8"
    )
    if "\0" in text:
        raise encoding_error
    entries = list(dict.fromkeys(_entries(path, text)))
    # File names may contain any bytes, so one entry that does not exist is no reason to reject the others.
    if not is_utf8 and not _has_source(path, entries, base_url):
        raise encoding_error
    if not entries:
        raise SourceError(f"{mark_path(path)} lists nothing: give one path per line")
    if len(entries) > MAX_ENTRIES:
        raise SourceError(f"{mark_path(path)} lists more than {MAX_ENTRIES:,} sources: give several lists")
    return [_source(path, entry, base_url) for entry in entries]


def _has_source(path: Path, entries: Sequence[str], base_url: str | None) -> bool:
    """Return True if any entry is an existing file, or a valid address in an object store."""
    if base_url is not None:
        return any(is_encodable(entry) for entry in entries)
    return any(
        is_encodable(entry) if is_remote(entry) else (path.parent / local_name(entry)).exists() for entry in entries
    )


def _source(path: Path, entry: str, base_url: str | None) -> Path | str:
    if is_remote(entry):
        return entry
    if base_url is None:
        return path.parent / local_name(entry)
    if entry.startswith("/") or ".." in entry.split("/"):
        raise SourceError(f"{mark_path(path)} lists {mark_path(entry)} outside its own folder: give its s3:// address")
    return f"{base_url}/{entry}"


def _entries(path: Path, text: str) -> list[str]:
    is_table = path.suffix.lower() in _TABLE_EXTENSIONS
    try:
        rows = rows_of(text, _COLUMNS, comments=True)
    except csv.Error:
        if is_table:
            raise SourceError(
                f"{mark_path(path)} is no table that can be read: check its quotes, or give one path per line"
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
        if len(line) > MAX_ENTRY_LENGTH or any(len(part) > MAX_PART_BYTES for part in parts):
            raise SourceError(f"{mark_path(path)} has too long a path in line {number}: give one path per line")
    return [line for _, line in lines if line]


def _cells(rows: Rows, column: int) -> list[tuple[int, str]]:
    return [(number, cells[column].strip()) for number, cells in rows if len(cells) > column]
