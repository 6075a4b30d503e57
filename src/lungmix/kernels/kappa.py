"""Cohen's weighted kappa of tables of counts, for many tables at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WEIGHTS = {"quadratic": 2, "linear": 1}
"""Power of the difference of two scores by which a disagreement counts."""


def weighted_kappa(tables: npt.ArrayLike, weights: str = "quadratic") -> npt.NDArray[np.float64]:
    """Return Cohen's weighted kappa of each table of counts.

    Parameters
    ----------
    tables : array-like, shape (..., k, k)
        Counts of scans by the score of one reader (rows) and of another (columns).
    weights : {"quadratic", "linear"}
        Weight of a disagreement: the difference of the scores, or its square.

    Returns
    -------
    ndarray of float64, shape (...)
        1 for equal scores, 0 for agreement as by chance; NaN if both readers gave one and the same score to all scans,
        or there are none.
    """
    counts = np.asarray(tables, np.float64)
    scores = np.arange(counts.shape[-1])
    disagreement = np.abs(scores[:, None] - scores[None, :]).astype(np.float64) ** WEIGHTS[weights]
    observed = (counts * disagreement).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    expected = np.einsum("...i,ij,...j->...", rows, disagreement, columns)
    out = np.full(expected.shape, np.nan)
    np.divide(observed, expected, out=out, where=expected > 0)
    return 1 - out
