"""Cohen's weighted kappa of tables of counts and its standard error, for many tables at a time."""

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
    disagreement = _disagreement(counts.shape[-1], weights)
    observed = (counts * disagreement).sum(axis=(-2, -1)) * counts.sum(axis=(-2, -1))
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    expected = np.einsum("...i,ij,...j->...", rows, disagreement, columns)
    out = np.full(expected.shape, np.nan)
    np.divide(observed, expected, out=out, where=expected > 0)
    return 1 - out


def kappa_with_error(
    tables: npt.ArrayLike, counts: npt.ArrayLike, weights: str = "quadratic"
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return Cohen's weighted kappa of patients, and its standard error by the influence of each patient.

    For one scan per patient, the error is the asymptotic one of Fleiss, Cohen and Everitt (1969), multiplied by the
    root of n / (n - 1).

    Parameters
    ----------
    tables : array-like, shape (n, k, k)
        Counts of the scans of each patient by the scores of two readers.
    counts : array-like, shape (m, n)
        How often each patient counts, in m cohorts.
    weights : {"quadratic", "linear"}
        Weight of a disagreement, see `weighted_kappa`.

    Returns
    -------
    kappa, error : ndarray of float64, shape (m,)
        NaN where kappa is undefined.
    """
    of_patients, times = np.asarray(tables, np.float64), np.asarray(counts, np.float64)
    disagreement = _disagreement(of_patients.shape[-1], weights)
    rows, columns = of_patients.sum(axis=2), of_patients.sum(axis=1)
    observed, scans = (of_patients * disagreement).sum(axis=(1, 2)), rows.sum(axis=1)
    all_rows, all_columns, all_observed, all_scans = (times @ values for values in (rows, columns, observed, scans))
    expected = np.einsum("mi,ij,mj->m", all_rows, disagreement, all_columns)
    expected = np.where(expected > 0, expected, np.nan)[:, None]
    product = (all_observed * all_scans)[:, None]
    # Derivatives by the number of times that a patient counts.
    of_product = all_scans[:, None] * observed + all_observed[:, None] * scans
    of_expected = all_columns @ disagreement @ rows.T + all_rows @ disagreement @ columns.T
    influence = of_product / expected - product / expected**2 * of_expected
    n = times.sum(axis=1)
    variance = (times * influence**2).sum(axis=1) * n / np.where(n > 1, n - 1, np.nan)
    return 1 - (product / expected)[:, 0], np.sqrt(variance)


def _disagreement(n_scores: int, weights: str) -> npt.NDArray[np.float64]:
    scores = np.arange(n_scores)
    return np.abs(scores[:, None] - scores[None, :]).astype(np.float64) ** WEIGHTS[weights]
