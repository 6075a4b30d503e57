"""Tests of differences between groups: exact p values, the mixed model, error rates and coverage of intervals."""

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import optimize, stats

from lungmix.analysis.group_tests import (
    MIXED_MODEL,
    RANKS,
    Settings,
    compare_measurement,
    correct_for_measurements,
)
from lungmix.analysis.mixed_model import fit_mixed_model
from lungmix.errors import UsageError
from lungmix.kernels.rank_effects import holm

QUICK = Settings(draws=200)


def compare(samples, kind=RANKS, settings=QUICK, patients=None):
    values = np.concatenate([np.asarray(sample, float) for sample in samples])
    groups = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    patients = np.arange(len(values)) if patients is None else np.asarray(patients)
    names = [f"group {n}" for n in range(len(samples))]
    return compare_measurement("x", values, groups, patients, names, kind=kind, settings=settings)


def simulated(seed, groups=2, patients=50, twice=12, shift=0.0, within=0.6):
    """Return values, groups and patients of a cohort with a skewed measurement, in which some patients have 2 scans."""
    random = np.random.default_rng(seed)
    group = random.integers(0, groups, patients)
    group[: 3 * groups] = np.repeat(np.arange(groups), 3)
    patient = np.concatenate([np.arange(patients), random.choice(patients, twice, replace=False)])
    z = random.normal(size=patients)[patient] + within * random.normal(size=len(patient)) + shift * group[patient]
    return 20 * np.exp(0.8 * z), group[patient], patient


@pytest.mark.parametrize("kind", [RANKS, MIXED_MODEL])
def test_groups_with_one_known_value_are_not_tested(kind):
    nan = float("nan")
    for samples in (([1, nan, nan], [1, 2, 5]), ([1, 2, 4], [nan, 2, nan], [3, 3, 5])):
        result = compare(samples, kind)
        assert np.isnan(result.p)
        assert all(np.isnan(pair.p) for pair in result.pairs if "1" in (pair.first[-1], pair.second[-1]))
        assert np.isfinite(result.pairs[0].hodges_lehmann.value)


@pytest.mark.parametrize("samples", [([1, 4, 2.5], [3, 7, 8, 9]), ([1, 4, 2, 2], [2, 4, 4, 9]), ([1, 1], [1, 2, 5])])
def test_p_value_of_two_small_groups_counts_all_assignments(samples):
    result = compare(samples)
    pooled, n = stats.rankdata(np.concatenate(samples)), len(samples[0])
    expected_sum = n * (len(pooled) + 1) / 2
    distance = abs(pooled[:n].sum() - expected_sum)
    sums = [pooled[list(chosen)].sum() for chosen in combinations(range(len(pooled)), n)]
    assert result.p == pytest.approx(np.mean([abs(s - expected_sum) >= distance - 1e-9 for s in sums]), abs=1e-12)
    assert result.test in ("Mann-Whitney U, exact", "Mann-Whitney U, permutations")
    assert (result.pairs[0].p, result.pairs[0].p_holm) == (result.p, result.p)
    assert result.epsilon_squared is None


def test_p_value_of_three_small_groups_counts_all_assignments():
    samples = [[1.0, 4.0], [3.0, 7.0, 8.0], [9.0, 10.0]]
    result = compare(samples)
    pooled = np.concatenate(samples)
    statistics = []
    for order in permutations(range(7)):
        if list(order[:2]) == sorted(order[:2]) and list(order[2:5]) == sorted(order[2:5]) and order[5] < order[6]:
            parts = pooled[list(order[:2])], pooled[list(order[2:5])], pooled[list(order[5:])]
            statistics.append(stats.kruskal(*parts).statistic)
    assert len(statistics) == 210
    assert result.test == "Kruskal-Wallis, permutations"
    assert result.p == pytest.approx(np.mean(np.array(statistics) >= result.statistic - 1e-9), abs=1e-12)


def test_large_groups_have_the_p_values_of_scipy():
    random = np.random.default_rng(2)
    samples = [random.normal(shift, size=30).round(1) for shift in (0, 0.3, 0.6)]
    two, three = compare(samples[:2]), compare(samples)
    reference = stats.mannwhitneyu(samples[1], samples[0])
    assert (two.test, two.statistic, two.p) == ("Mann-Whitney U, normal approximation", *reference)
    assert (three.statistic, three.p) == pytest.approx(tuple(stats.kruskal(*samples)))
    p_values = [stats.mannwhitneyu(b, a).pvalue for a, b in combinations(samples, 2)]
    assert [pair.p for pair in three.pairs] == pytest.approx(p_values)
    assert [pair.p_holm for pair in three.pairs] == pytest.approx(holm(p_values))


def test_effect_sizes_are_second_group_less_first():
    result = compare([np.arange(10.0), np.arange(10.0) + 3])
    (pair,) = result.pairs
    assert (pair.first, pair.second) == ("group 0", "group 1")
    assert pair.hodges_lehmann.value == pytest.approx(3)
    assert pair.hodges_lehmann.low < 3 < pair.hodges_lehmann.high
    pairs = [np.sign(y - x) for x in range(10) for y in range(3, 13)]
    assert pair.rank_biserial.value == pytest.approx(np.mean(pairs))


def test_missing_and_equal_values_make_no_test():
    nan = float("nan")
    result = compare([[1, 2, 3, nan], [4, 5, 6]])
    assert (result.scans, result.p) == (6, 0.1)
    equal = compare([[2, 2, 2], [2, 2, 2], [2, 2, 2]])
    assert np.isnan([equal.p, *(pair.p for pair in equal.pairs)]).all()
    assert np.isnan(compare([[nan, nan, nan], [1, 2, 3]]).p)
    corrected = correct_for_measurements([result, equal, result])
    assert [item.p_holm for item in corrected] == pytest.approx([0.2, nan, 0.2], nan_ok=True)


def test_impossible_numbers_of_intervals_are_rejected():
    with pytest.raises(UsageError, match="give 100 or more draws"):
        Settings(draws=10).check()


def plain_mixed_model(values, groups, patients):
    """Return means, covariance and variances by restricted maximum likelihood, from the full covariance matrix."""
    design = np.eye(groups.max() + 1)[groups]
    same = (patients[:, None] == patients[None, :]).astype(float)
    n, k = design.shape

    def parts(log_ratio):
        covariance = np.eye(len(values)) + np.exp(log_ratio) * same
        inverse = np.linalg.inv(covariance)
        of_means = np.linalg.inv(design.T @ inverse @ design)
        means = of_means @ design.T @ inverse @ values
        residual = values - design @ means
        scale = residual @ inverse @ residual / (n - k)
        value = (n - k) * np.log(scale) + np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(of_means)[1]
        return value, means, scale * of_means, scale

    maximum = optimize.minimize_scalar(
        lambda x: parts(x)[0], bounds=(-6, 6), method="bounded", options={"xatol": 1e-9}
    ).x
    _, means, covariance, scale = parts(maximum)
    return means, covariance, scale * np.exp(maximum), scale


@pytest.mark.parametrize("seed", range(4))
def test_mixed_model_equals_the_likelihood_of_the_full_covariance(seed):
    pytest.importorskip("statsmodels")
    values, groups, patients = simulated(seed, groups=3, shift=0.5)
    for group_of in (groups, np.random.default_rng(seed).permutation(groups)):
        model = fit_mixed_model(values, group_of, patients)
        means, covariance, between, rest = plain_mixed_model(values, group_of, patients)
        np.testing.assert_allclose(model.means, means, rtol=1e-3)
        assert (model.patients, model.rest) == pytest.approx((between, rest), rel=5e-3)
        assert model.is_robust is (group_of is groups)
        if not model.is_robust:
            np.testing.assert_allclose(model.covariance, covariance, rtol=5e-3, atol=1e-3 * covariance.max())


def test_robust_errors_are_those_of_bell_and_mccaffrey_with_full_matrices():
    pytest.importorskip("statsmodels")
    values, groups, patients = simulated(2, groups=2, shift=0.5)
    model = fit_mixed_model(values, groups, patients)
    means, _, between, rest = plain_mixed_model(values, groups, patients)
    design = np.eye(2)[groups]
    inverse = np.linalg.inv(rest * np.eye(62) + between * (patients[:, None] == patients[None, :]))
    bread = np.linalg.inv(design.T @ inverse @ design)
    meat = np.zeros((2, 2))
    for patient in range(50):
        of_patient = patients == patient
        x, weight = design[of_patient], inverse[np.ix_(of_patient, of_patient)]
        (share,) = {round(float(v), 12) for v in np.diag(x @ bread @ x.T @ weight) * len(x)}
        score = x.T @ weight @ (values - design @ means)[of_patient] / np.sqrt(1 - share)
        meat += np.outer(score, score)
    np.testing.assert_allclose(model.covariance, bread @ meat @ bread, rtol=5e-3, atol=1e-9)


def test_mixed_model_of_balanced_scans_makes_the_tests_of_welch():
    pytest.importorskip("statsmodels")
    oneway = pytest.importorskip("statsmodels.stats.oneway")
    random = np.random.default_rng(1)
    patients = np.repeat(np.arange(24), 3)
    groups = (patients % 8 > 0).astype(int) + (patients % 8 > 3)
    values = 50 + groups + (1 + groups) * random.normal(size=24)[patients] * 3 + random.normal(size=72)
    model = fit_mixed_model(values, groups, patients)
    of_patients = values.reshape(24, 3).mean(axis=1)
    samples = [of_patients[groups[::3] == g] for g in range(3)]
    welch = oneway.anova_oneway(samples, use_var="unequal")
    assert model.f_test() == pytest.approx((welch.statistic, welch.df_denom, welch.pvalue), rel=1e-3)
    assert model.degrees == pytest.approx([len(sample) - 1 for sample in samples])
    _, low, high, p = model.difference(1, 2)
    t_test = stats.ttest_ind(samples[2], samples[1], equal_var=False)
    interval = t_test.confidence_interval()
    assert (low, high, p) == pytest.approx((interval.low, interval.high, t_test.pvalue), rel=1e-3)
    two = groups > 0
    f, degrees, p = fit_mixed_model(values[two], groups[two] - 1, patients[two]).f_test()
    assert (f, degrees, p) == pytest.approx((t_test.statistic**2, t_test.df, t_test.pvalue), rel=1e-3)


def test_errors_and_degrees_are_those_within_patients_if_patients_change_groups():
    pytest.importorskip("statsmodels")
    random = np.random.default_rng(5)
    patients, groups = np.repeat(np.arange(10), 2), np.tile([0, 1], 10)
    values = random.normal(size=10)[patients] * 5 + groups + random.normal(size=20)
    model = fit_mixed_model(values, groups, patients)
    # The paired t test.
    assert model.degrees == pytest.approx([9, 9], rel=1e-6)
    difference = values[1::2] - values[::2]
    value, _, _, p = model.difference(0, 1)
    assert value == pytest.approx(difference.mean())
    assert p == pytest.approx(2 * stats.t.sf(abs(stats.ttest_1samp(difference, 0).statistic), 9), rel=1e-3)
    assert model.f_test()[2] == pytest.approx(p)


def test_one_patient_who_changes_groups_costs_few_degrees_of_freedom():
    pytest.importorskip("statsmodels")
    random = np.random.default_rng(7)
    patients = np.r_[np.arange(20), np.arange(5)]
    groups = np.array([0, 1, 2] * 7)[patients]
    values = 1.2 * random.normal(size=20)[patients] + 0.7 * random.normal(size=25) + 2 * groups
    constant = fit_mixed_model(values, groups, patients)
    groups[20] = 2
    changed = fit_mixed_model(values, groups, patients)
    assert (constant.is_robust, changed.is_robust) == (True, False)
    assert 15 < changed.degrees[0] < 22
    assert changed.f_test()[2] < 1e-3


def test_mixed_model_without_a_maximum_makes_no_test():
    pytest.importorskip("statsmodels")
    constant = compare([[2.0] * 4, [2.0] * 4], MIXED_MODEL, patients=[0, 0, 1, 1, 2, 2, 3, 3])
    assert np.isnan(constant.p)
    assert constant.pairs[0].mean_difference is None
    assert fit_mixed_model(np.repeat([1.0, 2, 4, 7], 2), np.repeat([0, 1], 4), np.repeat(np.arange(4), 2)) is None


def test_group_of_one_patient_is_not_tested_by_the_mixed_model():
    pytest.importorskip("statsmodels")
    result = compare(([1, 2, 1, 3], [2, 3, 4, 5, 5]), MIXED_MODEL, patients=[0, 0, 0, 0, 1, 2, 3, 4, 4])
    assert np.isnan(result.p)
    assert np.isnan(result.pairs[0].p)
    assert np.isfinite(result.pairs[0].hodges_lehmann.value)


def test_error_rate_of_the_mixed_model_is_near_5_percent_where_that_of_scans_is_not():
    pytest.importorskip("statsmodels")
    rejected = np.zeros(2, int)
    for seed in range(200):
        values, groups, patients = simulated(seed, patients=24, twice=24, within=0.3)
        model = fit_mixed_model(np.log(values), groups, patients)
        as_if_independent = stats.mannwhitneyu(values[groups == 0], values[groups == 1]).pvalue
        rejected += [model.f_test()[2] < 0.05, as_if_independent < 0.05]
    assert 4 <= rejected[0] <= 17, rejected  # 99 % of 200 simulations with a true rate of 5 %
    assert rejected[1] > 24, rejected


@pytest.mark.parametrize("groups", [2, 3])
def test_error_rate_is_near_5_percent_if_spreads_of_groups_differ(groups):
    pytest.importorskip("statsmodels")
    rejected = 0
    for seed in range(200):
        values, group_of, patients = simulated(seed, groups)
        # The first group is the smallest and has twice the spread.
        group_of = np.where(np.random.default_rng(seed).random(50)[patients] < 0.3, 0, np.maximum(group_of, 1))
        group_of = group_of[np.unique(patients, return_index=True)[1]][patients]
        spread = np.where(group_of == 0, 2, 1)
        rejected += fit_mixed_model(np.log(values / 20) * spread, group_of, patients).f_test()[2] < 0.05
    assert 4 <= rejected <= 17, rejected


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 3])
def test_intervals_of_effect_sizes_cover_the_truth(groups):
    pytest.importorskip("statsmodels")
    from lungmix.kernels.rank_effects import epsilon_squared, hodges_lehmann, rank_biserial

    values, of_group, patients = simulated(0, groups, 20_000, 4_800, shift=0.6)
    samples = [values[of_group == g] for g in (0, 1)]
    ones = [np.ones((1, len(sample))) for sample in samples]
    truth = {
        "rank_biserial": rank_biserial(*samples, *ones)[0][0],
        "hodges_lehmann": hodges_lehmann(*samples, *ones)[0],
        "mean_difference": samples[1].mean() - samples[0].mean(),
        "epsilon_squared": epsilon_squared(values, of_group, patients, np.ones((1, 20_000)))[0],
    }
    covered = dict.fromkeys(truth, 0)
    for seed in range(1, 201):
        sample = simulated(seed, groups, shift=0.6)
        result = compare_measurement(
            "x", *sample, list("abc")[:groups], kind=MIXED_MODEL, settings=Settings(draws=500, seed=seed)
        )
        pair = result.pairs[0]
        for name in ("rank_biserial", "hodges_lehmann"):
            covered[name] += getattr(pair, name).low <= truth[name] <= getattr(pair, name).high
        covered["mean_difference"] += pair.mean_difference[1] <= truth["mean_difference"] <= pair.mean_difference[2]
        if result.epsilon_squared is not None:
            covered["epsilon_squared"] += result.epsilon_squared.low <= truth["epsilon_squared"]
            covered["epsilon_squared"] -= result.epsilon_squared.high < truth["epsilon_squared"]
    for name in ("rank_biserial", "hodges_lehmann", *(("epsilon_squared",) if groups == 3 else ())):
        assert 181 <= covered[name] <= 199, name


def test_intervals_are_as_wide_as_the_number_of_patients_requires():
    values, groups, patients = simulated(3, groups=3, patients=30, twice=30, within=0.01)
    widths = []
    for numbers in (patients, np.arange(60)):
        result = compare_measurement("x", values, groups, numbers, list("abc"), kind=RANKS, settings=Settings(seed=1))
        pair = result.pairs[0]
        estimates = pair.hodges_lehmann, pair.rank_biserial, result.epsilon_squared
        widths.append([estimate.high - estimate.low for estimate in estimates])
    # Two nearly equal scans of each patient tell hardly more than one.
    assert np.all(np.array(widths[0]) > 1.2 * np.array(widths[1]))
