"""Effect sizes by ranks equal plain loops over pairs, for weights as for repeated values."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lungmix.kernels.rank_effects import epsilon_squared, hodges_lehmann, holm, rank_biserial

values = st.lists(st.integers(-3, 12).map(lambda number: number / 4), min_size=1, max_size=9)


@st.composite
def weighted_samples(draw, count=2):
    samples = [np.array(draw(values)) for _ in range(count)]
    weights = [
        np.array(draw(st.lists(st.lists(st.integers(0, 3), min_size=len(s), max_size=len(s)), min_size=2, max_size=2)))
        for s in samples
    ]
    return samples, [np.asarray(w, float) for w in weights]


def repeated(sample, weights):
    return np.repeat(sample, weights.astype(int))


@settings(deadline=None)
@given(weighted_samples())
def test_rank_biserial_and_hodges_lehmann_equal_loops_over_all_pairs(drawn):
    (first, second), (a, b) = drawn
    correlations, _, _ = rank_biserial(first, second, a, b)
    differences = hodges_lehmann(first, second, a, b)
    for m in range(2):
        pairs = [y - x for x, y in product(repeated(first, a[m]), repeated(second, b[m]))]
        if not pairs:
            assert np.isnan(correlations[m])
            assert np.isnan(differences[m])
            continue
        assert correlations[m] == pytest.approx(np.mean(np.sign(pairs)), abs=1e-12)
        assert differences[m] == pytest.approx(np.median(pairs), abs=1e-9)


@settings(deadline=None)
@given(weighted_samples(3))
def test_epsilon_squared_follows_from_the_statistic_of_kruskal_and_wallis(drawn):
    samples, weights = drawn
    pooled, groups = np.concatenate(samples), np.repeat(np.arange(3), list(map(len, samples)))
    counts = np.concatenate(weights, axis=1)
    result = epsilon_squared(pooled, groups, np.arange(len(pooled)), counts)
    for m in range(2):
        parts = [repeated(sample, w[m]) for sample, w in zip(samples, weights, strict=True)]
        joined = np.concatenate(parts)
        share = np.sum((counts[m] / max(counts[m].sum(), 1)) ** 2)
        by_chance = 2 * share / (1 - share) if share < 1 else 1
        if min(map(len, parts)) == 0 or len(np.unique(joined)) < 2 or by_chance >= 1 - 1e-12:
            assert not result[m] > 1 + 1e-9
        else:
            ratio = stats.kruskal(*parts).statistic / (len(joined) - 1)
            assert result[m] == pytest.approx(1 - (1 - ratio) / (1 - by_chance), abs=1e-9)


def test_epsilon_squared_of_patients_with_one_scan_has_the_correction_of_kelley():
    random = np.random.default_rng(7)
    samples = [random.normal(shift, size=9).round(1) for shift in (0, 1, 1.5)]
    h, n, k = stats.kruskal(*samples).statistic, 27, 3
    (value,) = epsilon_squared(np.concatenate(samples), np.repeat([0, 1, 2], 9), np.arange(n), np.ones((1, n)))
    assert value == pytest.approx((h - k + 1) / (n - k))


def test_epsilon_squared_counts_equal_scans_of_a_patient_once():
    values, groups = np.array([1.0, 5, 2, 7, 3, 9]), np.array([0, 0, 1, 1, 2, 2])
    plain = epsilon_squared(values, groups, np.arange(6), np.ones((1, 6)))
    twice = epsilon_squared(np.repeat(values, 2), np.repeat(groups, 2), np.repeat(np.arange(6), 2), np.ones((1, 6)))
    assert twice == pytest.approx(plain)


def test_influence_is_the_derivative_by_the_weight():
    random = np.random.default_rng(3)
    first, second = random.normal(size=7), random.normal(0.4, size=5)
    weights = [np.ones((1, 7)), np.ones((1, 5))]
    correlation, *influences = rank_biserial(first, second, *weights)
    for sample, size in enumerate((7, 5)):
        for i in range(size):
            changed = [w.copy() for w in weights]
            changed[sample][0, i] += 1e-6
            (moved,), _, _ = rank_biserial(first, second, *changed)
            assert (moved - correlation[0]) / 1e-6 == pytest.approx(influences[sample][0, i], abs=1e-4)


def test_rank_biserial_follows_from_the_statistic_of_mann_and_whitney():
    random = np.random.default_rng(4)
    first, second = random.normal(size=20), random.normal(0.7, size=31)
    u = stats.mannwhitneyu(second, first).statistic
    (correlation,), _, _ = rank_biserial(first, second, np.ones((1, 20)), np.ones((1, 31)))
    assert correlation == pytest.approx(2 * u / (20 * 31) - 1, abs=1e-12)


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=8))
def test_holm_equals_a_loop_from_the_smallest_p_value(p_values):
    expected = [float("nan")] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    largest = 0.0
    for step, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - step)))
        expected[i] = largest
    np.testing.assert_allclose(holm(p_values), expected, atol=1e-15)


def test_holm_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = [0.04, 0.001, 0.2, 0.011, 0.04]
    np.testing.assert_allclose(holm(p_values), multitest.multipletests(p_values, method="holm")[1])
