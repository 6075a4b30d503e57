"""Severity scores from 0 to 5 by the percentage of the lungs that is involved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0, 5
"""Lowest and highest score S.

0 means no involvement of the lungs, 1 less than 5 %, 2 from 5 to 25 %, 3 up to 50 %, 4 up to 75 %, 5 more.
"""

LIMITS = (0.0, 5.0, 25.0, 50.0, 75.0, 100.0)
"""Lung involvement at the upper ends of the intervals of the scores, percent."""


def severity_scores(involvement: Sequence[float] | Floats, detection_limit: float = 0.0) -> npt.NDArray[np.int64]:
    """Return the score S whose interval contains each lung involvement.

    The publication names the intervals 0, < 5, 5-25, 26-50, 51-75 and > 75 %. Between 25 and 26, 50 and 51 %, each
    interval extends from the upper limit of the one before it, which belongs to the lower score: 25 % has the score 2,
    25.01 % the score 3. 5 % has the score 2, because the interval of 1 is below 5 %.

    Parameters
    ----------
    involvement : array-like of float
        Lung involvement, percent.
    detection_limit : float
        Largest lung involvement with the score 0, percent; at least 0 and below 5.

    Returns
    -------
    ndarray of int64
        Scores from 0 to 5, in the shape of `involvement`; -1 where it is NaN.
    """
    _check_limit(detection_limit)
    values = np.asarray(involvement, np.float64)
    scores = np.searchsorted(LIMITS[1:-1], values, side="left") + 1
    # 5 % itself is not below 5 %.
    scores = np.where(values == LIMITS[1], 2, scores)
    scores = np.where(values <= detection_limit, LOWEST, scores)
    return np.where(np.isnan(values), -1, scores).astype(np.int64)


def interval_middles(scores: Sequence[int] | npt.NDArray[np.int64]) -> Floats:
    """Return the middle of the interval of each score, percent: 0, 2.5, 15, 37.5, 62.5 and 87.5 for 0 to 5."""
    middles = np.concatenate([[0.0], (np.array(LIMITS[:-1]) + np.array(LIMITS[1:])) / 2])
    return middles[np.asarray(scores, np.int64)]


ZONE_LIMITS = (25.0, 50.0, 75.0)
"""Involvement of a lung zone at which the scores 2, 3 and 4 begin, percent."""

HIGHEST_OF_ZONE = len(ZONE_LIMITS) + 1
"""Highest score of a lung zone, of which the 24-point score adds up six."""


def zone_scores(involvement: Sequence[float] | Floats, detection_limit: float = 0.0) -> npt.NDArray[np.int64]:
    """Return the score from 0 to 4 of lung zones: 0 %, below 25 %, from 25 %, from 50 %, and from 75 % on.

    Parameters
    ----------
    involvement : array-like of float
        Involvement of each zone, percent.
    detection_limit : float
        Largest involvement with the score 0, percent; at least 0 and below 5.

    Returns
    -------
    ndarray of int64
        Scores in the shape of `involvement`; -1 where it is NaN.
    """
    _check_limit(detection_limit)
    values = np.asarray(involvement, np.float64)
    scores = np.searchsorted(ZONE_LIMITS, values, side="right") + 1
    scores = np.where(values <= detection_limit, LOWEST, scores)
    return np.where(np.isnan(values), -1, scores).astype(np.int64)


def total_scores(scores: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the sum of scores along the last axis; -1 where one of them is -1, or where there are none."""
    is_missing = (scores < 0).any(axis=-1) | (scores.shape[-1] == 0)
    return np.where(is_missing, -1, scores.sum(axis=-1)).astype(np.int64)


def _check_limit(detection_limit: float) -> None:
    if not LIMITS[0] <= detection_limit < LIMITS[1]:
        raise ValueError(f"a detection limit of {detection_limit} % is not from 0 to below 5 %")
