"""Tables that list the masks of cases."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from lungmix.errors import UsageError, mark_path
from lungmix.formats.images import extension_of
from lungmix.formats.remote import mirror_headers
from lungmix.formats.tables import column_of, rows_of, text_of
from lungmix.formats.tempdirs import temporary_folder
from lungmix.intake.mask_cases import CaseLookup
from lungmix.s3 import check_address, is_address, is_remote

TABLE_EXTENSIONS = (".csv", ".tsv", ".txt")
MASK_COLUMNS = ("mask", "masks", "mask_path", "segmentation", "label", "labels")
TARGET_COLUMNS = ("case", "series_uid", "seriesinstanceuid", "path", "source", "image", "file", "scan")
_UID_COLUMNS = ("series_uid", "seriesinstanceuid")
_MAX_TABLE_BYTES = 64 << 20


def is_table(place: str) -> bool:
    """Return True for a path with the extension of a table, such as ``.csv``."""
    path = Path(place)
    return path.suffix.lower() in TABLE_EXTENSIONS and extension_of(path) is None


def read_mask_table(
    place: str, cases: CaseLookup, unused: MutableMapping[str, str]
) -> list[tuple[str, frozenset[str]]]:
    """Return the path or address of each mask in a table, with the cases that its row names.

    Parameters
    ----------
    place : str
        Path or address of the table. Paths in the table are relative to its folder.
    cases : CaseLookup
        The cases.
    unused : mapping of str to str
        Receives rows that name no case of this run, with the reason.

    Raises
    ------
    UsageError
        If the file is not a table, or lacks a column.
    SourceError
        If a table in an object store cannot be downloaded.
    """
    with _on_this_machine(place) as path, path.open("rb") as stream:
        content = stream.read(_MAX_TABLE_BYTES + 1)
    if len(content) > _MAX_TABLE_BYTES:
        raise UsageError(f"{mark_path(place)} is too large for a table of masks: give several")
    try:
        rows = rows_of(text_of(content), (*MASK_COLUMNS, *TARGET_COLUMNS), comments=True)
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(
            f"{mark_path(place)} is no table that can be read: check its quotes, and save it as UTF-8"
        ) from None
    header = rows[0][1] if rows else []
    mask_column, target_column = column_of(header, MASK_COLUMNS), column_of(header, TARGET_COLUMNS)
    if mask_column is None or target_column is None:
        raise UsageError(
            f"{mark_path(place)} is no table of masks: give it a column mask, and one of case, series_uid or path"
        )
    kind = header[target_column].strip().lower()
    of_target: Callable[[str], frozenset[str]] = (
        (lambda text: frozenset({text} & {*cases.names}))
        if kind == "case"
        else cases.of_series
        if kind in _UID_COLUMNS
        else (lambda text: cases.of_path(_location(text, place)))
    )
    masks: list[tuple[str, frozenset[str]]] = []
    for line, cells in rows[1:]:
        mask, target = (cells[column].strip() if column < len(cells) else "" for column in (mask_column, target_column))
        if not mask or not target:
            continue
        if targets := of_target(target):
            masks.append((_location(mask, place), targets))
        else:
            unused[f"mask of line {line}"] = (
                f"{mark_path(place)} names no case of this run in line {line}: check its column {kind}"
            )
    return masks


def _location(text: str, table: str) -> str:
    """Return the absolute path or the address of an entry of a table; relative entries begin in the table's folder."""
    if is_address(text):
        return text
    if is_remote(table):
        return f"{table.rpartition('/')[0]}/{text}"
    return str((Path(table).parent / text).absolute())


@contextmanager
def _on_this_machine(place: str) -> Iterator[Path]:
    if not is_remote(place):
        yield Path(place)
        return
    with temporary_folder() as folder:
        path = mirror_headers(check_address(place), folder, lambda done, total: None).path
        if not path.is_file():
            raise UsageError(f"{mark_path(place)} is no object: check the address of the table")
        yield path
