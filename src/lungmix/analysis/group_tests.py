"""Tests of differences of a measurement between groups of scans, and effect sizes with intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import sparse, stats

from lungmix.analysis.mixed_model import MixedModel, fit_mixed_model
from lungmix.analysis.patient_bootstrap import Estimate, check_draws, estimate, estimate_coefficient
from lungmix.kernels.rank_effects import epsilon_squared, hodges_lehmann, holm, rank_biserial

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MIXED_MODEL, RANKS = "mixed model", "ranks"
"""Kinds of tests: of means with several scans of a patient, and of ranks with one scan per patient."""

MANN_WHITNEY, KRUSKAL_WALLIS = "Mann-Whitney U", "Kruskal-Wallis"
MAX_EXACT_SCANS = 8
"""Largest size of the smaller of two groups for which the p value is exact or by permutations."""
MAX_EXACT_SCANS_OF_SEVERAL = 5
"""The same for the smallest of three groups or more."""
_PERMUTATIONS = 9999
_MAX_PERMUTED_VALUES = 5_000_000
"""Largest number of values that are in memory at a time for permutations."""


@dataclass(frozen=True)
class Settings:
    """Numbers that a comparison of groups depends on.

    Attributes
    ----------
    level : float
        Level of the intervals, percent.
    draws : int
        Number of cohorts of patients that are drawn for the intervals.
    seed : int
        Seed of the draws and of permutations.
    """

    level: float = 95.0
    draws: int = 2000
    seed: int = 0

    def check(self) -> None:
        """Raise a `UsageError` if a number is out of range."""
        check_draws(self.draws, self.level)


@dataclass(frozen=True)
class PairComparison:
    """Difference between two groups; all differences are second less first.

    Attributes
    ----------
    first, second : str
        Names of the groups.
    hodges_lehmann : Estimate
        Median of the differences between all scans of the two groups, in the unit of the measurement.
    rank_biserial : Estimate
        Fraction of these differences that are positive, less the fraction that are negative.
    mean_difference : tuple of float or None
        Difference of the means and its interval, by the mixed model; None for tests of ranks.
    test : str
        Name of the test.
    p, p_holm : float
        P value, and the same corrected for the pairs of groups by the method of Holm; NaN if undefined.
    statistic : float
        Statistic of the test: U of the second group, or t; NaN if undefined.
    degrees : float
        Degrees of freedom of t; NaN for tests of ranks.
    """

    first: str
    second: str
    hodges_lehmann: Estimate
    rank_biserial: Estimate
    mean_difference: tuple[float, float, float] | None
    test: str
    p: float
    p_holm: float = float("nan")
    statistic: float = float("nan")
    degrees: float = float("nan")


@dataclass(frozen=True)
class Comparison:
    """Comparison of a measurement between groups.

    Attributes
    ----------
    measurement : str
        Column of ``measurements.csv``.
    scans : int
        Number of scans that have the measurement.
    test : str
        Name of the test of all groups.
    statistic : float
        Its statistic: U of the second group, H or F.
    p, p_holm : float
        Its p value, and the same corrected for the measurements by the method of Holm; NaN if undefined.
    epsilon_squared : Estimate or None
        Fraction of the variance of ranks that is between groups; None for two groups.
    pairs : tuple of PairComparison
        All pairs of groups.
    degrees : float
        Denominator degrees of freedom of F; NaN for tests of ranks.
    """

    measurement: str
    scans: int
    test: str
    statistic: float
    p: float
    epsilon_squared: Estimate | None
    pairs: tuple[PairComparison, ...]
    degrees: float = float("nan")
    p_holm: float = float("nan")


def compare_measurement(
    measurement: str,
    values: Floats,
    groups: Ints,
    patients: Ints,
    names: Sequence[str],
    *,
    kind: str,
    settings: Settings,
) -> Comparison:
    """Return the comparison of a measurement between groups.

    Parameters
    ----------
    measurement : str
        Name of the measurement, for the result.
    values : ndarray of float64, shape (n,)
        Measurement of each scan; NaN where it is missing.
    groups, patients : ndarray of int64, shape (n,)
        Group and patient of each scan, numbered from 0 on.
    names : sequence of str
        Names of the groups, two or more.
    kind : {"mixed model", "ranks"}
        Kind of the tests. Tests of ranks need one scan per patient.
    settings : Settings
        Numbers of the intervals.
    """
    is_known = np.isfinite(values)
    values, groups = values[is_known], groups[is_known]
    patient_numbers, patients = np.unique(patients[is_known], return_inverse=True)
    n_patients, k = len(patient_numbers), len(names)
    samples = [values[groups == g] for g in range(k)]
    is_testable = min(map(len, samples)) > 1 and np.ptp(values) > 0
    model = fit_mixed_model(values, groups, patients) if is_testable and kind == MIXED_MODEL else None
    degrees = float("nan")
    if kind == MIXED_MODEL:
        test = "linear mixed model, F test"
        statistic, degrees, p = (float("nan"),) * 3 if model is None else model.f_test()
    else:
        test, statistic, p = _rank_test(samples, settings.seed) if is_testable else ("none",) + (float("nan"),) * 2
    pairs = [
        _pair((i, j), names, values, groups, patients, n_patients, kind, model, settings)
        for i, j in combinations(range(k), 2)
    ]
    corrected = holm([pair.p for pair in pairs])
    epsilon = None
    if k > 2 and not all(map(len, samples)):
        epsilon = Estimate(*(float("nan"),) * 4)
    elif k > 2:
        epsilon = estimate(
            partial(epsilon_squared, values, groups, patients),
            n_patients, draws=settings.draws, level=settings.level, seed=settings.seed,
        )  # fmt: skip
    return Comparison(
        measurement, len(values), test, statistic, p, epsilon,
        tuple(replace(pair, p_holm=float(q)) for pair, q in zip(pairs, corrected, strict=True)), degrees,
    )  # fmt: skip


def correct_for_measurements(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons of several measurements with p values that are corrected by the method of Holm."""
    corrected = holm([comparison.p for comparison in comparisons])
    return [replace(item, p_holm=float(p)) for item, p in zip(comparisons, corrected, strict=True)]


def _rank_test(samples: Sequence[Floats], seed: int) -> tuple[str, float, float]:
    """Return the name, statistic and p value of the rank test of two or more samples."""
    sizes = list(map(len, samples))
    random = np.random.default_rng(seed)
    batch = max(_MAX_PERMUTED_VALUES // sum(sizes), 1)
    if len(samples) == 2:
        first, second = samples
        has_ties = len(np.unique(np.concatenate(samples))) < sum(sizes)
        method = "asymptotic" if min(sizes) > MAX_EXACT_SCANS or has_ties else "exact"
        result = stats.mannwhitneyu(second, first, method=method)
        u, p = float(result.statistic), float(result.pvalue)
        if method == "exact":
            return f"{MANN_WHITNEY}, exact", u, p
        if min(sizes) > MAX_EXACT_SCANS:
            return f"{MANN_WHITNEY}, normal approximation", u, p
        ranks = np.split(stats.rankdata(np.concatenate(samples)), [len(first)])
        permuted = stats.permutation_test(
            ranks, lambda a, b, axis: np.abs(b.mean(axis=axis) - a.mean(axis=axis)), vectorized=True,
            alternative="greater", n_resamples=_PERMUTATIONS, batch=batch, random_state=random,
        )  # fmt: skip
        return f"{MANN_WHITNEY}, permutations", u, float(permuted.pvalue)
    h, p = (float(value) for value in stats.kruskal(*samples))
    if min(sizes) > MAX_EXACT_SCANS_OF_SEVERAL:
        return f"{KRUSKAL_WALLIS}, chi-squared approximation", h, p

    def spread(*ranks: Floats, axis: int) -> Floats:
        # H grows with it, because the sum and the ties of all ranks stay.
        return np.sum([r.sum(axis=axis) ** 2 / r.shape[axis] for r in ranks], axis=0)

    ranks = np.split(stats.rankdata(np.concatenate(samples)), np.cumsum(sizes)[:-1])
    permuted = stats.permutation_test(
        ranks,
        spread,
        vectorized=True,
        alternative="greater",
        n_resamples=_PERMUTATIONS,
        batch=batch,
        random_state=random,
    )
    return f"{KRUSKAL_WALLIS}, permutations", h, float(permuted.pvalue)


def _pair(
    pair: tuple[int, int],
    names: Sequence[str],
    values: Floats,
    groups: Ints,
    patients: Ints,
    n_patients: int,
    kind: str,
    model: MixedModel | None,
    settings: Settings,
) -> PairComparison:
    first, second = (groups == g for g in pair)
    samples = values[first], values[second]
    nan = float("nan")
    name_pair = names[pair[0]], names[pair[1]]
    if not all(map(len, samples)):
        nothing = Estimate(nan, nan, nan, nan)
        return PairComparison(*name_pair, nothing, nothing, None, "none", nan)
    # Draw from the patients of the two groups alone.
    present, numbers = np.unique(np.concatenate([patients[first], patients[second]]), return_inverse=True)
    of_first, of_second = numbers[: len(samples[0])], numbers[len(samples[0]) :]
    members = [
        sparse.csr_array((np.ones(len(of)), (np.arange(len(of)), of)), shape=(len(of), len(present)))
        for of in (of_first, of_second)
    ]

    def shift(weights: Floats) -> Floats:
        return hodges_lehmann(*samples, weights[:, of_first], weights[:, of_second])

    def correlation(weights: Floats) -> tuple[Floats, Floats]:
        value, *influences = rank_biserial(*samples, weights[:, of_first], weights[:, of_second])
        of_patients = sum(i @ m for i, m in zip(influences, members, strict=True))
        n = weights.sum(axis=1)
        variance = (weights * of_patients**2).sum(axis=1) * n / np.where(n > 1, n - 1, np.nan)
        return value, np.sqrt(variance)

    numbers_of_draws = {"draws": settings.draws, "level": settings.level, "seed": settings.seed}
    estimates = (
        estimate(shift, len(present), **numbers_of_draws),  # type: ignore[arg-type]
        estimate_coefficient(correlation, len(present), **numbers_of_draws),  # type: ignore[arg-type]
    )
    if kind == MIXED_MODEL:
        if model is None:
            return PairComparison(*name_pair, *estimates, None, "linear mixed model, t test", nan)
        value, low, high, p = model.difference(*pair, settings.level)
        t, degrees, _ = model.t_test(*pair)
        return PairComparison(
            *name_pair, *estimates, (value, low, high), "linear mixed model, t test", p, statistic=t, degrees=degrees
        )
    if min(map(len, samples)) < 2 or np.ptp(np.concatenate(samples)) == 0:
        return PairComparison(*name_pair, *estimates, None, "none", nan)
    test, u, p = _rank_test(samples, settings.seed)
    return PairComparison(*name_pair, *estimates, None, test, p, statistic=u)
