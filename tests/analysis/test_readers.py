"""Several readers: tables in both forms, consensus, kappa of pairs, intraclass correlation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lungmix.analysis.consensus import Reading, consensus_of
from lungmix.analysis.patient_bootstrap import estimate
from lungmix.analysis.readers import compare_readers, rows_of
from lungmix.analysis.reliability import variance_components
from lungmix.analysis.score_agreement import Settings, kappas
from lungmix.analysis.score_table import consensus_in_results, join_scores, read_scores, readings_in_results
from lungmix.analysis.scores import pearson, study
from lungmix.errors import UsageError
from lungmix.kernels.reliability import intraclass_correlations
from lungmix.webpage.readers_figure import readers_figure

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)
"""Ratings of 6 targets by 4 judges, table 2 of Shrout and Fleiss 1979."""

MEASURED = [{"case": f"p{i}", "lung_involvement": 10.0 * i} for i in range(1, 6)]

LONG = """case,reader,S,age
p1,anna,1,50
p1,ben,2,50
p2,anna,2,61
p2,Ben,2,61
p2,carla,3,61
p3,ben,4,62
p4,anna,3,63
p4,carla,1,63
"""
WIDE = """case;S_anna;score ben;S: carla;age
p1;1;2;;50
p2;2;2;3;61
p3;;4;;62
p4;3;;1;63
p5;;;;70
"""


def read(tmp_path, text):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    return read_scores(path)


@pytest.mark.parametrize("text", [LONG, WIDE])
def test_both_forms_have_the_same_scores_and_consensus(tmp_path, text):
    scores = read(tmp_path, text)
    rows, unscored, unmeasured = join_scores(MEASURED, scores)
    columns = ("case", "score", "score_anna", "score_ben", "score_carla", "age")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("p1", 2, 1, 2, None, "50"), ("p2", 2, 2, 2, 3, "61"), ("p3", 4, None, 4, None, "62"),
        ("p4", 2, 3, None, 1, "63"),
    ]  # fmt: skip
    assert [set(row) for row in rows] == [{*columns, "patient", "lung_involvement"}] * 4
    assert unscored == ["p5"]
    assert unmeasured == []


def test_times_distinguish_readings_and_the_first_counts(tmp_path):
    text = "case,time,reader,S\np1,before,anna,1\np1,after,anna,5\np1,before,ben,1\np2,after,anna,2\np2,before,ben,4\n"
    scores = read(tmp_path, text)
    assert [(reading.label, reading.is_first) for reading in scores.readings] == [
        ("anna before", True), ("anna after", False), ("ben", True),
    ]  # fmt: skip
    rows, _, _ = join_scores(MEASURED, scores)
    assert [(row["case"], row["score"], row["score_anna after"]) for row in rows] == [("p1", 1, 5), ("p2", 4, 2)]
    rows, _, _ = join_scores(MEASURED, scores, consensus="Anna After")
    assert [row["score"] for row in rows] == [5, 2]


def test_times_alone_are_readings_of_one_reader(tmp_path):
    scores = read(tmp_path, "case,session,S\np1,1,1\np1,2,3\np2,1,2\n")
    assert [reading.label for reading in scores.readings] == ["time 1", "time 2"]


def test_columns_of_readers_are_copied_if_each_case_has_one_line(tmp_path):
    scores = read(tmp_path, "reader,case,S,time\nanna,p1,1,monday\nben,p2,3,monday\n")
    assert scores.readings == []
    rows, _, _ = join_scores(MEASURED, scores)
    assert [(row["score"], row["reader"], row["time"]) for row in rows] == [(1, "anna", "monday"), (3, "ben", "monday")]


def test_lines_of_patients_score_all_scans_for_each_reader(tmp_path):
    measured = [{"case": name, "lung_involvement": 1.0} for name in ("p1", "p1-2", "p2")]
    rows, _, _ = join_scores(measured, read(tmp_path, "patient,S_a,S_b\np1,1,2\np2,3,3\n"))
    assert [(row["case"], row["patient"], row["score_a"], row["score_b"]) for row in rows] == [
        ("p1", "p1", 1, 2), ("p1-2", "p1", 1, 2), ("p2", "p2", 3, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,reader,S\np1,anna,1\np1,anna,2\n", "line 3: p1 has a score in line 2 .* different times"),
        ("case,reader,S\np1,anna,1\np1,,2\n", "line 3: no reader is named"),
        ("case,reader,S\np1,anna,1\np1,ben,\n", "is missing"),
        ("case,S_anna,S_ben\np1,7,2\n", "the score of p1 is 7"),
        ("case,S_anna,S_Anna\np1,1,2\n", "has a score in line 2 already"),
        ("case,S_median,S_ben\np1,1,2\n", "rename the reader"),
        ("case,reader,time,S\np1,a 1,,1\np1,a,1,2\np1,a,2,2\n", "rename the reader"),
        # The times may be those of two scans of the patient.
        ("patient,time,S\np1,before,1\np1,after,2\n", "name the case of each scan"),
        ("patient,reader,time,S\np1,anna,before,1\np1,anna,after,2\n", "name the case of each scan"),
    ],
)
def test_tables_whose_readings_are_unclear_are_rejected(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_totals_of_zones_and_lobes_are_no_readers(tmp_path):
    scores = read(tmp_path, "case,S_anna,S_ben,score_24,S_25\np1,1,2,12,4\np2,3,3,2,20\n")
    assert [reading.label for reading in scores.readings] == ["anna", "ben"]
    rows, _, _ = join_scores(MEASURED, scores)
    assert (rows[0]["score_24"], rows[0]["S_25"]) == ("12", "4")


def test_unknown_consensus_is_rejected(tmp_path):
    with pytest.raises(UsageError, match=r"consensus dora is unknown: .* the table has anna"):
        join_scores(MEASURED, read(tmp_path, LONG), consensus="dora")
    with pytest.raises(UsageError, match="one reader only"):
        join_scores(MEASURED, read(tmp_path, "case,S\np1,3\n"), consensus="anna")


def test_readers_have_numbers_with_a_key_table(tmp_path):
    key = {f"case-{i}": {"path": f"/data/p{i}", "patient_id": "", "patient_name": ""} for i in range(1, 6)}
    measured = [{"case": name, "lung_involvement": 3.0} for name in key]
    scores = read(tmp_path, LONG.replace("ben,2,50", "ben,2,50\np1,ben,4,50").replace("ben,4,50", "Anna,4,50", 1)
                  .replace("reader", "reader,time").replace("anna,", "anna,1,").replace("Anna,", "Anna,2,")
                  .replace("ben,", "ben,1,").replace("Ben,", "Ben,1,").replace("carla,", "carla,1,"))  # fmt: skip
    rows, _, _ = join_scores(measured, scores, key)
    labels = ["reader-1", "reader-1 time-2", "reader-2", "reader-3"]
    assert [reading.label for reading in readings_in_results(scores, key)] == labels
    assert set(rows[0]) == {"case", "patient", "score", "lung_involvement", *(f"score_{label}" for label in labels)}
    assert consensus_in_results(scores, "ben", key) == "reader-2"
    assert consensus_in_results(scores, "Median", key) == "median"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=7))
def test_median_and_majority_are_those_of_the_definition(values):
    scores = {Reading(str(i), str(i), True): value for i, value in enumerate(values)}
    median = consensus_of(scores, "median")
    assert sum(value <= median for value in values) * 2 >= len(values)
    assert median == int(np.ceil(np.median(values)))
    counts = np.bincount(values, minlength=6)
    is_clear = (counts == counts.max()).sum() == 1
    assert consensus_of(scores, "majority") == (int(counts.argmax()) if is_clear else median)


def simulated(n, seed, missing=0.0, sds=(6, 8, 12)):
    """Return rows of scans with the scores of three readers, of whom each scores the scans with an error of its own."""
    random = np.random.default_rng(seed)
    involvement = np.clip(random.normal(28, 17, n), 0.5, 95)
    rows = []
    for i, value in enumerate(involvement):
        row = {"case": f"case-{i}", "patient": f"p{i % 50}", "lung_involvement": value}
        for reader, sd in zip("abc", sds, strict=True):
            noisy = np.clip(value + random.normal(0, sd), 0, 100)
            score = int(np.searchsorted([0, 5, 25, 50, 75], noisy))
            row[f"score_{reader}"] = None if random.random() < missing else score
        given_scores = [row[f"score_{reader}"] for reader in "abc" if row[f"score_{reader}"] is not None]
        if given_scores:
            rows.append({**row, "score": int(np.ceil(np.median(given_scores)))})
    return rows


READINGS = [Reading(label, label, True) for label in "abc"]


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_kappa_of_pairs_equals_that_of_scikit_learn(missing):
    result = study(simulated(62, 1, missing), comparison=Settings(draws=0), readings=READINGS)
    pairs = {(row["first"], row["second"]): row for row in rows_of(result.readers)}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c"), *((x, "computed") for x in ("a", "b", "c", "consensus"))]
    columns = {x: f"score_{x}" for x in "abc"} | {"computed": "computed_score", "consensus": "score"}
    for (first, second), pair in pairs.items():
        scores = [(row[columns[first]], row[columns[second]]) for row in result.rows]
        a, b = zip(*(values for values in scores if None not in values), strict=True)
        assert pair["scans"] == len(a)
        for weights in ("quadratic", "linear"):
            assert pair[f"kappa_{weights}"] == pytest.approx(cohen_kappa_score(a, b, labels=range(6), weights=weights))
    assert pairs["consensus", "computed"]["kappa_linear"] == pytest.approx(result.agreement.kappa["linear"].value)


@pytest.mark.slow
def test_intervals_cover_the_true_kappas_and_correlation_of_three_readers():
    """62 scans of 50 patients, of whom 12 have a second scan a little later than the first."""
    sds = {"a": 6.0, "b": 8.0, "c": 12.0}

    def involvement_of(random, patients, scans):
        severity = random.normal(28, 17, patients)[np.arange(scans) % patients]
        return np.clip(severity + random.normal(0, 5, scans), 0.5, 95)

    def scores_of(random, involvement):
        noisy = {x: np.clip(involvement + random.normal(0, sd, len(involvement)), 0, 100) for x, sd in sds.items()}
        return {x: np.searchsorted([0, 5, 25, 50, 75], values) for x, values in noisy.items()}

    random = np.random.default_rng(11)
    many = involvement_of(random, 400_000, 400_000)
    truth = scores_of(random, many)
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    true_kappas = [cohen_kappa_score(truth[x], truth[y], labels=range(6), weights="quadratic") for x, y in pairs]
    true_correlation = np.corrcoef(many, truth["a"])[0, 1]
    patient = np.arange(62) % 50
    covered, correlations = np.zeros(3), 0
    for _ in range(200):
        involvement = involvement_of(random, 50, 62)
        scores = scores_of(random, involvement)
        for n, (x, y) in enumerate(pairs):
            kappa = kappas(scores[x], scores[y], patient, Settings(draws=300))
            covered[n] += kappa["quadratic"].low <= true_kappas[n] <= kappa["quadratic"].high
        correlation = pearson(involvement[:50], scores["a"][:50])
        correlations += correlation.low <= true_correlation <= correlation.high
    # Three standard errors of 200 simulations are 4.6 %.
    assert covered / 200 == pytest.approx(np.full(3, 0.95), abs=0.046)
    # Scores are steps, so that their correlation varies less than that of normal variables, which the interval is for.
    assert correlations / 200 > 0.904


def test_readers_without_common_scans_have_no_kappa():
    rows = [{"patient": f"p{i}", "score": i, "computed_score": i, "score_a": i if i < 3 else None,
             "score_b": None if i < 3 else i} for i in range(6)]  # fmt: skip
    result = compare_readers(rows, READINGS[:2], settings=Settings(draws=0))
    assert (result.pairs[0].scans, result.reliability) == (0, None)
    assert np.isnan(result.pairs[0].quadratic.value)


def test_mean_squares_give_the_correlations_of_shrout_and_fleiss():
    single, average = intraclass_correlations(SHROUT_FLEISS, np.ones((1, 6)))
    assert (single[0], average[0]) == (pytest.approx(0.29, abs=0.005), pytest.approx(0.62, abs=0.005))


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_weighted_scans_count_as_repeated_scans(seed):
    random = np.random.default_rng(seed)
    ratings = random.integers(0, 6, (12, 3)).astype(float)
    weights = random.integers(0, 4, 12)
    repeated = np.repeat(ratings, weights, axis=0)
    if len(repeated) < 3:
        return
    expected = intraclass_correlations(repeated, np.ones((1, len(repeated))))
    weighted = intraclass_correlations(ratings, weights[None].astype(float))
    assert np.ravel(weighted) == pytest.approx(np.ravel(expected), nan_ok=True)


def test_variance_components_equal_the_analysis_of_variance_for_complete_tables():
    pytest.importorskip("statsmodels")
    components = variance_components(SHROUT_FLEISS)
    single, average = intraclass_correlations(SHROUT_FLEISS, np.ones((1, 6)))
    assert components.single == pytest.approx(single[0], abs=1e-3)
    assert components.average(4) == pytest.approx(average[0], abs=1e-3)


def test_variance_components_of_incomplete_tables_are_near_the_true_ones():
    pytest.importorskip("statsmodels")
    random = np.random.default_rng(4)
    ratings = random.normal(0, 1, (800, 1)) + np.array([-0.5, 0, 0, 0.5]) + random.normal(0, 0.6, (800, 4))
    ratings[random.random(ratings.shape) < 0.3] = np.nan
    components = variance_components(ratings[np.isfinite(ratings).sum(axis=1) >= 2])
    assert components.scans == pytest.approx(1, abs=0.12)
    assert components.readers == pytest.approx(np.var([-0.5, 0, 0, 0.5], ddof=1), abs=0.05)
    assert components.rest == pytest.approx(0.36, abs=0.04)


def test_readers_who_agree_have_a_correlation_of_1_and_equal_scores_have_none():
    pytest.importorskip("statsmodels")
    assert variance_components(np.array([[1.0, 1], [3, 3], [4, 4]])).single == 1
    assert variance_components(np.full((4, 2), 3.0)) is None


def test_interval_of_the_correlation_covers_the_truth_in_simulations():
    """Readers are fixed here, so the true value is that of a very large cohort."""
    random = np.random.default_rng(6)
    shifts = np.array([-0.3, 0.0, 0.3])

    def ratings(n):
        return random.normal(0, 1, (n, 1)) + shifts + random.normal(0, 0.6, (n, 3))

    true = float(intraclass_correlations(ratings(400_000), np.ones((1, 400_000)))[0][0])
    covered = 0
    for _ in range(200):
        table = ratings(50)
        interval = estimate(lambda weights, table=table: intraclass_correlations(table, weights)[0], 50, draws=500)
        covered += interval.low <= true <= interval.high
    assert covered / 200 == pytest.approx(0.95, abs=0.046)


def test_reliability_has_intervals_and_counts_complete_scans():
    pytest.importorskip("statsmodels")
    rows = simulated(62, 2, 0.2)
    reliability = study(rows, readings=READINGS).readers.reliability
    n_scores = [sum(row[f"score_{x}"] is not None for x in "abc") for row in rows]
    assert (reliability.readers, reliability.scans) == (3, sum(n >= 2 for n in n_scores))
    assert reliability.complete == sum(n == 3 for n in n_scores)
    assert 0 < reliability.single.low < reliability.single.high < reliability.average.high < 1


def test_missing_statsmodels_leaves_the_correlation_out(monkeypatch):
    for module in ("readers", "reliability"):
        monkeypatch.setattr(f"lungmix.analysis.{module}.is_available", lambda: False)
    result = study(simulated(30, 3), comparison=Settings(draws=0), readings=READINGS).readers
    assert result.reliability is None
    assert result.needs_statsmodels


def test_figure_has_a_point_for_each_pair():
    result = study(simulated(40, 5), comparison=Settings(draws=100), readings=READINGS).readers
    axes = readers_figure(result).axes[0]
    assert len(axes.get_yticklabels()) == len(result.pairs) == 7
    assert axes.get_yticklabels()[-1].get_text() == "consensus and computed, n = 40"
