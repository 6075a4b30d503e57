"""Agreement of computed severity scores with a reader's, against scipy and plain formulas."""

import numpy as np
import pytest
from scipy import stats

from lungmix.analysis.case_table import join_table, read_case_table
from lungmix.analysis.severity_agreement import compare_with_reader
from lungmix.errors import UsageError

CASES = [f"case-{k:03d}" for k in range(40)]


def rows_of(computed, score="score_24"):
    others = dict.fromkeys(("score", "score_24", "score_25"), float("nan"))
    return [{"case": name, **others, score: value} for name, value in zip(CASES, computed, strict=True)]


def table_of(tmp_path, column, values):
    path = tmp_path / "scores.csv"
    lines = [f"{name},{value}" for name, value in zip(CASES, values, strict=True)]
    path.write_text("\n".join([f"case,{column}", *lines]) + "\n")
    table = read_case_table(path)
    return table, join_table(CASES, table)


def compared(tmp_path, computed, column, values, patients=None, score="score_24", **options):
    table, joined = table_of(tmp_path, column, values)
    return compare_with_reader(rows_of(computed, score), table, joined, patients or {}, draws=400, **options)[0]


def simulated(seed=0):
    random = np.random.default_rng(seed)
    true = random.uniform(0, 24, len(CASES))
    computed, read = (np.clip(np.rint(true + shift + random.normal(0, 2, len(CASES))), 0, 24) for shift in (1, 0))
    return computed.astype(int), read.astype(int)


@pytest.mark.parametrize("column", ["S24", "score_24", "Score24"])
def test_values_are_those_of_their_definitions(tmp_path, column):
    computed, read = simulated()
    (row,) = compared(tmp_path, computed, column, read)
    assert (row["score"], row["scans"], row["patients"]) == ("score_24", 40, 40)
    assert row["correlation"] == pytest.approx(stats.pearsonr(computed, read).statistic)
    difference = computed - read
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["lower_limit"] == pytest.approx(difference.mean() - 1.96 * difference.std(ddof=1))
    assert row["upper_limit"] == pytest.approx(difference.mean() + 1.96 * difference.std(ddof=1))
    # ICC(A,1) from the mean squares of rows, columns and residuals.
    table = np.stack([computed, read], axis=1).astype(float)
    grand = table.mean()
    rows = 2 * ((table.mean(axis=1) - grand) ** 2).sum() / 39
    columns = 40 * ((table.mean(axis=0) - grand) ** 2).sum()
    residual = ((table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + grand) ** 2).sum() / 39
    assert row["icc"] == pytest.approx((rows - residual) / (rows + residual + 2 * (columns - residual) / 40))
    for name in ("icc", "correlation", "difference", "lower_limit", "upper_limit"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_scans_of_one_patient_are_drawn_together(tmp_path):
    computed, read = simulated(3)
    alone = compared(tmp_path, computed, "S24", read)[0]
    # Each patient has the same scan twice, so that 40 scans tell no more than 20.
    twice = [np.repeat(values[:20], 2) for values in (computed, read)]
    patients = {name: f"patient-{k // 2}" for k, name in enumerate(CASES)}
    paired = compared(tmp_path, twice[0], "S24", twice[1], patients)[0]
    assert (alone["patients"], paired["patients"]) == (40, 20)
    unpaired = compared(tmp_path, twice[0], "S24", twice[1])[0]
    width = [row["difference_high"] - row["difference_low"] for row in (paired, unpaired)]
    assert width[0] > 1.2 * width[1]
    assert paired["difference"] == unpaired["difference"]


def test_cells_without_a_score_and_cases_without_zones_are_left_out(tmp_path):
    computed, read = simulated()
    values, texts = [float("nan"), *computed[1:]], [*map(str, read)]
    texts[5] = "n/a"
    (row,) = compared(tmp_path, values, "S24", texts)
    kept = [k for k in range(40) if k not in (0, 5)]
    assert row["scans"] == 38
    assert row["difference"] == pytest.approx((computed[kept] - read[kept]).mean())


def test_equal_scores_agree_perfectly(tmp_path):
    computed, _ = simulated()
    (row,) = compared(tmp_path, computed, "S24", computed)
    assert row["icc"] == pytest.approx(1)
    assert row["difference"] == row["lower_limit"] == row["upper_limit"] == 0
    assert np.isnan(row["difference_low"])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("S24", [1, 25, *[1] * 38], "the score of .*case-001.* is .*25.*: scores are numbers from 0 to 24"),
        ("S24", [1, "much", *[1] * 38], "the score of .*case-001.* is .*much.*: scores are numbers from 0 to 24"),
        ("S25", [1] * 40, "0 scans with a score S25 and a computed one"),
        ("age", [1] * 40, "it needs S, S24 or S25"),
    ],
)
def test_tables_that_cannot_be_compared_are_errors(tmp_path, column, values, message):
    with pytest.raises(UsageError, match=message):
        compared(tmp_path, simulated()[0], column, values)


def test_each_reader_and_each_score_is_compared_by_itself(tmp_path):
    computed, anna = simulated()
    ben = np.clip(anna + 3, 0, 24)
    path = tmp_path / "scores.csv"
    lines = [f"{name},1,{a},{b},7" for name, a, b in zip(CASES, anna, ben, strict=True)]
    path.write_text("\n".join(["case,S,S24_anna,Score_24 Ben,S_24", *lines]) + "\n")
    table = read_case_table(path)
    rows, notes = compare_with_reader(rows_of(computed), table, join_table(CASES, table), {}, draws=400)
    assert [(row["score"], row["reader"]) for row in rows] == [("score_24", "anna"), ("score_24", "Ben")]
    assert rows[0]["difference"] == pytest.approx((computed - anna).mean())
    assert rows[1]["difference"] == pytest.approx((computed - ben).mean())
    # There is no computed S in these rows, so that column cannot be compared; a column of totals is no reader.
    (note,) = notes
    assert note.startswith("0 scans with a score ")
    assert "S24" not in note
