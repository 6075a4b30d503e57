"""Tables of a store as CSV and Parquet: conversion of rows, and removal of the rows of cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

Row = dict[str, float | int | str]


def text_of(rows: Sequence[Mapping[str, float | int | str]]) -> str:
    """Return rows as CSV with a header line; empty text for no rows.

    Parameters
    ----------
    rows : sequence of mapping
        Rows with equal keys, the first of which is ``case``.
    """
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def rows_of(text: str) -> list[Row]:
    """Return the rows in a text of `text_of`; cells are int, float or str."""
    columns, *lines = list(csv.reader(io.StringIO(text))) or [[]]
    filled = [[*cells, *[""] * (len(columns) - len(cells))] for cells in lines if cells]
    return [{key: _value(key, cell) for key, cell in zip(columns, cells, strict=False)} for cells in filled]


def lines_of(text: str) -> tuple[str, dict[str, list[str]]]:
    """Return the header line of a table, and its other lines, unchanged, by case."""
    header, *lines = text.splitlines() or [""]
    by_case: dict[str, list[str]] = {}
    for line in lines:
        by_case.setdefault(_case_of(line), []).append(line)
    return header, by_case


def without(text: str, names: Collection[str]) -> str:
    """Return a table without the rows of the named cases; header and other rows keep their bytes."""
    return without_lines(text, lambda name, _: name in names)


def without_lines(text: str, is_dropped: Callable[[str, str], bool]) -> str:
    """Return a table without the rows for which `is_dropped` is true; header and other rows keep their bytes.

    Parameters
    ----------
    text : str
        Table as CSV.
    is_dropped : callable
        Function of the case and the line of a row.
    """
    lines = enumerate(text.splitlines(keepends=True))
    return "".join(line for number, line in lines if not number or not is_dropped(_case_of(line), line))


def parquet_of(text: str) -> bytes:
    """Return a table as a Parquet file. Columns are text, int64 or double; double if there are no rows.

    Parameters
    ----------
    text : str
        Table as CSV.
    """
    # Imported here, as it is slow and only needed to write tables.
    import pyarrow as pa

    rows = rows_of(text)
    columns = list(rows[0]) if rows else next(csv.reader(io.StringIO(text)), [])
    return _file_of(pa.table({key: _column(pa, key, [row[key] for row in rows]) for key in columns}))


def is_parquet_of(content: bytes | None, text: str) -> bool:
    """Return True if a Parquet file holds the table of a CSV text, whichever version of pyarrow wrote it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _file_of(pq.read_table(io.BytesIO(content or b""))) == parquet_of(text)
    except (pa.ArrowException, OSError, ValueError):
        return False


def _case_of(line: str) -> str:
    return line.split(",", 1)[0].strip()


def _value(key: str, cell: str) -> float | int | str:
    if key == "case":
        return cell
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _file_of(table: Any) -> bytes:
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _column(pa: Any, key: str, values: list[float | int | str]) -> Any:
    if not values:
        return pa.array([], pa.string() if key == "case" else pa.float64())
    if any(isinstance(value, str) for value in values):
        return pa.array(list(map(str, values)), pa.string())
    if all(isinstance(value, int) for value in values):
        return pa.array(values, pa.int64())
    return pa.array(list(map(float, values)), pa.float64())
