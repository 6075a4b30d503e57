"""Tables as Parquet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def parquet_of(rows: Sequence[Mapping[str, float | int | str]]) -> bytes:
    """A table as a Parquet file: text, 64-bit integers or doubles by column.

    Parameters
    ----------
    rows : sequence of mapping
        All with the same keys.
    """
    # Only who writes tables waits for the import.
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({key: _column(pa, [row[key] for row in rows]) for key in (rows[0] if rows else ())})
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _column(pa: Any, values: list[float | int | str]) -> Any:
    if all(isinstance(value, str) for value in values):
        return pa.array(values, pa.string())
    if all(isinstance(value, int) for value in values):
        return pa.array(values, pa.int64())
    return pa.array([float(value) for value in values], pa.float64())
