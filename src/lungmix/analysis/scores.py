"""Correlation of a radiologist's score with the lung involvement: section 3 of Zaffino et al. 2021."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from lungmix.analysis.consensus import MEDIAN, Reading
from lungmix.analysis.readers import ReaderAgreement, compare_readers
from lungmix.analysis.score_agreement import ScoreAgreement, Settings, compare_scores
from lungmix.errors import UsageError
from lungmix.kernels.severity import HIGHEST, LOWEST, severity_scores

Floats = npt.NDArray[np.float64]

DRAWS = ("proportional", "equal")
"""How many scans are drawn from the group of each score: a fraction of the group, or the same number for all groups."""


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation with its p value and confidence interval.

    Attributes
    ----------
    n : int
        Number of pairs.
    c : float
        Coefficient; NaN if one variable is constant.
    p : float
        Two-sided p value.
    low, high : float
        Confidence interval by Fisher's z; NaN for fewer than 4 pairs.
    level : float
        Level of the interval, percent.
    """

    n: int
    c: float
    p: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Line:
    """Least-squares line ``score = intercept + slope * involvement`` and its coefficient of determination."""

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True)
class Resampling:
    """Regressions of repeated random draws of scans; the scans with equal score form a group.

    Attributes
    ----------
    draw : {"proportional", "equal"}
        Rule for the number of scans drawn from each group; see `DRAWS`.
    times, scans : int
        Number of draws, and number of scans per draw.
    r2_mean, r2_sd : float
        Mean and standard deviation, over draws, of R² of the line through the drawn scans.
    c_mean, c_sd : float
        Mean and standard deviation, over draws, of the correlation of the drawn scans.
    r2_rest_mean : float
        Mean, over draws, of R² of the same line for the scans that were not drawn; NaN for fewer than two such scans.
    """

    draw: str
    times: int
    scans: int
    r2_mean: float
    r2_sd: float
    c_mean: float
    c_sd: float
    r2_rest_mean: float


@dataclass(frozen=True)
class ByOthers:
    """Correlation of scores with the lung involvement of each patient under the mixture of all other patients.

    Attributes
    ----------
    all : Correlation
        Correlation over all scans.
    first : Correlation or None
        Correlation over the first scan of each patient; None if no patient has several scans.
    line : Line
        Regression line through all scans.
    largest_shift : float
        Largest difference, in percentage points, from the lung involvement under the mixture of all patients.
    agreement : ScoreAgreement
        Agreement of the scores with those computed from the lung involvement under the mixture of other patients.
    """

    all: Correlation
    first: Correlation | None
    line: Line
    largest_shift: float
    agreement: ScoreAgreement


@dataclass(frozen=True)
class ScoreStudy:
    """Correlation of scores with the lung involvement in a cohort.

    Attributes
    ----------
    rows : list of dict
        One row per scan: ``case``, ``patient``, ``score``, ``lung_involvement``, ``computed_score``, and other columns
        of the score table.
    patients : int
        Number of patients.
    groups : list of dict
        One row per score: ``score``, ``scans`` (number of scans), and ``minimum``, ``lower`` (first quartile),
        ``median``, ``upper`` (third quartile) and ``maximum`` of the lung involvement in percent.
    all : Correlation
        Correlation over all scans.
    first : Correlation or None
        Correlation over the first scan of each patient, because scans of one patient are not independent; None if no
        patient has several scans.
    line : Line
        Regression line through all scans.
    resamplings : list of Resampling
        One result for each rule in `DRAWS`.
    unscored, unmeasured : list of str
        Measured cases without a score, and scores without a measured case.
    agreement : ScoreAgreement
        Agreement of the scores with those computed from the lung involvement.
    readers : ReaderAgreement, optional
        Agreement of several readers. Then the score of a scan is their consensus.
    by_others : ByOthers, optional
        The same with lung involvement by the mixture of all other patients.
    """

    rows: list[dict[str, Any]]
    patients: int
    groups: list[dict[str, Any]]
    all: Correlation
    first: Correlation | None
    line: Line
    resamplings: list[Resampling]
    unscored: list[str]
    unmeasured: list[str]
    agreement: ScoreAgreement
    readers: ReaderAgreement | None = None
    by_others: ByOthers | None = None


def pearson(x: Sequence[float] | Floats, y: Sequence[float] | Floats, level: float = 95.0) -> Correlation:
    """Return Pearson's correlation with its p value and confidence interval.

    Parameters
    ----------
    x, y : sequence of float
        The two variables, of equal length.
    level : float
        Level of the interval, percent.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, nan = len(x), float("nan")
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(n, nan, nan, nan, nan, level)
    with warnings.catch_warnings(action="ignore", category=stats.NearConstantInputWarning):
        result = stats.pearsonr(x, y)
    c = float(result.statistic)
    # Three pairs of values have no interval unless they are on a line, where it has no width.
    low, high = result.confidence_interval(level / 100) if n > 3 else (c, c) if abs(c) == 1 else (nan, nan)
    return Correlation(n, c, float(result.pvalue), float(low), float(high), level)


def _coefficient(x: Floats, y: Floats) -> float:
    """Return Pearson's coefficient; for two pairs of values, which are always on a line, 1 or -1."""
    if len(x) == 2 and np.ptp(x) and np.ptp(y):
        return float(np.sign((x[1] - x[0]) * (y[1] - y[0])))
    return pearson(x, y).c


def line_through(x: Floats, y: Floats) -> Line:
    """Return the least-squares line of y on x."""
    if np.ptp(x) == 0:
        return Line(0.0, float(y.mean()), 0.0)
    fit = stats.linregress(x, y)
    return Line(float(fit.slope), float(fit.intercept), float(fit.rvalue**2))


def resample(
    involvement: Floats,
    scores: npt.NDArray[np.int64],
    *,
    draw: str = "proportional",
    resamplings: int = 100,
    fraction: float = 0.8,
    seed: int = 0,
) -> Resampling:
    """Regress score on lung involvement for repeated random draws of scans.

    The scans with equal score form a group; each draw takes scans of every group, without replacement.

    Parameters
    ----------
    involvement : ndarray of float64, shape (n,)
        Lung involvement, percent.
    scores : ndarray of int64, shape (n,)
        Score of each scan.
    draw : {"proportional", "equal"}
        ``proportional`` draws ``fraction`` of each group, at least one scan. ``equal`` draws the same number of scans
        from each group, so that frequent scores do not dominate: ``fraction`` of the smallest group with two or more
        scans.
    resamplings : int
        Number of draws.
    fraction : float
        Fraction of a group, above 0 and up to 1.
    seed : int
        Seed of the draws.

    Raises
    ------
    UsageError
        If a number is out of range.
    """
    if draw not in DRAWS or resamplings < 2 or not 0 < fraction <= 1:
        raise UsageError(
            f"{resamplings} {draw} draws of a fraction of {fraction} are not possible: give 2 or more draws, and a "
            "fraction above 0 and up to 1"
        )
    groups = [np.flatnonzero(scores == score) for score in np.unique(scores)]
    fewest = min((len(group) for group in groups if len(group) > 1), default=1)
    equal = max(round(fraction * fewest), 1)
    sizes = [max(round(fraction * len(g)), 1) if draw == "proportional" else min(equal, len(g)) for g in groups]
    random = np.random.default_rng(seed)
    r2, c, rest = [], [], []
    y = scores.astype(np.float64)
    for _ in range(resamplings):
        chosen = np.concatenate([random.choice(g, n, replace=False) for g, n in zip(groups, sizes, strict=True)])
        others = np.setdiff1d(np.arange(len(y)), chosen)
        line = line_through(involvement[chosen], y[chosen])
        r2.append(line.r2)
        c.append(_coefficient(involvement[chosen], y[chosen]))
        rest.append(_r_squared(line, involvement[others], y[others]) if len(others) > 1 else float("nan"))
    return Resampling(
        draw, resamplings, sum(sizes), float(np.mean(r2)), float(np.std(r2, ddof=1)), float(np.mean(c)),
        float(np.std(c, ddof=1)), float(np.mean(rest)),
    )  # fmt: skip


def study(
    rows: Sequence[Mapping[str, Any]],
    *,
    unscored: Sequence[str] = (),
    unmeasured: Sequence[str] = (),
    level: float = 95.0,
    resamplings: int = 100,
    fraction: float = 0.8,
    seed: int = 0,
    by_others: Mapping[str, tuple[float, float]] | None = None,
    comparison: Settings | None = None,
    readings: Sequence[Reading] = (),
    consensus: str = MEDIAN,
) -> ScoreStudy:
    """Return the correlation of lung involvement with scores, the regression line, and the agreement of scores.

    Parameters
    ----------
    rows : sequence of mapping
        One row per scan, with ``case``, ``patient``, ``score`` and ``lung_involvement``. The first row of a patient is
        the first scan.
    unscored, unmeasured : sequence of str
        Measured cases without a score, and scores without a measured case, for the result.
    level, resamplings, fraction, seed
        See `pearson` and `resample`.
    by_others : mapping of str to (float, float), optional
        By case, the lung involvement under the mixture of all other patients, and under that of all patients, as by
        `lungmix.analysis.leave_one_out.involvement_by_others`.
    comparison : Settings, optional
        Settings of the comparison with computed scores; by default with the `level` and the `seed` of the study.
    readings : sequence of Reading
        Readings of several readers, whose scores are columns of the rows; see `lungmix.analysis.score_table`.
    consensus : str
        Rule by which they have one score, for the result.

    Raises
    ------
    UsageError
        If fewer than three scans have a score and a measurement, or all scores are equal.
    """
    if len(rows) < 3:
        raise UsageError(f"{len(rows)} scans have a score and a measurement, and a correlation needs 3: score more")
    scores = np.array([int(row["score"]) for row in rows])
    involvement = np.array([float(row["lung_involvement"]) for row in rows])
    if len(np.unique(scores)) < 2:
        raise UsageError(
            f"all {len(rows)} scans have the score {scores[0]}, so no correlation exists: add scans with other scores"
        )
    seen: set[str] = set()
    first = [not (row["patient"] in seen or seen.add(row["patient"])) for row in rows]  # type: ignore[func-returns-value]
    several = not all(first)
    comparison = comparison or Settings(level=level, seed=seed)
    comparison.check()
    table = [dict(row) for row in rows]
    _add_computed(table, "computed_score", involvement, comparison)
    apart = None
    if by_others is not None:
        pairs = [by_others[str(row["case"])] for row in rows]
        unseen = np.array([pair[0] for pair in pairs])
        for row, value in zip(table, unseen.tolist(), strict=True):
            row["lung_involvement_by_others"] = value
        _add_computed(table, "computed_score_by_others", unseen, comparison)
        apart = ByOthers(
            all=pearson(unseen, scores, level),
            first=pearson(unseen[first], scores[first], level) if several else None,
            line=line_through(unseen, scores.astype(np.float64)),
            largest_shift=max(abs(others - everyone) for others, everyone in pairs),
            agreement=compare_scores(
                [{**row, "lung_involvement": row["lung_involvement_by_others"]} for row in table], comparison
            ),
        )
    return ScoreStudy(
        rows=table,
        patients=len(seen),
        groups=[_group(score, involvement[scores == score]) for score in range(LOWEST, HIGHEST + 1)],
        all=pearson(involvement, scores, level),
        first=pearson(involvement[first], scores[first], level) if several else None,
        line=line_through(involvement, scores.astype(np.float64)),
        resamplings=[
            resample(involvement, scores, draw=draw, resamplings=resamplings, fraction=fraction, seed=seed)
            for draw in DRAWS
        ],
        unscored=list(unscored),
        unmeasured=list(unmeasured),
        agreement=compare_scores(table, comparison),
        readers=compare_readers(table, readings, consensus, comparison) if readings else None,
        by_others=apart,
    )


def _add_computed(table: Sequence[dict[str, Any]], column: str, involvement: Floats, comparison: Settings) -> None:
    """Add a column with the score computed from each lung involvement; None where this is NaN."""
    computed = severity_scores(involvement, comparison.detection_limit)
    for row, score in zip(table, computed.tolist(), strict=True):
        row[column] = score if score >= LOWEST else None


def _r_squared(line: Line, x: Floats, y: Floats) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    residual = float(((y - line.intercept - line.slope * x) ** 2).sum())
    return 1 - residual / spread if spread else float("nan")


def _group(score: int, involvement: Floats) -> dict[str, Any]:
    names = ("minimum", "lower", "median", "upper", "maximum")
    values = np.percentile(involvement, (0, 25, 50, 75, 100)) if len(involvement) else [float("nan")] * 5
    return {"score": score, "scans": len(involvement), **dict(zip(names, map(float, values), strict=True))}
