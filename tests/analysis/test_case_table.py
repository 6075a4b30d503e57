"""Tables of the user about cases or patients: reading, matching to cases, values of columns."""

import pytest

from lungmix.analysis.case_table import join_table, parse_column, read_case_table
from lungmix.errors import UsageError, redact, reveal


def table_of(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "patients.csv"
    file.write_bytes(text.encode(encoding))
    return read_case_table(file)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_with_any_separator_and_encoding_are_read(tmp_path, separator, encoding):
    text = "Case,Patient,Sex,Verlauf\ncase-001,p1,f,Füße\n\ncase-002,p2,,x\n".replace(",", separator)
    table = table_of(tmp_path, text, encoding)
    assert table.columns == ("Sex", "Verlauf")
    assert table.find_column("sex ") == "Sex"
    assert table.find_column("case") is None
    assert table.rows[0] == {
        "line": 2, "case": "case-001", "patient": "p1", "cells": {"Sex": "f", "Verlauf": "Füße"},
    }  # fmt: skip
    assert table.rows[1]["line"] == 4


def test_line_of_a_case_comes_before_that_of_its_patient(tmp_path):
    table = table_of(tmp_path, "case,patient,x\n,p1,1\np1-2,p1,2\n,p9,3\n")
    joined = join_table(["p1", "p1-2", "p1-3", "p2"], table)
    assert {case: cells["x"] for case, cells in joined.cells.items()} == {"p1": "1", "p1-2": "2", "p1-3": "1"}
    assert set(joined.patients.values()) == {"p1"}
    assert list(map(reveal, joined.unmatched)) == ["line 4 (p9)"]
    assert "p9" not in redact(joined.unmatched[0])


def test_key_table_matches_files_and_patients(tmp_path):
    key = {
        "case-001": {"path": "/scans/Miller.nrrd", "patient_id": "17", "patient_name": "Miller^Ann"},
        "case-002": {"path": "/scans/b", "patient_id": "18", "patient_name": ""},
    }
    table = table_of(tmp_path, "case,patient,x\nmiller.nrrd,,1\n,18,2\n")
    joined = join_table(["case-001", "case-002"], table, key)
    assert {case: cells["x"] for case, cells in joined.cells.items()} == {"case-001": "1", "case-002": "2"}


@pytest.mark.parametrize(
    ("texts", "values", "is_numeric"),
    [
        (["1", "2,5", "-3e1", "NA"], [1.0, 2.5, -30.0, None], True),
        (["", "?", "n/a", "Unknown"], [None] * 4, True),
        (["home", "Home", "ICU", "-"], ["Home", "Home", "ICU", None], False),
        (["1", "two"], ["1", "two"], False),
        (["inf", "nan"], ["inf", None], False),
    ],
)
def test_values_of_a_column_are_numbers_or_texts(texts, values, is_numeric):
    assert parse_column(zip("abcd", texts, strict=False)) == (
        dict(zip("abcd", values, strict=False)),
        is_numeric,
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no cases: it needs a header such as case,sex,age"),
        ("case,x\n", "holds no cases"),
        ("name,x\na,1\n", "it needs case or patient in its first line"),
        ("case,x\na,1,2\n", "line 2: 3 cells in a table of 2 columns"),
        ("case,x,X\na,1,2\n", "has two columns x: rename or delete one"),
        ("case,x\n,1\n", "line 2: no case or patient is named"),
        ("case,x\na,1\nA,2\n", "line 3: A is in line 2 already: keep one of the two lines"),
        ('case,x\n"a,1\n', "is not a valid CSV table"),
    ],
)
def test_invalid_tables_are_rejected_with_their_line(tmp_path, text, match):
    with pytest.raises(UsageError, match=match):
        table_of(tmp_path, text)


def test_table_of_other_cases_is_rejected(tmp_path):
    table = table_of(tmp_path, "case,x\nother,1\n")
    with pytest.raises(UsageError, match=r"names no measured case: it names other, and the cohort has case-001"):
        join_table(["case-001"], table)
