"""Tables of a store as CSV and Parquet."""

import io
import math

import pyarrow.parquet as pq
import pytest

from lungmix.store.tables import is_parquet_of, lines_of, parquet_of, rows_of, text_of, without

ROWS = [
    {"case": "case-001", "lung_ml": 0.1 + 0.2, "voxels": 12, "touches": 1, "left_ml": float("nan")},
    {"case": "case-002", "lung_ml": 1e22, "voxels": 7, "touches": float("nan"), "left_ml": 4.0},
    {"case": "12", "lung_ml": 5.0, "voxels": 0, "touches": 0, "left_ml": 3.25},
]


def same(first, two):
    return [[str(value) for value in row.items()] for row in first] == [[str(v) for v in row.items()] for row in two]


def test_rows_are_read_back_with_their_types():
    assert same(rows_of(text_of(ROWS)), ROWS)
    assert rows_of("") == []
    assert text_of([]) == ""


def test_table_without_some_cases_equals_the_table_of_the_others():
    text = text_of(ROWS)
    assert without(text, ["case-002", "case-009"]) == text_of([ROWS[0], ROWS[2]])
    assert without(text, []) == text
    assert parquet_of(without(text, ["case-002"])) == parquet_of(text_of([ROWS[0], ROWS[2]]))


def test_table_without_rows_keeps_its_header():
    text = without(text_of(ROWS), ["case-001", "case-002", "12"])
    assert text == "case,lung_ml,voxels,touches,left_ml\n"
    assert rows_of(text) == []
    table = pq.read_table(io.BytesIO(parquet_of(text)))
    assert (table.column_names, table.num_rows) == (list(ROWS[0]), 0)
    assert is_parquet_of(parquet_of(text), text)
    assert not is_parquet_of(parquet_of(text_of(ROWS)), text)
    assert without(text, ["case-001"]) == text


def test_manually_edited_rows_stay_identical_to_the_byte():
    text = 'case,note\r\ncase-001,"a, b"\r\ncase-002,c\r\n'
    assert without(text, {"case-002"}) == 'case,note\r\ncase-001,"a, b"\r\n'
    assert lines_of(text)[1] == {"case-001": ['case-001,"a, b"'], "case-002": ["case-002,c"]}
    assert len(rows_of("case,a,b\ncase-001,1\n")[0]) == 3


def test_parquet_file_is_compared_by_content(tmp_path):
    text = text_of(ROWS)
    table = pq.read_table(io.BytesIO(parquet_of(text)))
    assert math.isnan(table["left_ml"][0].as_py())
    other = io.BytesIO()
    pq.write_table(table, other, compression="gzip", version="1.0")
    assert other.getvalue() != parquet_of(text)
    assert is_parquet_of(other.getvalue(), text)
    assert not is_parquet_of(parquet_of(text_of(ROWS[:2])), text)


@pytest.mark.parametrize("content", [None, b"", b"PAR1", parquet_of(text_of(ROWS))[:-20]])
def test_unreadable_parquet_file_matches_no_table(content):
    assert not is_parquet_of(content, text_of(ROWS))
