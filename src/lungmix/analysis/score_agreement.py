"""Agreement of the reader's scores with scores computed from the lung involvement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from lungmix.analysis.patient_bootstrap import Estimate, Statistic, check_draws, estimate, estimate_coefficient
from lungmix.analysis.sample_size import NextStudy, check_half_width, for_auc, for_correlation, for_error
from lungmix.errors import UsageError
from lungmix.kernels.kappa import WEIGHTS, kappa_with_error, weighted_kappa
from lungmix.kernels.severity import HIGHEST, LIMITS, LOWEST, interval_middles, severity_scores

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SEVERE = 3
"""Lowest score of severe disease, which the ROC and precision-recall curves are about."""

SCORES = range(LOWEST, HIGHEST + 1)
_N = HIGHEST - LOWEST + 1
_LIMIT_SDS = 1.96


@dataclass(frozen=True)
class Settings:
    """Numbers that a comparison depends on.

    Attributes
    ----------
    detection_limit : float
        Largest lung involvement with the computed score 0, percent.
    level : float
        Level of the intervals, percent.
    draws : int
        Number of cohorts of patients that are drawn for the intervals; 0 for no intervals.
    seed : int
        Seed of the draws.
    half_width : float
        Half width of the intervals of the next study.
    """

    detection_limit: float = 0.0
    level: float = 95.0
    draws: int = 2000
    seed: int = 0
    half_width: float = 0.1

    def check(self) -> None:
        """Raise a `UsageError` if a number is out of range."""
        if not LIMITS[0] <= self.detection_limit < LIMITS[1]:
            raise UsageError(
                f"a detection limit of {self.detection_limit:g} % is not possible: give a number from 0 to below "
                f"{LIMITS[1]:g} %, because the score 1 ends there"
            )
        check_half_width(self.half_width)
        if self.draws:
            check_draws(self.draws, self.level)


@dataclass(frozen=True)
class Differences:
    """Differences of the lung involvement from the middle of the interval of the reader's score, as Bland and Altman.

    Attributes
    ----------
    mean : Estimate
        Mean difference, percentage points.
    lower, upper : Estimate
        Limits of agreement: 1.96 standard deviations from the mean.
    sd : float
        Standard deviation of the differences.
    by_score : list of dict
        One row per score: ``score``, ``middle`` (percent), ``scans`` and ``mean`` (mean difference).
    """

    mean: Estimate
    lower: Estimate
    upper: Estimate
    sd: float
    by_score: list[dict[str, Any]]


@dataclass(frozen=True)
class Discrimination:
    """Discrimination of severe scans, whose score is `SEVERE` or more, from others by their lung involvement.

    Attributes
    ----------
    lowest_score : int
        Lowest score of severe scans.
    severe, others : int
        Numbers of scans.
    auc : Estimate
        Area under the ROC curve.
    average_precision : Estimate
        Average precision; that of a random order is the fraction of severe scans.
    roc : dict of str to list of float
        ``false_positive_rate`` and ``true_positive_rate``, and ``lung_involvement``, from which on scans are positive;
        infinite for the first point, where no scan is positive.
    precision_recall : dict of str to list of float
        ``recall`` and ``precision``.
    """

    lowest_score: int
    severe: int
    others: int
    auc: Estimate
    average_precision: Estimate
    roc: dict[str, list[float]]
    precision_recall: dict[str, list[float]]


@dataclass(frozen=True)
class ScoreAgreement:
    """Agreement of the reader's scores with computed scores.

    Attributes
    ----------
    scans, patients : int
        Number of scans, and of their patients.
    settings : Settings
        Numbers that the results depend on.
    confusion : list of list of int
        Number of scans by the reader's score (rows) and the computed score (columns), from 0 to 5.
    equal, within_one : float
        Percentage of scans whose scores are equal, and of those whose scores differ by at most 1.
    kappa : dict of str to Estimate
        Cohen's weighted kappa by its weights, ``quadratic`` and ``linear``.
    differences : Differences
        Differences of the lung involvement from the middle of the interval of the reader's score.
    discrimination : Discrimination or None
        Discrimination of severe scans; None if all scans or none of them are severe.
    next_study : NextStudy
        Numbers of patients for intervals of a wanted width.
    """

    scans: int
    patients: int
    settings: Settings
    confusion: list[list[int]]
    equal: float
    within_one: float
    kappa: dict[str, Estimate]
    differences: Differences
    discrimination: Discrimination | None
    next_study: NextStudy


def compare_scores(rows: Sequence[Mapping[str, Any]], settings: Settings | None = None) -> ScoreAgreement:
    """Compare the reader's scores with scores computed from the lung involvement.

    Parameters
    ----------
    rows : sequence of mapping
        One row per scan, with ``patient``, ``score`` and ``lung_involvement``. Rows whose lung involvement is NaN,
        because the mask is empty, are left out.
    settings : Settings, optional
        Detection limit, and numbers of the intervals.

    Raises
    ------
    UsageError
        If a number or a score is out of range, or no scan has a lung involvement.
    """
    settings = settings or Settings()
    settings.check()
    rows = [row for row in rows if np.isfinite(float(row["lung_involvement"]))]
    if not rows:
        raise UsageError("no scan with a score has a lung involvement: their masks are empty")
    given = np.array([int(row["score"]) for row in rows], np.int64)
    if given.min() < LOWEST or given.max() > HIGHEST:
        raise UsageError(f"scores are whole numbers from {LOWEST} to {HIGHEST}: correct those outside")
    involvement = np.array([float(row["lung_involvement"]) for row in rows])
    names, patient = np.unique([str(row["patient"]) for row in rows], return_inverse=True)
    computed = severity_scores(involvement, settings.detection_limit)
    confusion = confusion_table(given, computed)
    estimated = estimator(len(names), settings)
    kappa = kappas(given, computed, patient, settings)
    discrimination = _discrimination(given, involvement, patient, estimated)
    auc = float("nan") if discrimination is None else discrimination.auc.value
    c = float(np.corrcoef(involvement, given)[0, 1]) if np.ptp(involvement) and np.ptp(given) else float("nan")
    errors = {weights: kappa[weights].error for weights in WEIGHTS}
    width = {"half_width": settings.half_width, "level": settings.level}
    return ScoreAgreement(
        scans=len(rows),
        patients=len(names),
        settings=settings,
        confusion=confusion.tolist(),
        equal=100 * float(np.mean(given == computed)),
        within_one=100 * float(np.mean(np.abs(given - computed) <= 1)),
        kappa=kappa,
        differences=_differences(given, involvement, patient, estimated),
        discrimination=discrimination,
        next_study=NextStudy(
            **width,
            kappa_quadratic=for_error(len(names), errors["quadratic"], **width),
            kappa_linear=for_error(len(names), errors["linear"], **width),
            correlation=for_correlation(c, **width),
            auc=for_auc(auc, float(np.mean(given >= SEVERE)), **width),
        ),
    )


def confusion_table(first: Ints, second: Ints) -> Ints:
    """Return the number of scans by the scores of two readers, shape (6, 6)."""
    return np.bincount(_N * first + second, minlength=_N * _N).reshape(_N, _N)


def estimator(patients: int, settings: Settings) -> Callable[[Statistic], Estimate]:
    """Return the function that estimates a statistic, with an interval if the settings have draws of patients."""
    if settings.draws:
        return partial(estimate, patients=patients, draws=settings.draws, level=settings.level, seed=settings.seed)
    nan = float("nan")
    return lambda statistic: Estimate(float(statistic(np.ones((1, patients)))[0]), nan, nan, nan)


def kappas(first: Ints, second: Ints, patient: npt.NDArray[np.intp], settings: Settings) -> dict[str, Estimate]:
    """Return the weighted kappa of two readers, by its weights.

    Parameters
    ----------
    first, second : ndarray of int64, shape (n,)
        Scores of each scan.
    patient : ndarray of int, shape (n,)
        Index of the patient of each scan, counted from 0.
    settings : Settings
        Numbers of the intervals.
    """
    patients = int(patient.max()) + 1
    tables = np.zeros((patients, _N, _N))
    np.add.at(tables, (patient, first, second), 1)
    nan = float("nan")
    out = {}
    for kind in WEIGHTS:
        if settings.draws:
            out[kind] = estimate_coefficient(
                partial(_kappa, tables, kind), patients, draws=settings.draws, level=settings.level, seed=settings.seed
            )
        else:
            out[kind] = Estimate(float(weighted_kappa(tables.sum(axis=0), kind)), nan, nan, nan)
    return out


def _kappa(tables: Floats, kind: str, weights: Floats) -> tuple[Floats, Floats]:
    return kappa_with_error(tables, weights, kind)


def _differences(
    given: Ints, involvement: Floats, patient: npt.NDArray[np.intp], estimated: Callable[[Statistic], Estimate]
) -> Differences:
    difference = involvement - interval_middles(given)

    def moments(weights: Floats, limit: int) -> Floats:
        """Return the mean, or the limit of agreement below or above it."""
        scans = weights[:, patient]
        n = scans.sum(axis=1)
        mean = scans @ difference / n
        variance = (scans * (difference - mean[:, None]) ** 2).sum(axis=1) / np.where(n > 1, n - 1, np.nan)
        return mean + limit * _LIMIT_SDS * np.sqrt(variance) if limit else mean

    rows = [
        {
            "score": score,
            "middle": float(interval_middles([score])[0]),
            "scans": int(np.sum(given == score)),
            "mean": float(difference[given == score].mean()) if np.any(given == score) else float("nan"),
        }
        for score in SCORES
    ]
    mean, lower, upper = (estimated(partial(moments, limit=limit)) for limit in (0, -1, 1))
    sd = float(np.std(difference, ddof=1)) if len(difference) > 1 else float("nan")
    return Differences(mean, lower, upper, sd, rows)


def _discrimination(
    given: Ints, involvement: Floats, patient: npt.NDArray[np.intp], estimated: Callable[[Statistic], Estimate]
) -> Discrimination | None:
    severe = given >= SEVERE
    if severe.all() or not severe.any():
        return None
    order = np.argsort(-involvement, kind="stable")
    last_of_value = np.append(np.diff(involvement[order]) != 0, True)

    def counts(weights: Floats) -> tuple[Floats, Floats]:
        """Return the weights of severe and of other scans above each lung involvement, from the highest on."""
        scans = weights[:, patient[order]]
        above = (np.cumsum(scans * which, axis=1)[:, last_of_value] for which in (severe[order], ~severe[order]))
        positive, negative = (np.pad(values, ((0, 0), (1, 0))) for values in above)
        return positive, negative

    def area(weights: Floats) -> Floats:
        positive, negative = counts(weights)
        with np.errstate(invalid="ignore"):
            return np.trapezoid(positive, negative, axis=1) / (positive[:, -1] * negative[:, -1])

    def precision(weights: Floats) -> Floats:
        positive, negative = counts(weights)
        total = (positive + negative)[:, 1:]
        ratio = np.divide(positive[:, 1:], total, out=np.zeros_like(total), where=total > 0)
        with np.errstate(invalid="ignore"):
            return (ratio * np.diff(positive, axis=1)).sum(axis=1) / positive[:, -1]

    false_rate, true_rate, thresholds = metrics.roc_curve(severe, involvement)
    precisions, recalls, _ = metrics.precision_recall_curve(severe, involvement)
    return Discrimination(
        lowest_score=SEVERE,
        severe=int(severe.sum()),
        others=int((~severe).sum()),
        auc=estimated(area),
        average_precision=estimated(precision),
        roc={
            "false_positive_rate": false_rate.tolist(),
            "true_positive_rate": true_rate.tolist(),
            "lung_involvement": thresholds.tolist(),
        },
        precision_recall={"recall": recalls.tolist(), "precision": precisions.tolist()},
    )
