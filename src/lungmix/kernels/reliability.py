"""Intraclass correlation of complete tables of ratings, by the mean squares of a two-way analysis of variance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def intraclass_correlations(ratings: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return ICC(A,1) and ICC(A,k) of McGraw and Wong (1996) for many weightings of the rows.

    Parameters
    ----------
    ratings : ndarray of float64, shape (n, k)
        Ratings of n scans by k readers.
    weights : ndarray of float64, shape (m, n)
        How often each scan counts, in m weightings.

    Returns
    -------
    single, average : ndarray of float64, shape (m,)
        Absolute agreement of the rating of one reader, and of the mean of k readers; NaN where it is undefined.
    """
    k = ratings.shape[1]
    n = weights.sum(axis=1)
    means = ratings.mean(axis=1)
    with np.errstate(all="ignore"):
        total_mean = weights @ means / n
        reader_means = weights @ ratings / n[:, None]
        rows = k * (weights @ means**2 - n * total_mean**2)
        columns = n * ((reader_means - total_mean[:, None]) ** 2).sum(axis=1)
        total = weights @ (ratings**2).sum(axis=1) - k * n * total_mean**2
        # Rounding must not make a sum of squares negative.
        rest = np.where(total - rows - columns > 1e-9 * total, total - rows - columns, 0.0)
        row_square, column_square = rows / (n - 1), columns / (k - 1)
        rest_square = rest / ((n - 1) * (k - 1))
        between = (column_square - rest_square) / n
        single = (row_square - rest_square) / (row_square + (k - 1) * rest_square + k * between)
        average = (row_square - rest_square) / (row_square + between)
    return single, average
