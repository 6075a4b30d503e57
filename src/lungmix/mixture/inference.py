"""Components, probabilities and likelihoods of samples under a fitted mixture, and random samples of it.

Results for numpy arrays are numpy arrays; results for dask arrays are lazy dask arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from lungmix.mixture.checks import all_weights_zero, check_finite, check_weights
from lungmix.mixture.em_kernels import ROWS_AT_ONCE, e_step_statistics
from lungmix.mixture.parameters import Floats, State, e_step, log_densities
from lungmix.mixture.sources import Source

Kernel = Callable[[Floats, State, str], npt.NDArray[Any]]


def most_probable(x: Floats, state: State, covariance_type: str) -> npt.NDArray[np.int64]:
    """Return the most probable component of each sample; of equally probable components, the first."""
    return np.argmax(log_densities(x, state, covariance_type), axis=1).astype(np.int64)


def responsibilities(x: Floats, state: State, covariance_type: str) -> Floats:
    """Return the probability of each component for each sample, shape (n, k)."""
    return np.asarray(np.exp(e_step(x, state, covariance_type)[1]))


def log_likelihoods(x: Floats, state: State, covariance_type: str) -> Floats:
    """Return the log-likelihood of each sample."""
    return e_step(x, state, covariance_type)[0]


def apply(x: Any, kernel: Kernel, state: State, covariance_type: str, columns: int | None, dtype: np.dtype[Any]) -> Any:
    """Return the result of a kernel for all rows; at most `ROWS_AT_ONCE` rows are float64 at a time.

    Parameters
    ----------
    x : numpy or dask array, shape (n, d)
        Samples; a dask array must have one chunk along the features.
    kernel : callable
        `most_probable`, `responsibilities` or `log_likelihoods`.
    state, covariance_type
        Parameters of the mixture.
    columns : int or None
        Number of columns of the result; None if the result has one dimension.
    dtype : dtype
        Type of the result.
    """
    on_rows = partial(_on_rows, kernel=kernel, state=state, covariance_type=covariance_type, columns=columns)
    if not isinstance(x, da.Array):
        check_finite(x, None, 0)
        return on_rows(x, dtype=dtype)
    on_chunk = partial(_on_chunk, on_rows=on_rows, result=dtype)
    if columns is None:
        return x.map_blocks(on_chunk, dtype=dtype, drop_axis=1, meta=np.empty(0, dtype))
    return x.map_blocks(on_chunk, dtype=dtype, chunks=(x.chunks[0], (columns,)), meta=np.empty((0, 0), dtype))


def _on_chunk(x: npt.NDArray[Any], on_rows: Callable[..., Any], result: np.dtype[Any], block_info: Any = None) -> Any:
    first_row, block = None, 0
    if block_info:
        (start, stop), block = block_info[0]["array-location"][0], block_info[0]["chunk-location"][0]
        first_row = None if np.isnan(start) or np.isnan(stop) else int(start)
    check_finite(x, None, first_row, block)
    return on_rows(x, dtype=result)


def _on_rows(
    x: npt.NDArray[Any],
    kernel: Kernel,
    state: State,
    covariance_type: str,
    columns: int | None,
    dtype: np.dtype[Any],
) -> npt.NDArray[Any]:
    out: npt.NDArray[Any] = np.empty(len(x) if columns is None else (len(x), columns), dtype)
    for start in range(0, len(x), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        out[rows] = kernel(np.asarray(x[rows], np.float64), state, covariance_type)
    return out


def total_log_likelihood(
    source: Source, sizes: Sequence[float], state: State, covariance_type: str
) -> tuple[float, float]:
    """Return the sum of the log-likelihoods of all samples, and the sum of their weights, in one pass."""
    firsts = np.concatenate([[0.0], np.cumsum(sizes)])[:-1]
    task = partial(_sum, state=state, covariance_type=covariance_type)
    parts = source.each(task, [None if np.isnan(first) else int(first) for first in firsts])
    weight = math.fsum(part[1] for part in parts)
    if weight <= 0:
        raise all_weights_zero()
    return math.fsum(part[0] for part in parts), weight


def _sum(
    x: Any, weights: Any, index: int, first_row: int | None, state: State, covariance_type: str
) -> tuple[float, float]:
    if weights is not None:
        weights = check_weights(weights, len(x))
    check_finite(x, weights, first_row, index)
    statistics = e_step_statistics(x, weights, [state], covariance_type)
    return float(statistics.log_likelihood[0]), statistics.weight


def draw(
    state: State, covariance_type: str, n_samples: int, random_state: np.random.RandomState
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return random samples of a mixture, ordered by component, and the component of each."""
    k, d = state.means.shape
    counts = random_state.multinomial(n_samples, state.weights / state.weights.sum())
    labels = np.repeat(np.arange(k), counts)
    noise = random_state.standard_normal((n_samples, d))
    if covariance_type in ("full", "tied"):
        lower = np.broadcast_to(np.linalg.cholesky(state.covariances), (k, d, d))
        offsets = np.concatenate([noise[labels == c] @ lower[c].T for c in range(k)])
    else:
        offsets = noise * np.broadcast_to(np.sqrt(state.covariances).reshape(k, -1), (k, d))[labels]
    return state.means[labels] + offsets, labels
