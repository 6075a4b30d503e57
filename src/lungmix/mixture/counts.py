"""Reduction of integer samples with one feature to counts per value, which are sufficient for a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.mixture.checks import check_masked, check_weights
from lungmix.mixture.sources import Rows, Source

LONGEST_TABLE = 1 << 22
"""Largest range of values for which samples are counted; a table of this length takes 32 MiB."""

_ROWS_AT_ONCE = 1 << 20

Table = tuple[npt.NDArray[np.int64], npt.NDArray[Any]] | None
"""Values, ascending, and their weights (int64 counts without sample weights); None if the range is too large."""


def countable(dtype: npt.DTypeLike, n_features: int) -> bool:
    """Return True if samples of this type can be counted."""
    return n_features == 1 and np.dtype(dtype).kind in "iub" and np.dtype(dtype) != np.uint64


def reduce_to_counts(source: Source) -> Rows | None:
    """Return the distinct values of a source and their weights, in one pass; None if their range is too large.

    The result does not depend on the chunks and, for integer weights, is exact up to 2**53.
    """
    table = source.total(count, merge)
    if table is None:
        return None
    values, weights = table
    return Rows(values.astype(np.float64)[:, None], weights.astype(np.float64))


def count(x: npt.NDArray[Any], weights: npt.NDArray[Any] | None = None) -> Table:
    """Count the values of a chunk.

    Parameters
    ----------
    x : ndarray of int, any shape
        Samples.
    weights : ndarray, shape (n,), or None
        One weight per sample; values of total weight 0 are dropped.
    """
    samples = np.asanyarray(x).reshape(-1)
    weights = None if weights is None else check_weights(weights, len(samples))
    check_masked(samples, weights, None)
    flat = np.asarray(samples)
    if weights is not None and not np.all(weights):
        flat, weights = flat[weights > 0], weights[weights > 0]
    if not len(flat):
        return np.zeros(0, np.int64), np.zeros(0, np.int64 if weights is None else np.float64)
    low, high = int(flat.min()), int(flat.max())
    if high - low >= LONGEST_TABLE:
        return None
    table = np.zeros(high - low + 1, np.int64 if weights is None else np.float64)
    for start in range(0, len(flat), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        share = None if weights is None else weights[rows]
        table += np.bincount(flat[rows].astype(np.int64) - low, share, len(table))
    present = np.flatnonzero(table)
    return present + low, table[present]


def merge(tables: list[Table]) -> Table:
    """Return the sum of all tables."""
    full = [table for table in tables if table is not None and len(table[0])]
    if any(table is None for table in tables):
        return None
    if not full:
        return tables[0]
    low, high = min(int(v[0]) for v, _ in full), max(int(v[-1]) for v, _ in full)
    if high - low >= LONGEST_TABLE:
        return None
    total = np.zeros(high - low + 1, np.result_type(*(weights.dtype for _, weights in full)))
    for values, weights in full:
        total[values - low] += weights
    present = np.flatnonzero(total)
    return present + low, total[present]
