"""Reduction of integer samples with one feature to the number of samples per value, from which a fit is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.mixture.checks import check_masked, check_weights
from lungmix.mixture.sources import Rows, Source

LONGEST_TABLE = 1 << 22
"""Samples are counted only if their values span fewer integers than this; a table of this length takes 32 MiB."""

_ROWS_AT_ONCE = 1 << 20

Table = tuple[npt.NDArray[np.int64], npt.NDArray[Any]] | None
"""Distinct values, ascending, and the sum of sample weights of each; without sample weights these are counts in int64.

None if the values span too many integers.
"""


def countable(dtype: npt.DTypeLike, n_features: int) -> bool:
    """Return True if samples can be counted by value: they must be integers that fit in int64, with one feature."""
    return n_features == 1 and np.dtype(dtype).kind in "iub" and np.dtype(dtype) != np.uint64


def reduce_to_counts(source: Source) -> Rows | None:
    """Return the distinct values of a source with their total weights, in one pass over the samples.

    Return None if the values span too many integers. The result does not depend on the chunks. Integer weights are
    added exactly up to 2**53.
    """
    table = source.total(count, merge)
    if table is None:
        return None
    values, weights = table
    return Rows(values.astype(np.float64)[:, None], weights.astype(np.float64))


def count(x: npt.NDArray[Any], weights: npt.NDArray[Any] | None = None) -> Table:
    """Return the distinct values of a chunk with the number of samples of each, or their total weights.

    Parameters
    ----------
    x : ndarray of int, any shape
        Samples.
    weights : ndarray, shape (n,), or None
        One weight per sample. Values whose weights add up to 0 are dropped.
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
    """Return the sum of the tables of several chunks; None if a table is None or all values span too many integers."""
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
