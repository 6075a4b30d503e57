"""From what users give to a source of samples: arrays, frames, lists, dask arrays, with or without weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from sklearn.utils.validation import validate_data

from lungmix.errors import ModelError
from lungmix.mixture.checks import check_weights
from lungmix.mixture.sources import Chunks, Rows, Source


def read_rows(estimator: Any, x: Any, reset: bool, y: Any = None) -> Any:
    """Samples as a numpy or dask array of shape (n, d), of a real dtype, not looked at for NaN yet.

    Parameters
    ----------
    estimator : GaussianMixture
        Learns, or is asked for, the number and the names of features.
    x : array-like, dask array or dask frame, shape (n,) or (n, d)
        Samples; of shape (n,) they have one feature.
    reset : bool
        Whether the estimator is being fitted.
    y : object, optional
        Second argument of a fit: fine with scikit-learn's tables, a mistake with one-dimensional samples.

    Raises
    ------
    ModelError
        If shape or type cannot be used.
    """
    if hasattr(x, "to_dask_array"):
        x = x.to_dask_array()
    lazy = isinstance(x, da.Array)
    if not lazy and (isinstance(x, (list, tuple)) or not hasattr(x, "ndim")):
        x = np.asarray(x)
    if x.ndim not in (1, 2):
        raise ModelError(f"samples have the shape (n,) or (n, d), not {x.shape}: reshape them, e.g. with ravel()")
    if x.ndim == 1:
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
        x = x[:, None] if lazy else np.asarray(x).reshape(-1, 1)
    try:
        if not lazy:
            return validate_data(
                estimator, x, reset=reset, dtype="numeric", ensure_all_finite=False, ensure_min_samples=0
            )
        validate_data(estimator, x, reset=reset, skip_check_array=True)
    except ModelError:
        raise
    except ValueError as error:
        raise ModelError(str(error)) from None
    if x.dtype.kind not in "fiub":
        raise ModelError(f"samples have the type {x.dtype}: give real numbers, e.g. with astype('float64')")
    if not x.shape[1]:
        raise ModelError(f"0 feature(s) (shape={x.shape}) while a minimum of 1 is required: give at least one column")
    return x.rechunk({1: -1}) if x.numblocks[1] != 1 else x


def source_of(x: Any, sample_weight: Any) -> tuple[Source, Sequence[float]]:
    """Samples and their weights as a source, and the sizes of its chunks.

    Parameters
    ----------
    x : numpy or dask array, shape (n, d)
        What `read_rows` returned.
    sample_weight : array-like or dask array, shape (n,), or None
        One weight a sample.

    Raises
    ------
    ModelError
        If weights do not fit the samples.
    """
    if not isinstance(x, da.Array):
        weights = None
        if sample_weight is not None:
            if isinstance(sample_weight, da.Array):
                sample_weight = sample_weight.compute()
            weights = check_weights(np.asarray(sample_weight), len(x))
        source = Rows(x, weights)
        return source, source.sizes
    if sample_weight is None:
        return Chunks(x), x.chunks[0]
    weights = sample_weight if isinstance(sample_weight, da.Array) else np.asarray(sample_weight)
    known = not np.isnan(x.shape[0])
    if weights.ndim != 1 or (known and not np.isnan(weights.shape[0]) and weights.shape[0] != x.shape[0]):
        raise ModelError(f"sample_weight has the shape {weights.shape}, not ({x.shape[0]},): give one weight a sample")
    if known and not (isinstance(weights, da.Array) and np.isnan(weights.shape[0])):
        weights = da.asarray(weights).rechunk((x.chunks[0],))
    if not isinstance(weights, da.Array) or weights.numblocks[0] != x.numblocks[0]:
        raise ModelError(
            "the sizes of the chunks of the samples are unknown, so weights must be a dask array in the same chunks: "
            "call compute_chunk_sizes() on the samples first"
        )
    return Chunks(x, weights), x.chunks[0]
