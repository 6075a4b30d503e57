"""Scores and lung involvement: cohorts of known correlation, and tables of scores as people write them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lungmix.analysis.score_table import join_scores, patients_of_scans, read_scores
from lungmix.analysis.scores import line_through, pearson, resample, study
from lungmix.errors import UsageError, redact, reveal
from lungmix.store.patients import PatientScan
from lungmix.webpage.score_figure import score_figure

numbers = st.floats(-1000, 1000).map(lambda x: round(x, 3))


def cohort(n, seed=0, noise=8.0):
    """Return rows whose scores increase with the lung involvement; most scores are 2 or 3, as in the publication."""
    random = np.random.default_rng(seed)
    involvement = np.clip(random.normal(28, 17, n), 0.5, 95)
    noisy = np.clip(involvement + random.normal(0, noise, n), 0, 100)
    scores = np.searchsorted([0, 5, 25, 50, 75], noisy, side="left")
    return [
        {"case": f"case-{i:03d}", "patient": f"p{i:03d}", "score": int(s), "lung_involvement": float(x)}
        for i, (s, x) in enumerate(zip(scores, involvement, strict=True))
    ]


def moments(x, y):
    """Return the sums of squares of x and of y and of their products, about their means, as exact fractions."""
    x, y = ([Fraction(value) for value in values] for values in (x, y))
    dx, dy = ([value - sum(values) / len(values) for value in values] for values in (x, y))
    return sum(d * d for d in dx), sum(d * d for d in dy), sum(a * b for a, b in zip(dx, dy, strict=True))


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=40), st.sampled_from([80.0, 95.0, 99.0]))
def test_correlation_is_that_of_the_textbook(pairs, level):
    x, y = np.array(pairs).T
    correlation, n = pearson(x, y, level), len(x)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(correlation.c)
        return
    xx, yy, xy = moments(x, y)
    c = float(xy) / math.sqrt(xx * yy)
    assert correlation.c == pytest.approx(c, abs=1e-9)
    if abs(c) > 1 - 1e-9:
        return
    t = c * math.sqrt((n - 2) / ((1 - c) * (1 + c)))
    assert correlation.p == pytest.approx(2 * stats.t.sf(abs(t), n - 2), rel=1e-5, abs=1e-12)
    if n == 3:
        assert np.isnan([correlation.low, correlation.high]).all()
        return
    # Fisher 1915: the inverse hyperbolic tangent of c is approximately normal with standard error 1 / sqrt(n - 3).
    half_width = stats.norm.ppf(0.5 + level / 200) / math.sqrt(n - 3)
    interval = [math.tanh(math.atanh(c) + sign * half_width) for sign in (-1, 1)]
    assert [correlation.low, correlation.high] == pytest.approx(interval, abs=1e-6)


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=40))
def test_line_is_that_of_the_normal_equations(pairs):
    x, y = np.array(pairs).T
    if np.ptp(x) < 0.01 or np.ptp(y) < 0.01:
        return
    xx, yy, xy = moments(x, y)
    line, slope = line_through(x, y), float(xy / xx)
    assert line.slope == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert line.intercept == pytest.approx(y.mean() - slope * x.mean(), rel=1e-6, abs=1e-6)
    assert line.r2 == pytest.approx(float(xy * xy / (xx * yy)), abs=1e-6)


@pytest.mark.parametrize("true", [0.0, 0.5, 0.82])
def test_intervals_cover_the_true_correlation_as_often_as_they_say(true):
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(2000):
        x, y = random.multivariate_normal([0, 0], [[1, true], [true, 1]], 62).T
        correlation = pearson(x, y, 95)
        covered += correlation.low <= true <= correlation.high
    # Three standard errors of 2,000 draws are 1.5 %.
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_p_value_is_below_5_percent_in_5_percent_of_cohorts_without_correlation():
    random = np.random.default_rng(2)
    below = [pearson(*random.normal(size=(2, 30))).p < 0.05 for _ in range(2000)]
    assert np.mean(below) == pytest.approx(0.05, abs=0.015)


def test_equal_draws_raise_the_correlation_and_proportional_draws_keep_it():
    result = study(cohort(62, 3))
    proportional, equal = result.resamplings
    assert proportional.c_mean == pytest.approx(result.all.c, abs=0.02)
    assert equal.c_mean > result.all.c
    assert proportional.times == equal.times == 100
    assert 0 < proportional.c_sd < 0.05
    groups = {group["score"]: group["scans"] for group in result.groups}
    assert proportional.scans == sum(max(round(0.8 * n), 1) for n in groups.values() if n)


def test_draws_of_all_scans_equal_the_cohort():
    rows = cohort(40, 4)
    result = study(rows, fraction=1.0).resamplings[0]
    assert (result.c_sd, result.r2_sd) == (pytest.approx(0, abs=1e-12),) * 2
    assert result.r2_mean == pytest.approx(result.c_mean**2)
    assert np.isnan(result.r2_rest_mean)


def test_a_seed_decides_the_draws():
    x, s = np.arange(30.0), np.arange(30) // 6
    assert resample(x, s, seed=1) == resample(x, s, seed=1)
    assert resample(x, s, seed=1) != resample(x, s, seed=2)


def test_first_scans_of_patients_are_correlated_separately():
    rows = [{**row, "patient": f"p{i // 2}"} for i, row in enumerate(cohort(20, 5))]
    result = study(rows)
    assert (result.all.n, result.first.n, result.patients) == (20, 10, 10)
    x, s = ([row[key] for row in rows[::2]] for key in ("lung_involvement", "score"))
    assert result.first.c == pytest.approx(stats.pearsonr(x, s).statistic)
    assert study(cohort(20, 5)).first is None


def test_groups_have_the_five_numbers_of_a_box():
    rows = cohort(62, 6)
    for group in study(rows).groups:
        involvement = [row["lung_involvement"] for row in rows if row["score"] == group["score"]]
        assert group["scans"] == len(involvement)
        if involvement:
            assert [group[k] for k in ("minimum", "lower", "median", "upper", "maximum")] == pytest.approx(
                np.percentile(involvement, [0, 25, 50, 75, 100])
            )


def test_figure_shows_boxes_and_points():
    figure = score_figure(study(cohort(62, 7)))
    left, right = figure.axes
    assert len(right.collections[0].get_offsets()) == 62
    assert "C = " in right.texts[0].get_text()
    assert [text.get_text().split("\n")[0] for text in left.get_xticklabels()] == list("012345")


@pytest.mark.parametrize(
    ("rows", "message"), [(cohort(2), "needs 3"), ([{**row, "score": 2} for row in cohort(9)], "all 9 scans")]
)
def test_study_of_too_few_or_equal_scores_is_rejected(rows, message):
    with pytest.raises(UsageError, match=message):
        study(rows)


@pytest.mark.parametrize("options", [{"resamplings": 1}, {"fraction": 0.0}, {"fraction": 1.5}, {"draw": "some"}])
def test_impossible_draws_are_rejected(options):
    with pytest.raises(UsageError, match="not possible"):
        resample(np.arange(9.0), np.arange(9) // 3, **options)


def written(tmp_path, text):
    path = tmp_path / "scores.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


MEASURED = [{"case": f"p{i}{more}", "lung_involvement": 10.0 * i} for i in range(1, 5) for more in ("", "-2")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_scores_are_read_with_any_separator_and_further_columns(tmp_path, separator):
    text = "\ufeffCase,S,age\n\n p1 ,3,50\np2,0,61\n".replace(",", separator)
    scores = read_scores(written(tmp_path, text))
    rows, unscored, unmeasured = join_scores(MEASURED, scores)
    assert [(row["case"], row["score"], row["age"]) for row in rows] == [("p1", 3, "50"), ("p2", 0, "61")]
    assert unscored == ["p1-2", "p2-2", "p3", "p3-2", "p4", "p4-2"]
    assert unmeasured == []


@pytest.mark.parametrize("text", ["case;S\r\np1;3,0\r\n", "sep=;\ncase;S\np1;3\n", "case\tS\rp1\t3\r"])
def test_scores_are_read_as_spreadsheets_save_them(tmp_path, text):
    scores = read_scores(written(tmp_path, text.encode("utf-16")))
    assert [(row["case"], row["score"]) for row in scores.rows] == [("p1", 3)]


def test_line_of_a_patient_scores_all_scans_without_a_line_of_their_own(tmp_path):
    text = "patient,case,S\np1,,3\np2,p2-2,1\nP3,,2\np33,,5\n"
    rows, unscored, unmeasured = join_scores(MEASURED, read_scores(written(tmp_path, text)))
    assert [(row["case"], row["patient"], row["score"]) for row in rows] == [
        ("p1", "p1", 3), ("p1-2", "p1", 3), ("p2-2", "p2", 1), ("p3", "P3", 2), ("p3-2", "P3", 2),
    ]  # fmt: skip
    assert unscored == ["p2", "p4", "p4-2"]
    assert [reveal(text) for text in unmeasured] == ["line 5 (p33)"]


def test_recorded_patients_count_where_the_table_names_none(tmp_path):
    recorded = {
        "patient-001": (PatientScan("p1-2", 0), PatientScan("p1", 9)),
        "patient-002": (PatientScan("p2"), PatientScan("p2-2")),
    }
    text = "case,patient,S\np1,,3\np1-2,,1\np2,Rossi,0\np2-2,Rossi,2\np3,,4\n"
    rows, _, _ = join_scores(MEASURED, read_scores(written(tmp_path, text)), recorded=recorded)
    # The first scan of patient-001 is p1-2, by the store.
    assert [(row["case"], row["patient"]) for row in rows] == [
        ("p1-2", "patient-001"), ("p1", "patient-001"), ("p2", "Rossi"), ("p2-2", "Rossi"), ("p3", "p3"),
    ]  # fmt: skip
    result = study(rows, resamplings=10)
    assert (result.patients, result.first.n) == (3, 3)
    # Scans without a score are left out with the others of their patient, too.
    recorded = {"patient-003": (PatientScan("p3"), PatientScan("p3-2")), "patient-004": (PatientScan("p4"),)}
    assert patients_of_scans([{"case": "p3", "patient": "Verdi"}], recorded) == {"p3": "Verdi", "p3-2": "Verdi"}
    alone, _, _ = join_scores(MEASURED, read_scores(written(tmp_path, text)))
    assert study(alone, resamplings=10).patients == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no scores"),
        ("case,S\n", "no scores"),
        ("name,S\np1,3\n", "columns name, S"),
        ("case,severity\np1,3\n", "S or score"),
        ("case,S\np1,6\n", "line 2: the score of p1 is 6"),
        ("case,S\np1,2.5\n", "whole numbers from 0 to 5"),
        ("case,S\np1,nan\n", "whole numbers"),
        ("case,S\np1,\n", "is missing"),
        ("case,S\n\np1,3\np1,4\n", "line 4: p1 has a score in line 3"),
        ("case,S\np1,3,4\n", "line 2: 3 cells in a table of 2 columns"),
        ("case,S\n,3\n", "no case or patient is named"),
        (b"case,S\n\xff\xfe,3\n", "UTF-8"),
        ('case,S\n"p1,3\np2,4\n', "check its quotes"),
        ("case,S\nother,3\n", "names other, and the cohort has p1"),
    ],
)
def test_invalid_files_are_rejected_with_line_and_remedy(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        join_scores(MEASURED, read_scores(written(tmp_path, text)))


def test_missing_file_and_missing_involvement_are_explained(tmp_path):
    with pytest.raises(UsageError, match=r"none\.csv cannot be read"):
        read_scores(tmp_path / "none.csv")
    scores = read_scores(written(tmp_path, "case,S\np1,3\n"))
    with pytest.raises(UsageError, match="five tissues"):
        join_scores([{"case": "p1", "component_1": 3.0}], scores)
    with pytest.raises(UsageError, match=r"Pipeline\.measure"):
        join_scores([], scores)


KEY = {
    "case-001": {"path": "/data/Rossi/first.nii.gz", "patient_id": "4711", "patient_name": "Rossi^Maria"},
    "case-002": {"path": "/data/Rossi/second.nii.gz", "patient_id": "4711", "patient_name": "Rossi^Maria"},
    "case-003": {"path": "/data/Doe", "patient_id": "", "patient_name": "Doe^John"},
    "case-004": {"path": "/data/0815.nrrd", "patient_id": "", "patient_name": ""},
}
NUMBERED = [{"case": name, "lung_involvement": 10.0 * i} for i, name in enumerate(KEY, start=1)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("patient,S\n4711,3\nDoe John,1\n", {"case-001": 3, "case-002": 3, "case-003": 1}),
        ("patient,S\nROSSI^MARIA,2\n", {"case-001": 2, "case-002": 2}),
        ("case,S\nfirst,1\nsecond.nii.gz,4\ndoe,5\n0815,0\n",
         {"case-001": 1, "case-002": 4, "case-003": 5, "case-004": 0}),
        ("case,S\ncase-002,4\n", {"case-002": 4}),
        ("patient,S\n0815,3\n", {"case-004": 3}),
    ],
)  # fmt: skip
def test_scores_by_name_find_their_case_through_the_key_table(tmp_path, text, expected):
    rows, _, unmeasured = join_scores(NUMBERED, read_scores(written(tmp_path, text)), KEY)
    assert {row["case"]: row["score"] for row in rows} == expected
    assert unmeasured == []


def test_joined_rows_contain_no_name_of_the_key_table(tmp_path):
    text = "patient,S,ward\n4711,3,Bianchi\nDoe^John,1,Bianchi\nNeri^Anna,2,Bianchi\n"
    rows, unscored, unmeasured = join_scores(NUMBERED, read_scores(written(tmp_path, text)), KEY)
    assert [set(row) for row in rows] == [{"case", "patient", "score", "lung_involvement"}] * 3
    assert [row["patient"] for row in rows] == ["patient-001", "patient-001", "patient-002"]
    assert unscored == ["case-004"]
    assert [redact(text) for text in unmeasured] == ["line 4 (...)"]


def test_errors_of_a_file_of_scores_contain_none_of_its_names(tmp_path):
    for text in ("case,S\nRossi,7\n", "case,S\nRossi,Rossi\n", "case,S\nRossi,1\nrossi,2\n", "Rossi,S\n1,1\n",
                 "case,S\nRossi,1\n"):  # fmt: skip
        path = tmp_path / "Rossi.csv"
        path.write_text(text)
        with pytest.raises(UsageError) as caught:
            join_scores(NUMBERED, read_scores(path))
        assert "Rossi" in str(caught.value)
        assert "rossi" not in caught.value.redacted_message.lower()


def test_coefficient_of_draws_of_two_scans_is_one():
    drawn = resample(np.array([1.0, 20.0, 30.0]), np.array([0, 1, 1]), draw="equal", resamplings=5, fraction=0.5)
    assert (drawn.scans, drawn.c_mean, drawn.c_sd) == (2, 1.0, 0.0)


def test_nearly_constant_values_are_correlated_without_a_warning(recwarn):
    pearson([1.0, 1.0, 1.0, 1.0 + 1e-15], [0.0, 1.0, 2.0, 3.0])
    assert not recwarn.list
