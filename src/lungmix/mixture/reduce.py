"""From data of any size to distinct samples and their weights."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from lungmix.errors import ModelError
from lungmix.mixture.em import Floats

Pairs = tuple[npt.NDArray[np.int64], Floats]


def weighted_samples(x: Any, sample_weight: Any = None) -> tuple[Floats, Floats]:
    """Distinct rows, or at least all rows, with their weights.

    Integers with one feature are reduced to one entry for each value, chunk by chunk where `x` is a dask array:
    only these small tables leave the workers.

    Parameters
    ----------
    x : numpy or dask array, shape (n,) or (n, d)
        Samples.
    sample_weight : array, shape (n,), optional
        Non-negative; a weight of c stands for c copies.

    Returns
    -------
    samples : ndarray of float64, shape (m, d)
        Rows of weight 0 are left out.
    weights : ndarray of float64, shape (m,)
        Positive.

    Raises
    ------
    ModelError
        If there are no samples, or some are NaN or infinite, or a weight is negative.
    """
    lazy = isinstance(x, da.Array)
    data: Any = x if lazy else np.asarray(x)
    if data.ndim not in (1, 2):
        raise ModelError(f"samples have the shape (n,) or (n, d), not {data.shape}: reshape them, e.g. with ravel()")
    if data.dtype.kind in "iub" and (data.ndim == 1 or data.shape[1] == 1):
        values, weights = _distinct(data.reshape(-1), sample_weight)
        samples = values.astype(np.float64)[:, None]
    else:
        samples = np.asarray(data.compute() if lazy else data, np.float64)
        samples = samples.reshape(len(samples), 1 if samples.ndim == 1 else samples.shape[1])
        weights = np.ones(len(samples)) if sample_weight is None else _weights(sample_weight, len(samples))
    _check(samples, weights)
    present = weights > 0
    if not present.any():
        raise ModelError("there are no samples with a positive weight: nothing can be fitted")
    return (samples, weights) if present.all() else (samples[present], weights[present])


def _distinct(x: Any, sample_weight: Any) -> Pairs:
    if not isinstance(x, da.Array):
        weights = None if sample_weight is None else _weights(sample_weight, len(x))
        return _count(x, weights)
    from dask import compute, delayed

    blocks = x.to_delayed()
    parts: list[Any] = [None] * len(blocks)
    if sample_weight is not None:
        parts = list(da.asarray(sample_weight).rechunk((x.chunks[0],)).to_delayed())
    tables = [delayed(_count)(block, part) for block, part in zip(blocks, parts, strict=True)]
    while len(tables) > 1:
        tables = [delayed(_merge)(tables[i : i + 8]) for i in range(0, len(tables), 8)]
    result: Pairs = compute(tables[0])[0]
    return result


def _count(x: npt.NDArray[Any], weights: Floats | None) -> Pairs:
    if not x.size:
        return np.zeros(0, np.int64), np.zeros(0)
    low, high = int(x.min()), int(x.max())
    if high - low < max(1 << 20, 4 * x.size):
        table = np.bincount(np.asarray(x, np.int64) - low, weights=weights, minlength=high - low + 1)
        # A value whose copies all weigh nothing is as good as absent.
        values = np.flatnonzero(table)
        return values + low, table[values].astype(np.float64)
    values, inverse = np.unique(np.asarray(x, np.int64), return_inverse=True)
    return values, np.bincount(inverse, weights=weights).astype(np.float64)


def _merge(tables: list[Pairs]) -> Pairs:
    return _count(np.concatenate([t[0] for t in tables]), np.concatenate([t[1] for t in tables]))


def _weights(sample_weight: Any, n: int) -> Floats:
    weights = np.asarray(sample_weight.compute() if isinstance(sample_weight, da.Array) else sample_weight, np.float64)
    if weights.shape != (n,):
        raise ModelError(f"sample_weight has the shape {weights.shape}, not ({n},): give one weight a sample")
    if not np.all(weights >= 0) or not np.all(np.isfinite(weights)):
        raise ModelError("sample_weight holds negative, NaN or infinite weights: they must be 0 or more")
    return weights


def _check(samples: Floats, weights: Floats) -> None:
    bad = ~np.isfinite(samples)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise ModelError(f"samples hold {samples[row, column]} at row {row}, column {column}: remove such rows first")
    if len(samples) != len(weights):
        raise ModelError(f"{len(samples)} samples but {len(weights)} weights: give one weight a sample")
