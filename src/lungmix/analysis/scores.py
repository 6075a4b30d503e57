"""Scores of a radiologist against the lung involvement: section 3 of Zaffino et al. 2021."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import atanh, sqrt, tanh
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from lungmix.errors import UsageError

Floats = npt.NDArray[np.float64]

LOWEST, HIGHEST = 0, 5
"""Scores: 0 for none, 1 below 5 %, 2 from 5 to 25 %, 3 to 50 %, 4 to 75 %, 5 above."""

DRAWS = ("proportional", "equal")
"""How many scans are drawn from a score group: a share of it, or as many from each."""


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation.

    Attributes
    ----------
    n : int
        Pairs.
    c : float
        Coefficient; NaN where one side does not vary.
    p : float
        Two-sided probability of a coefficient as far from 0 if there were none.
    low, high : float
        Confidence interval by Fisher's z; NaN below 4 pairs.
    level : float
        Of the interval, percent.
    """

    n: int
    c: float
    p: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Line:
    """The straight line ``score = intercept + slope * involvement`` of least squares, and its share of variance."""

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True)
class Resampling:
    """Regressions of repeated draws from the score groups.

    Attributes
    ----------
    draw : {"proportional", "equal"}
        How the sizes of draws were chosen.
    times, scans : int
        Draws, and scans in each.
    r2_mean, r2_sd : float
        Of the line through a draw, on the draw.
    c_mean, c_sd : float
        Of the correlation of a draw.
    r2_rest_mean : float
        Of the same lines on the scans that were not drawn; NaN where there are fewer than two.
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
class ScoreStudy:
    """Scores and involvement of a cohort.

    Attributes
    ----------
    rows : list of dict
        One a scan: ``case``, ``patient``, ``score``, ``lung_involvement``, and further columns of the scores.
    patients : int
        Different ones.
    groups : list of dict
        One a score: ``score``, ``scans``, and ``minimum``, ``lower``, ``median``, ``upper``, ``maximum`` of the
        involvement, percent.
    all : Correlation
        Of all scans.
    first : Correlation or None
        Of the first scan of each patient, where some have several: scans of one patient are not independent.
    line : Line
        Through all scans.
    resamplings : list of Resampling
        One a way of drawing.
    unscored, unmeasured : list of str
        Measured cases without a score, and scored ones without a measurement.
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


def pearson(x: Sequence[float] | Floats, y: Sequence[float] | Floats, level: float = 95.0) -> Correlation:
    """Pearson's correlation with its p value and confidence interval.

    Parameters
    ----------
    x, y : sequence of float
        Pairs.
    level : float
        Of the interval, percent.
    """
    one, two = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n = len(one)
    if n < 3 or np.ptp(one) == 0 or np.ptp(two) == 0:
        nan = float("nan")
        return Correlation(n, nan, nan, nan, nan, level)
    c = _coefficient(one, two)
    if abs(c) == 1:
        return Correlation(n, c, 0.0, c, c, level)
    t = c * sqrt((n - 2) / ((1 - c) * (1 + c)))
    p = 2 * float(stats.t.sf(abs(t), n - 2))
    if n < 4:
        return Correlation(n, c, p, float("nan"), float("nan"), level)
    # Fisher 1915: the inverse hyperbolic tangent is about normal with this error.
    reach = float(stats.norm.ppf(0.5 + level / 200)) / sqrt(n - 3)
    return Correlation(n, c, p, tanh(atanh(c) - reach), tanh(atanh(c) + reach), level)


def line_through(x: Floats, y: Floats) -> Line:
    """Line of least squares of y on x."""
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread else 0.0
    line = Line(slope, float(y.mean()) - slope * float(x.mean()), float("nan"))
    return Line(line.slope, line.intercept, _explained(line, x, y))


def resample(
    involvement: Floats,
    scores: npt.NDArray[np.int64],
    *,
    draw: str = "proportional",
    times: int = 100,
    share: float = 0.8,
    seed: int = 0,
) -> Resampling:
    """Regress score on involvement in repeated draws without replacement from the score groups.

    Parameters
    ----------
    involvement : ndarray of float64, shape (n,)
        Percent.
    scores : ndarray of int64, shape (n,)
        Score of each.
    draw : {"proportional", "equal"}
        Of each group the same share, at least one scan; or as many scans as that share of the smallest group of two
        or more, so that frequent scores do not dominate.
    times : int
        Draws.
    share : float
        Of a group, from 0 to 1.
    seed : int
        Of the draws.

    Raises
    ------
    UsageError
        If a number is out of range.
    """
    if draw not in DRAWS or times < 2 or not 0 < share <= 1:
        raise UsageError(
            f"{times} {draw} draws of a share of {share} are not possible: give 2 or more draws of a share above 0 and "
            "up to 1"
        )
    groups = [np.flatnonzero(scores == score) for score in np.unique(scores)]
    fewest = min((len(group) for group in groups if len(group) > 1), default=1)
    equal = max(round(share * fewest), 1)
    sizes = [max(round(share * len(g)), 1) if draw == "proportional" else min(equal, len(g)) for g in groups]
    random = np.random.default_rng(seed)
    r2, c, rest = [], [], []
    y = scores.astype(np.float64)
    for _ in range(times):
        chosen = np.concatenate([random.choice(g, n, replace=False) for g, n in zip(groups, sizes, strict=True)])
        others = np.setdiff1d(np.arange(len(y)), chosen)
        line = line_through(involvement[chosen], y[chosen])
        r2.append(line.r2)
        c.append(_coefficient(involvement[chosen], y[chosen]))
        rest.append(_explained(line, involvement[others], y[others]) if len(others) > 1 else float("nan"))
    return Resampling(
        draw, times, sum(sizes), float(np.mean(r2)), float(np.std(r2, ddof=1)), float(np.mean(c)),
        float(np.std(c, ddof=1)), float(np.mean(rest)),
    )  # fmt: skip


def study(
    rows: Sequence[Mapping[str, Any]],
    *,
    unscored: Sequence[str] = (),
    unmeasured: Sequence[str] = (),
    level: float = 95.0,
    times: int = 100,
    share: float = 0.8,
    seed: int = 0,
) -> ScoreStudy:
    """Validate the lung involvement by scores.

    Parameters
    ----------
    rows : sequence of mapping
        One a scan, with ``case``, ``patient``, ``score`` and ``lung_involvement``, in the order of the visits.
    unscored, unmeasured : sequence of str
        Cases that had no partner.
    level, times, share, seed
        See `pearson` and `resample`.

    Raises
    ------
    UsageError
        If fewer than three scans have both, or all have one score.
    """
    if len(rows) < 3:
        raise UsageError(f"{len(rows)} scans have a score and a measurement, and a correlation needs 3: score more")
    scores = np.array([int(row["score"]) for row in rows])
    involvement = np.array([float(row["lung_involvement"]) for row in rows])
    if len(np.unique(scores)) < 2:
        raise UsageError(f"all {len(rows)} scans have the score {scores[0]}, so nothing can be correlated with it")
    seen: set[str] = set()
    first = [not (row["patient"] in seen or seen.add(row["patient"])) for row in rows]  # type: ignore[func-returns-value]
    several = not all(first)
    return ScoreStudy(
        rows=[dict(row) for row in rows],
        patients=len(seen),
        groups=[_group(score, involvement[scores == score]) for score in range(LOWEST, HIGHEST + 1)],
        all=pearson(involvement, scores, level),
        first=pearson(involvement[first], scores[first], level) if several else None,
        line=line_through(involvement, scores.astype(np.float64)),
        resamplings=[resample(involvement, scores, draw=draw, times=times, share=share, seed=seed) for draw in DRAWS],
        unscored=list(unscored),
        unmeasured=list(unmeasured),
    )


def _coefficient(x: Floats, y: Floats | npt.NDArray[np.int64]) -> float:
    one, two = x - x.mean(), y - y.mean()
    size = sqrt(float(one @ one)) * sqrt(float(two @ two))
    return min(max(float(one @ two) / size, -1.0), 1.0) if size else float("nan")


def _explained(line: Line, x: Floats, y: Floats) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    rest = float(((y - line.intercept - line.slope * x) ** 2).sum())
    return 1 - rest / spread if spread else float("nan")


def _group(score: int, involvement: Floats) -> dict[str, Any]:
    names = ("minimum", "lower", "median", "upper", "maximum")
    five = np.percentile(involvement, (0, 25, 50, 75, 100)) if len(involvement) else [float("nan")] * 5
    return {"score": score, "scans": len(involvement), **dict(zip(names, map(float, five), strict=True))}
