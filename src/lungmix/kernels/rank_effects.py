"""Effect sizes of differences between groups by ranks, for many weightings of the values, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BISECTIONS = 60


def rank_biserial(
    first: Floats, second: Floats, first_weights: Floats, second_weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the rank-biserial correlation of two samples, and the derivatives by the weights of the values.

    It is the fraction of pairs in which the value of the second sample is greater, less the fraction in which it is
    smaller: 1 if all values of the second sample are greater, 0 without a difference.

    Parameters
    ----------
    first, second : ndarray of float64, shape (n1,) and (n2,)
        Values of the samples.
    first_weights, second_weights : ndarray of float64, shape (m, n1) and (m, n2)
        How often each value counts, in m weightings.

    Returns
    -------
    correlation : ndarray of float64, shape (m,)
        From -1 to 1; NaN where all weights of a sample are zero.
    first_influence, second_influence : ndarray of float64, shape (m, n1) and (m, n2)
        Derivative of the correlation by the weight of each value.
    """
    of_first = _dominance(second, second_weights, first)
    of_second = -_dominance(first, first_weights, second)
    with np.errstate(all="ignore"):
        first_sum, second_sum = (weights.sum(axis=1, keepdims=True) for weights in (first_weights, second_weights))
        correlation = (first_weights * of_first).sum(axis=1, keepdims=True) / first_sum
        first_influence = (of_first - correlation) / first_sum
        second_influence = (of_second - correlation) / second_sum
    return correlation[:, 0], first_influence, second_influence


def hodges_lehmann(first: Floats, second: Floats, first_weights: Floats, second_weights: Floats) -> Floats:
    """Return the Hodges-Lehmann difference of two samples: the median of all differences, second less first.

    Parameters
    ----------
    first, second : ndarray of float64, shape (n1,) and (n2,)
        Values of the samples.
    first_weights, second_weights : ndarray of float64, shape (m, n1) and (m, n2)
        How often each value counts, in m weightings: whole numbers.

    Returns
    -------
    ndarray of float64, shape (m,)
        The median, with an error of less than 1e-12 of the range of the differences; NaN where all weights of a sample
        are zero.
    """
    a, b = np.argsort(first), np.argsort(second)
    return _median_differences(
        first[a], second[b], np.ascontiguousarray(first_weights[:, a]), np.ascontiguousarray(second_weights[:, b])
    )


def epsilon_squared(values: Floats, groups: Ints, patients: Ints, counts: Floats) -> Floats:
    """Return epsilon squared of ranks: the fraction of their variance that is between groups, less that by chance.

    For one scan per patient, it is (H - k + 1) / (n - k), with the statistic H of Kruskal and Wallis, corrected for
    ties, of n values in k groups. This is the correction of Kelley (1935). Several values of a patient count as one in
    the correction, because they may be nearly equal, and a patient that is drawn twice counts as one, too.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        The values.
    groups, patients : ndarray of int64, shape (n,)
        Group and patient of each value, numbered from 0 on.
    counts : ndarray of float64, shape (m, number of patients)
        How often each patient counts, in m cohorts.

    Returns
    -------
    ndarray of float64, shape (m,)
        At most 1, near 0 without a difference, and negative where the groups differ by less than is expected by chance;
        NaN where a group has no values, or all values are equal.
    """
    weights = counts[:, patients]
    ordered = np.sort(values)
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    sums = _cumulative(weights[:, np.argsort(values, kind="stable")])
    total = sums[:, -1:]
    members = (groups[:, None] == np.arange(groups.max() + 1)).astype(np.float64)
    sizes_of_patients = counts * np.bincount(patients, minlength=counts.shape[1])
    with np.errstate(all="ignore"):
        # The middle of the ranks of equal values, from 0 to 1, less the mean of all.
        ranks = (sums[:, below] + sums[:, up_to]) / (2 * total) - 0.5
        between = (((weights * ranks) @ members) ** 2 / (weights @ members)).sum(axis=1)
        ratio = between / (weights * ranks**2).sum(axis=1)
        # 1 / n for n patients with one value each.
        share = ((sizes_of_patients / total) ** 2).sum(axis=1)
        by_chance = (members.shape[1] - 1) * share / (1 - share)
        out = np.where(by_chance < 1, 1 - (1 - ratio) / (1 - by_chance), np.nan)
    return np.where(np.isfinite(out), out, np.nan)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Return p values that are corrected for multiple comparisons by the method of Holm (1979).

    Parameters
    ----------
    p_values : array-like of float
        P values of a family of tests; NaN for a test that could not be made, which does not count.
    """
    p = np.asarray(p_values, np.float64)
    out = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    out[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return out


def _cumulative(weights: Floats) -> Floats:
    return np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)


def _dominance(others: Floats, other_weights: Floats, values: Floats) -> Floats:
    """Return, for each value, the fraction of the weight of greater others, less that of smaller ones."""
    order = np.argsort(others)
    sums, ordered = _cumulative(other_weights[:, order]), others[order]
    below, up_to = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    total = sums[:, -1:]
    with np.errstate(all="ignore"):
        return (total - sums[:, up_to] - sums[:, below]) / total


@kernel()
def _pairs_up_to(limit, first, second, first_weights, second_weights):  # type: ignore[no-untyped-def]
    """Return the weight of pairs of sorted values whose difference, second less first, is at most the limit."""
    pairs, weight, j = 0.0, 0.0, 0
    for i in range(len(first)):
        while j < len(second) and second[j] <= first[i] + limit:
            weight += second_weights[j]
            j += 1
        pairs += first_weights[i] * weight
    return pairs


@kernel()
def _median_differences(first, second, first_weights, second_weights):  # type: ignore[no-untyped-def]
    out = np.full(len(first_weights), np.nan)
    minimum, maximum = second[0] - first[-1], second[-1] - first[0]
    margin = 1e-9 * (maximum - minimum) + 1e-12 * (abs(minimum) + abs(maximum))
    for m in range(len(first_weights)):
        total = first_weights[m].sum() * second_weights[m].sum()
        if total == 0:
            continue
        median = 0.0
        for is_upper in range(2):
            low, high = minimum - margin, maximum + margin
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                pairs = _pairs_up_to(middle, first, second, first_weights[m], second_weights[m])
                if 2 * pairs > total or (is_upper == 0 and 2 * pairs == total):
                    high = middle
                else:
                    low = middle
            median += 0.5 * high
        out[m] = median
    return out
