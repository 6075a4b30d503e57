"""Table of characteristics: counts, percentages and summaries equal plain loops over the scans."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.analysis.characteristics import (
    MEAN,
    MEDIAN,
    MISSING,
    PATIENTS,
    PERCENT,
    SCANS,
    Characteristic,
    summary_of,
    table_rows,
)
from lungmix.errors import UsageError


@st.composite
def cohorts(draw):
    """Draw the patient, group and values of scans; some values are missing."""
    n = draw(st.integers(1, 25))
    lists = {
        "patient": st.integers(1, 8),
        "group": st.sampled_from("abc"),
        "text": st.sampled_from(["f", "m", None]),
        "number": st.none() | st.just(float("nan")) | st.integers(-20, 20).map(lambda x: x / 4),
    }
    return {name: draw(st.lists(values, min_size=n, max_size=n)) for name, values in lists.items()}


def is_missing(value):
    return value is None or value != value


@given(cohorts(), st.sampled_from([PATIENTS, SCANS]))
def test_rows_equal_counts_in_loops(cohort, of):
    cases = [f"case-{n}" for n in range(len(cohort["patient"]))]
    patients = dict(zip(cases, cohort["patient"], strict=True))
    groups = [[case for case, group in zip(cases, cohort["group"], strict=True) if group == name] for name in "abc"]
    text = Characteristic("sex", "Sex", of, dict(zip(cases, cohort["text"], strict=True)), ("f", "m"))
    number = Characteristic("age", "Age", of, dict(zip(cases, cohort["number"], strict=True)))
    rows = table_rows([text, number], [cases, *groups], patients, "median")
    for column, names in enumerate([cases, *groups]):
        assert rows[0].cells[column].n == len({patients[name] for name in names})
        assert rows[1].cells[column].n == len(names)
        for characteristic in (text, number):
            values = {}
            for position, name in enumerate(names):
                member = patients[name] if of == PATIENTS else position
                if is_missing(values.get(member)):
                    values[member] = characteristic.values[name]
            present = [value for value in values.values() if not is_missing(value)]
            by_kind = {(row.kind, row.level): row.cells[column] for row in rows if row.key == characteristic.key}
            if (MISSING, "") in by_kind:
                assert by_kind[MISSING, ""].n == len(values) - len(present)
            else:
                assert len(values) == len(present)
            if characteristic is text:
                for level, count in Counter(present).items():
                    assert by_kind[PERCENT, level].n == count
                    assert by_kind[PERCENT, level].percent == pytest.approx(100 * count / len(present))
            elif present:
                cell = by_kind[MEDIAN, ""]
                quartiles = np.percentile(present, [25, 50, 75])
                assert (cell.n, cell.low, cell.value, cell.high) == (len(present), *quartiles)
            else:
                assert by_kind[MEDIAN, ""].n == 0


def test_patients_with_several_scans_have_a_row_if_there_are_any():
    patients = {"a": 1, "b": 1, "c": 2}
    rows = table_rows([], [["a", "b", "c"], ["a", "c"], ["b"]], patients)
    assert [(row.title, [cell.n for cell in row.cells]) for row in rows] == [
        ("Patients", [2, 2, 1]), ("Scans", [3, 2, 1]), ("Patients with several scans", [1, 0, 0]),
    ]  # fmt: skip
    assert len(table_rows([], [["a", "c"]], patients)) == 2


def test_mean_is_given_for_many_values_that_are_not_skewed():
    random = np.random.default_rng(0)
    even, skewed = random.normal(size=40), random.exponential(size=200)
    assert summary_of([even]) == MEAN
    assert summary_of([skewed]) == MEDIAN
    assert summary_of([even[:19]]) == MEDIAN
    # Groups that are apart do not make a skewed distribution.
    assert summary_of([even[:35], even[35:] + 50]) == MEAN
    assert summary_of([[1.0] * 40]) == summary_of([[]]) == summary_of([]) == MEDIAN


def test_all_columns_of_a_row_have_the_summary_that_the_user_gives():
    cases = [f"{n}" for n in range(6)]
    age = Characteristic("age", "Age", PATIENTS, {case: float(10 * n) for n, case in enumerate(cases)})
    patients = {case: n for n, case in enumerate(cases)}
    (*_, row) = table_rows([age], [cases, cases[:1]], patients, "mean")
    assert (row.kind, row.cells[0].value) == (MEAN, 25.0)
    assert row.cells[0].sd == pytest.approx(np.std([0, 10, 20, 30, 40, 50], ddof=1))
    assert np.isnan(row.cells[1].sd)
    with pytest.raises(UsageError, match="choose from auto, median, mean"):
        table_rows([age], [cases], patients, "mode")
