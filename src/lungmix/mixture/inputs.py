"""Conversion of samples and weights in the types that users have, such as arrays, frames and lists, to a `Source`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import validate_data

from lungmix.arrays import as_lazy
from lungmix.errors import ModelError
from lungmix.mixture.checks import check_masked, check_weights
from lungmix.mixture.sources import Chunks, Rows, Source

REAL = frozenset("fiub")
"""Kinds of numpy dtypes that samples and weights may have: float, signed and unsigned integer, and boolean."""


def read_rows(estimator: Any, x: Any, reset: bool, y: Any = None) -> Any:
    """Return samples as a numpy or dask array of shape (n, d) and of a real dtype; NaN and infinity are not checked.

    Parameters
    ----------
    estimator : GaussianMixture
        The estimator. If `reset`, it records number and names of features; if not, they must be those of its fit.
    x : array-like, dask array, frame of pandas, polars or dask, or xarray DataArray, shape (n,) or (n, d)
        Samples; shape (n,) means one feature.
    reset : bool
        True if the estimator is about to be fitted.
    y : object, optional
        Second argument of `fit`. It is ignored for samples of two dimensions, as in scikit-learn, and raises an error
        for samples of one dimension.

    Raises
    ------
    ModelError
        If shape, type or names are invalid.
    """
    lazy = as_lazy(_with_plain_numbers(x))
    # Check names of features on the frame, because its array has none.
    named = x._meta if lazy is not None and getattr(x, "ndim", 0) == 2 and hasattr(x, "columns") else None
    if lazy is not None:
        x = lazy
    elif hasattr(x, "collect_schema") and not hasattr(x, "shape"):
        raise ModelError("samples are a lazy frame, which has not read its rows: call collect() on it first")
    elif isinstance(x, (list, tuple)) or not hasattr(x, "shape"):
        x = np.asarray(x)
    if len(x.shape) not in (1, 2):
        raise ModelError(f"samples have the shape (n,) or (n, d), not {x.shape}: reshape them, e.g. with ravel()")
    if len(x.shape) == 1:
        if y is not None:
            raise ModelError(
                "one-dimensional samples came with a second argument, which is y and would be ignored: give weights "
                "as sample_weight=, or reshape the samples with reshape(-1, 1)"
            )
        if not reset and estimator.n_features_in_ != 1:
            raise ModelError(
                f"samples of shape {x.shape} have one feature, the mixture has {estimator.n_features_in_}. "
                "Reshape your data with x.reshape(1, -1) if it is a single sample"
            )
        x = x[:, None] if lazy is not None else _to_numpy(x).reshape(-1, 1)
    try:
        if lazy is None:
            return _validated(estimator, x, reset)
        validate_data(estimator, x if named is None else named, reset=reset, skip_check_array=True)
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(str(error)) from None
    if x.dtype.kind not in REAL:
        raise ModelError(f"samples have the type {x.dtype}: give real numbers, e.g. with astype('float64')")
    if not x.shape[1]:
        raise ModelError(f"0 feature(s) (shape={x.shape}) while a minimum of 1 is required: give at least one column")
    return x.rechunk({1: -1}) if x.numblocks[1] != 1 else x


def _validated(estimator: Any, x: Any, reset: bool) -> Any:
    """Validate samples in memory as scikit-learn does, and keep their mask."""
    rows = validate_data(estimator, x, reset=reset, dtype="numeric", ensure_all_finite=False, ensure_min_samples=0)
    return np.ma.array(rows, mask=np.ma.getmaskarray(x)) if np.ma.is_masked(x) else rows


def _with_plain_numbers(x: Any) -> Any:
    """Return dask frames and series with nullable or mixed types of numbers as float64, with NaN for missing values.

    Everything else is returned unchanged.
    """
    meta = getattr(x, "_meta", None)
    if not hasattr(x, "to_dask_array") or meta is None:
        return x
    types = list(meta.dtypes) if meta.ndim == 2 else [meta.dtype]
    if not types or any(kind.kind not in REAL for kind in types):
        return x
    plain = all(isinstance(kind, np.dtype) for kind in types)
    return x if plain and np.result_type(*types) == meta.to_numpy().dtype else x.astype("float64")


def _to_numpy(values: Any) -> Any:
    """Return numbers in memory as a numpy array, with NaN for missing values of pandas' nullable types."""
    kind = getattr(values, "dtype", None)
    if hasattr(values, "to_numpy") and getattr(kind, "kind", "") in REAL and not isinstance(kind, np.dtype):
        return values.to_numpy(np.float64, na_value=np.nan)
    return np.asanyarray(values) if isinstance(values, np.ma.MaskedArray) else np.asarray(values)


def kept_dtype(dtype: npt.DTypeLike) -> type[np.floating[Any]]:
    """Return the dtype of results for samples of a dtype: float32 for float32, float64 for all others."""
    sample_dtype = np.dtype(dtype)
    return np.float32 if sample_dtype.kind == "f" and sample_dtype.itemsize == 4 else np.float64


def source_of(x: Any, sample_weight: Any) -> tuple[Source, Sequence[float]]:
    """Return samples and their weights as a source, and the number of rows in each of its chunks.

    Parameters
    ----------
    x : numpy or dask array, shape (n, d)
        Samples, as returned by `read_rows`.
    sample_weight : array-like, dask array, series or one-column frame, shape (n,) or (n, 1), or None
        One weight per sample, in the order of the samples; an index is ignored.

    Raises
    ------
    ModelError
        If weights do not match the samples.
    """
    weights = None if sample_weight is None else _read_weights(sample_weight)
    if not isinstance(x, da.Array):
        if isinstance(weights, da.Array):
            weights = weights.compute()
        if weights is not None:
            weights = check_weights(weights, len(x))
        check_masked(x, weights, 0)
        source = Rows(np.ma.getdata(x), weights)
        return source, source.sizes
    if weights is None:
        return Chunks(x), x.chunks[0]
    x, weights = _align_chunks(x, weights)
    return Chunks(x, weights), x.chunks[0]


def _read_weights(sample_weight: Any) -> Any:
    """Return weights as a numpy or dask array; the shape (n, 1) becomes (n,)."""
    plain = _with_plain_numbers(sample_weight)
    lazy = as_lazy(plain)
    if lazy is None and hasattr(plain, "iloc") and plain.ndim == 2 and plain.shape[1] == 1:
        plain = plain.iloc[:, 0]
    weights = _to_numpy(plain) if lazy is None else lazy
    return weights[:, 0] if weights.ndim == 2 and weights.shape[1] == 1 else weights


def _align_chunks(x: da.Array, weights: Any) -> tuple[da.Array, da.Array]:
    lazy = isinstance(weights, da.Array)
    if weights.ndim != 1 or len({n for n in (x.shape[0], *weights.shape) if not math.isnan(n)}) > 1:
        raise ModelError(
            f"sample_weight has the shape {weights.shape}, not ({x.shape[0]},): give one weight per sample"
        )
    if np.ma.is_masked(weights):
        check_weights(weights, len(weights))
    if math.isnan(x.shape[0]) and lazy and math.isnan(weights.shape[0]) and x.numblocks[0] == weights.numblocks[0]:
        return x, weights  # probably a frame and one of its columns; lengths of chunks are checked when they are read
    x, weights = _with_known_chunks(x), _with_known_chunks(weights) if lazy else weights
    if len(x) != len(weights):
        raise ModelError(f"sample_weight has the shape {weights.shape}, not ({len(x)},): give one weight per sample")
    return x, da.asarray(weights).rechunk((x.chunks[0],))


def _with_known_chunks(array: da.Array) -> da.Array:
    """Return a dask array whose chunks have known lengths; unknown ones are computed in one pass."""
    return array.copy().compute_chunk_sizes() if math.isnan(array.shape[0]) else array
