"""Agreement of scores: oracles of scikit-learn and scipy, and cohorts of known agreement."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from lungmix.analysis.patient_bootstrap import estimate
from lungmix.analysis.sample_size import for_auc, for_correlation, for_error, hanley_mcneil
from lungmix.analysis.score_agreement import Settings, compare_scores, kappas
from lungmix.analysis.scores import study
from lungmix.errors import UsageError
from lungmix.kernels.kappa import weighted_kappa
from lungmix.webpage.score_agreement_figure import score_agreement_figure

WITHOUT_INTERVALS = Settings(draws=0)

TRUE_TABLE = np.array(
    [
        [4, 2, 0, 0, 0, 0],
        [2, 8, 4, 0, 0, 0],
        [0, 4, 24, 7, 0, 0],
        [0, 0, 7, 20, 4, 0],
        [0, 0, 0, 3, 6, 1],
        [0, 0, 0, 0, 1, 3],
    ]
)


def rows_of(scores, involvement, patients=None):
    names = range(len(scores)) if patients is None else patients
    return [
        {"case": f"case-{i:03d}", "patient": f"p{p}", "score": int(s), "lung_involvement": float(x)}
        for i, (s, x, p) in enumerate(zip(scores, involvement, names, strict=True))
    ]


def cohort(n, seed=0, patients=None):
    random = np.random.default_rng(seed)
    involvement = np.clip(random.normal(28, 17, n), 0.5, 95)
    noisy = np.clip(involvement + random.normal(0, 8, n), 0, 100)
    return rows_of(np.searchsorted([0, 5, 25, 50, 75], noisy), involvement, patients)


pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 400).map(lambda x: x / 4)), min_size=3, max_size=40)


@given(pairs)
@settings(deadline=None)
def test_numbers_equal_those_of_scikit_learn_and_numpy(values):
    scores, involvement = np.array([s for s, _ in values]), np.array([x for _, x in values])
    result = compare_scores(rows_of(scores, involvement), WITHOUT_INTERVALS)
    computed = [0 if x == 0 else 1 if x < 5 else 2 if x <= 25 else 3 if x <= 50 else 4 if x <= 75 else 5
                for x in involvement]  # fmt: skip
    assert result.confusion == metrics.confusion_matrix(scores, computed, labels=range(6)).tolist()
    assert result.equal == pytest.approx(100 * metrics.accuracy_score(scores, computed))
    middle = np.array([0, 2.5, 15, 37.5, 62.5, 87.5])[scores]
    difference, sd = involvement - middle, np.std(involvement - middle, ddof=1)
    limits = [difference.mean() - 1.96 * sd, difference.mean(), difference.mean() + 1.96 * sd]
    found_limits = (result.differences.lower, result.differences.mean, result.differences.upper)
    assert [limit.value for limit in found_limits] == pytest.approx(limits)
    severe = scores >= 3
    if severe.all() or not severe.any():
        assert result.discrimination is None
        assert result.next_study.auc is None
        return
    assert result.discrimination.auc.value == pytest.approx(metrics.roc_auc_score(severe, involvement))
    average = metrics.average_precision_score(severe, involvement)
    assert result.discrimination.average_precision.value == pytest.approx(average)


@pytest.mark.parametrize(
    ("name", "oracle"), [("area", metrics.roc_auc_score), ("precision", metrics.average_precision_score)]
)
def test_curves_of_drawn_patients_are_those_of_weighted_scans(name, oracle, monkeypatch):
    statistics = {}

    def estimator(patients, settings):
        def estimated(statistic):
            statistics[getattr(statistic, "__name__", "")] = statistic
            return estimate(statistic, patients, draws=100)

        return estimated

    monkeypatch.setattr("lungmix.analysis.score_agreement.estimator", estimator)
    # 40 scans of 30 patients, with ties.
    rows = [
        {**row, "lung_involvement": round(row["lung_involvement"], -1)} for row in cohort(40, 1, np.arange(40) % 30)
    ]
    compare_scores(rows)
    names, patient = np.unique([row["patient"] for row in rows], return_inverse=True)
    weights = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), 20).astype(float)
    severe = np.array([row["score"] >= 3 for row in rows])
    involvement = np.array([row["lung_involvement"] for row in rows])
    expected = [oracle(severe, involvement, sample_weight=row[patient]) for row in weights]
    assert statistics[name](weights) == pytest.approx(expected)


def test_interval_equals_that_of_scipy_for_one_scan_per_patient():
    random = np.random.default_rng(3)
    values = random.exponential(1, 50)
    expected = stats.bootstrap((values,), np.mean, n_resamples=4999, random_state=np.random.default_rng(1))
    result = estimate(lambda weights: weights @ values / weights.sum(axis=1), 50, draws=4999, seed=1)
    assert result.value == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval))
    assert result.error == pytest.approx(expected.standard_error)


def test_interval_of_kappa_is_near_that_of_scipy_for_many_patients():
    random = np.random.default_rng(3)
    cells = random.choice(36, 2000, p=TRUE_TABLE.ravel() / TRUE_TABLE.sum())
    first, second = np.divmod(cells, 6)

    def kappa(a, b):
        return metrics.cohen_kappa_score(a, b, labels=range(6), weights="quadratic")

    expected = stats.bootstrap((first, second), kappa, paired=True, vectorized=False, n_resamples=499, method="basic",
                               random_state=1)  # fmt: skip
    result = kappas(first, second, np.arange(2000), Settings())["quadratic"]
    assert result.value == pytest.approx(kappa(first, second))
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.003)
    assert result.error == pytest.approx(expected.standard_error, rel=0.1)


def test_nearly_perfect_agreement_has_an_interval_without_errors_of_draws():
    first = np.arange(60) % 6
    second = np.where(np.arange(60) == 7, first + 1, first)
    result = kappas(first, second, np.arange(60), Settings(draws=500))["linear"]
    assert 0.8 < result.low < result.value <= result.high <= 1


def test_intervals_count_patients_and_not_scans():
    """Ten scans of each patient with equal scores have the interval of one scan of each patient."""
    rows = cohort(40, 4)
    repeated = [row for row in rows for _ in range(10)]
    once, often = compare_scores(rows), compare_scores(repeated)
    assert often.patients == 40
    assert often.kappa == once.kappa
    assert often.discrimination.auc == once.discrimination.auc


@pytest.mark.parametrize("weights", ["quadratic", "linear"])
def test_intervals_cover_the_true_kappa_as_often_as_they_say(weights):
    """Cohorts of 62 scans of 50 patients, 12 of them with a second scan that differs from the first by chance only."""
    true = float(weighted_kappa(TRUE_TABLE, weights))
    random = np.random.default_rng(5)
    covered = 0
    patient = np.r_[np.arange(50), np.arange(12)]
    for _ in range(200):
        cells = random.choice(36, 50, p=TRUE_TABLE.ravel() / TRUE_TABLE.sum())
        # Half of the second scans have both scores of the first.
        others = random.choice(36, 12, p=TRUE_TABLE.ravel() / TRUE_TABLE.sum())
        again = np.where(random.random(12) < 0.5, cells[:12], others)
        first, second = np.divmod(np.r_[cells, again], 6)
        interval = kappas(first, second, patient, Settings(draws=500))[weights]
        covered += interval.low <= true <= interval.high
    # Three standard errors of 200 simulations are 4.6 %.
    assert covered / 200 == pytest.approx(0.95, abs=0.046)


def test_perfect_agreement_and_two_patients_have_no_interval():
    result = compare_scores(rows_of([1, 2, 3, 4, 5], [2.5, 15, 37.5, 62.5, 87.5]))
    assert (result.kappa["quadratic"].value, result.equal) == (1.0, 100.0)
    assert np.isnan(result.kappa["quadratic"].low)
    assert result.next_study.kappa_quadratic is None
    assert np.isnan(compare_scores(cohort(6, 0, [0, 0, 0, 1, 1, 1])).kappa["linear"].low)


def test_detection_limit_decides_the_computed_score_0():
    rows = rows_of([0, 0, 1, 3], [1.0, 2.0, 4.0, 30.0])
    assert [row["computed_score"] for row in study(rows).rows] == [1, 1, 1, 3]
    limited = study(rows, comparison=Settings(detection_limit=2.0))
    assert [row["computed_score"] for row in limited.rows] == [0, 0, 1, 3]
    assert limited.agreement.equal == 100


def test_scans_with_empty_masks_are_left_out_of_the_comparison():
    rows = cohort(20, 6)
    result = compare_scores([*rows, {**rows[0], "lung_involvement": float("nan")}])
    assert repr(result) == repr(compare_scores(rows))
    with pytest.raises(UsageError, match="masks are empty"):
        compare_scores([{**rows[0], "lung_involvement": float("nan")}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detection_limit": 5.0}, "detection limit of 5 %"),
        ({"draws": 20}, "100 or more draws"),
        ({"level": 100.0}, "not possible"),
        ({"half_width": 0.0}, "half width of 0"),
    ],
)
def test_impossible_settings_are_rejected(options, message):
    with pytest.raises(UsageError, match=message):
        compare_scores(cohort(20), Settings(**options))


@pytest.mark.parametrize("score", [-1, 6])
def test_scores_outside_their_range_are_rejected(score):
    with pytest.raises(UsageError, match="from 0 to 5"):
        compare_scores(rows_of([1, 2, score], [3.0, 10.0, 20.0]))


def test_patients_of_the_next_study_give_intervals_of_the_wanted_width():
    random = np.random.default_rng(7)
    cells = random.choice(36, 60, p=TRUE_TABLE.ravel() / TRUE_TABLE.sum())
    first, second = np.divmod(cells, 6)
    now = kappas(first, second, np.arange(60), Settings())["quadratic"]
    needed = for_error(60, now.error, 0.06)
    drawn = np.random.default_rng(8).choice(cells, needed)
    first, second = np.divmod(drawn, 6)
    then = kappas(first, second, np.arange(needed), Settings())["quadratic"]
    assert (then.high - then.low) / 2 == pytest.approx(0.06, rel=0.25)


def test_smallest_number_of_pairs_for_a_correlation_is_that_of_scipy():
    n = for_correlation(0.82, 0.1)
    # Pairs with exactly this correlation: the interval of scipy has the wanted half width for n, and not for n - 1.
    halves = []
    for count in (n - 1, n):
        x = np.random.default_rng(0).normal(size=count)
        noise = np.random.default_rng(1).normal(size=count)
        x, noise = (values - values.mean() for values in (x, noise))
        noise -= noise @ x / (x @ x) * x
        y = 0.82 * x / np.linalg.norm(x) + np.sqrt(1 - 0.82**2) * noise / np.linalg.norm(noise)
        interval = stats.pearsonr(x, y).confidence_interval(0.95)
        halves.append((interval.high - interval.low) / 2)
    assert halves[1] <= 0.1 < halves[0]


def test_standard_error_of_the_area_is_that_of_simulations():
    random = np.random.default_rng(9)
    # Exponential distributions, for which the formula of Hanley and McNeil is exact.
    ratio = 0.25
    areas = []
    for _ in range(2000):
        positive, negative = random.exponential(1, 40), random.exponential(ratio, 60)
        areas.append(np.mean(positive[:, None] > negative[None, :]))
    true = 1 / (1 + ratio)
    assert np.mean(areas) == pytest.approx(true, abs=0.005)
    assert hanley_mcneil(true, 40, 60) == pytest.approx(np.std(areas), rel=0.06)
    n = for_auc(true, 0.4, 0.05)
    z = stats.norm.ppf(0.975)
    assert z * hanley_mcneil(true, 0.4 * n, 0.6 * n) <= 0.05 < z * hanley_mcneil(true, 0.4 * (n - 1), 0.6 * (n - 1))


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_areas_and_errors_without_a_sample_size_have_none(value):
    assert for_auc(value, 0.5, 0.1) is None
    assert for_correlation(value if value else 1.0, 0.1) is None
    assert for_error(50, 0.0 if value == 1 else value, 0.1) is None


def test_scores_by_the_mixture_of_other_patients_are_compared_too():
    rows = cohort(30, 10)
    others = {row["case"]: (row["lung_involvement"] + 30, row["lung_involvement"]) for row in rows}
    result = study(rows, by_others=others)
    assert result.by_others.agreement.equal < result.agreement.equal
    assert all(row["computed_score_by_others"] >= row["computed_score"] for row in result.rows)


@pytest.mark.parametrize("scores", [[0, 1, 2, 3, 4, 5], [0, 1, 2, 1, 2, 0]])
def test_figure_shows_every_scan_and_curves_where_they_exist(scores):
    rows = rows_of(scores, [8, 12, 15, 40, 60, 80])
    figure = score_agreement_figure(compare_scores(rows), rows)
    table, difference, roc, precision = figure.axes
    assert sum(int(text.get_text()) for text in table.texts if text.get_text().isdigit()) == 6
    assert len(difference.collections[0].get_offsets()) == 6
    has_curves = max(scores) >= 3
    assert [len(axes.lines) > 1 for axes in (roc, precision)] == [has_curves] * 2
    assert any("no curve" in text.get_text() for text in roc.texts) != has_curves
