"""Number of patients of the next study, for intervals of a wanted width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import atanh, ceil, isfinite, sqrt, tanh

from scipy import stats

from lungmix.errors import UsageError

_LARGEST = 10_000_000
"""Number of patients above which no number is given."""


@dataclass(frozen=True)
class NextStudy:
    """Numbers of patients for which intervals are as narrow as wanted; None where no number can be computed.

    Attributes
    ----------
    half_width : float
        Wanted half width of the intervals.
    level : float
        Level of the intervals, percent.
    kappa_quadratic, kappa_linear : int or None
        For the weighted kappa, with as many scans per patient as in this study.
    correlation : int or None
        For Pearson's correlation, with one scan per patient.
    auc : int or None
        For the area under the ROC curve, with one scan per patient and the same fraction of severe scans.
    """

    half_width: float
    level: float
    kappa_quadratic: int | None
    kappa_linear: int | None
    correlation: int | None
    auc: int | None


def check_half_width(half_width: float) -> None:
    """Raise a `UsageError` if intervals cannot have this half width."""
    if not 0 < half_width < 1:
        raise UsageError(f"a half width of {half_width:g} is not possible: give a number between 0 and 1, such as 0.1")


def for_error(patients: int, error: float, half_width: float, level: float = 95.0) -> int | None:
    """Return the number of patients for a statistic whose standard error decreases with the square root of patients.

    Parameters
    ----------
    patients : int
        Number of patients of the study at hand.
    error : float
        Standard error in this study, such as that of a bootstrap over patients.
    half_width : float
        Wanted half width of the interval.
    level : float
        Level of the interval, percent.
    """
    if not (isfinite(error) and error > 0):
        return None
    return max(ceil(patients * (_z(level) * error / half_width) ** 2), 2)


def for_correlation(c: float, half_width: float, level: float = 95.0) -> int | None:
    """Return the number of pairs for which the interval of Pearson's correlation by Fisher's z is as narrow as wanted.

    The interval is not symmetric; half its width counts.
    """
    if not (isfinite(c) and abs(c) < 1):
        return None

    def half(n: int) -> float:
        step = _z(level) / sqrt(n - 3)
        return (tanh(atanh(c) + step) - tanh(atanh(c) - step)) / 2

    return _smallest(half, half_width, 4)


def for_auc(auc: float, prevalence: float, half_width: float, level: float = 95.0) -> int | None:
    """Return the number of scans for which the interval of the area under the ROC curve is as narrow as wanted.

    The standard error is that of Hanley and McNeil (1982).

    Parameters
    ----------
    auc : float
        Expected area, above 0 and below 1.
    prevalence : float
        Fraction of positive scans, above 0 and below 1.
    half_width : float
        Wanted half width of the interval.
    level : float
        Level of the interval, percent.
    """
    if not (isfinite(auc) and 0 < auc < 1 and 0 < prevalence < 1):
        return None

    def half(n: int) -> float:
        return _z(level) * hanley_mcneil(auc, n * prevalence, n * (1 - prevalence))

    return _smallest(half, half_width, ceil(max(1 / prevalence, 1 / (1 - prevalence))))


def hanley_mcneil(auc: float, positives: float, negatives: float) -> float:
    """Return the standard error of the area under the ROC curve by Hanley and McNeil (1982)."""
    two_positives, two_negatives = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (two_positives - auc**2) + (negatives - 1) * (two_negatives - auc**2)
    return sqrt(variance / (positives * negatives))


def _z(level: float) -> float:
    return float(stats.norm.ppf(0.5 + level / 200))


def _smallest(half: Callable[[int], float], wanted_half_width: float, first: int) -> int | None:
    """Return the smallest number, from `first` on, for which a decreasing function is not above a value."""
    low, high = first - 1, first
    while half(high) > wanted_half_width:
        low, high = high, 2 * high
        if high > _LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if half(middle) > wanted_half_width else (low, middle)
    return high
