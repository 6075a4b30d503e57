"""Validation of samples and sample weights; errors name the first invalid row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import ModelError


def check_finite(
    x: npt.NDArray[Any], weights: npt.NDArray[Any] | None, first_row: int | None, block: int | None = None
) -> None:
    """Reject masked values, NaN and infinity in rows of positive weight.

    Parameters
    ----------
    x : ndarray, shape (n,) or (n, d)
        Samples; rows of weight 0 may hold anything.
    weights : ndarray, shape (n,), or None
        Sample weights.
    first_row : int or None
        Index of row 0 of `x` among all samples; None if it is unknown, because the sizes of chunks are.
    block : int or None
        Number of the chunk, which messages name if `first_row` is None.

    Raises
    ------
    ModelError
        If a value is invalid; the message names its row and column.
    """
    check_masked(x, weights, first_row, block)
    if x.dtype.kind != "f" or not len(x):
        return
    x = np.ma.getdata(x)
    # A finite sum proves that all terms are finite; search for the row only if it is not.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(x)):
            return
    for start in range(0, len(x), 1 << 16):
        rows = x[start : start + (1 << 16)].reshape(-1, 1 if x.ndim == 1 else x.shape[1])
        bad = ~np.isfinite(rows)
        if weights is not None:
            bad &= (np.asarray(weights[start : start + (1 << 16)]) > 0)[:, None]
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise ModelError(
                f"samples hold {rows[row, column]} at {_row(start + row, first_row, block)}, column {column}: remove "
                "rows with NaN or inf first, or give them the weight 0"
            )


def check_masked(
    x: npt.NDArray[Any], weights: npt.NDArray[Any] | None, first_row: int | None, block: int | None = None
) -> None:
    """Reject masked values in rows of positive weight; see `check_finite`."""
    if not np.ma.is_masked(x):
        return
    bad = np.ma.getmaskarray(x).reshape(len(x), -1)
    if weights is not None:
        bad = bad & (np.asarray(weights) > 0)[:, None]
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise ModelError(
            f"samples are masked at {_row(row, first_row, block)}, column {column}: remove rows with masked values "
            "first, or give them the weight 0"
        )


def _row(row: int, first_row: int | None, block: int | None) -> str:
    if first_row is not None:
        return f"row {first_row + row}"
    return f"row {row} of a chunk" if block is None else f"row {row} of chunk {block}"


def check_weights(weights: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Return sample weights unchanged after checking them; `n` is the number of samples.

    Raises
    ------
    ModelError
        If there are not `n` weights, or some are masked, negative, NaN or infinite.
    """
    if np.ma.is_masked(weights):
        row = int(np.argmax(np.ma.getmaskarray(weights)))
        raise ModelError(f"sample_weight is masked at row {row}: give a weight of 0 or more to each sample")
    weights = np.asarray(weights)
    if weights.shape != (n,):
        raise ModelError(f"sample_weight has the shape {weights.shape}, not ({n},): give one weight per sample")
    if weights.dtype.kind not in "fiub":
        raise ModelError(f"sample_weight has the type {weights.dtype}: give real numbers")
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(
            f"sample_weight holds {weights[row]} at row {row}: negative, NaN or infinite weights are not "
            "possible, give 0 or more"
        )
    return weights


def all_weights_zero() -> ModelError:
    """Return the error for samples of which none has a weight above 0."""
    return ModelError("all sample weights are zero, or there are no samples: nothing can be fitted")
