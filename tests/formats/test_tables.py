"""Tables as spreadsheets save them in different countries and systems: source lists, scores and key tables."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.errors import SourceError
from lungmix.formats.source_lists import read_list
from lungmix.formats.tables import column_of, rows_of, text_of

SEPARATORS = st.sampled_from(",;\t")
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1).filter(str.strip)


def listed(folder, text, name="list.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return [str(Path(source).relative_to(folder)) for source in read_list(path)]


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1), separator=SEPARATORS, end=st.sampled_from(["\n", "\r\n"]))
def test_every_table_that_python_writes_is_read_as_it_was_written(rows, separator, end):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows([("path", "note"), *rows])
    assert [cells for _, cells in rows_of(text.getvalue(), ("path",))] == [["path", "note"], *map(list, rows)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_list_of_a_spreadsheet_is_read_by_its_column_whatever_its_form(tmp_path, separator, encoding, end):
    lines = (
        ["Age|Path|Site", "61,5|x.nrrd|a", "|Müller.nrrd|b"]
        if separator != ","
        else ["Path|Age", "x.nrrd|61", "Müller.nrrd|"]
    )
    text = end.join(line.replace("|", separator) for line in lines) + end
    assert listed(tmp_path, text, encoding=encoding) == ["x.nrrd", "Müller.nrrd"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.nrrd;61,5\ny.nrrd;3,0\n", ["x.nrrd", "y.nrrd"]),
        ("x.nrrd,a;b\n", ["x.nrrd"]),
        ("a b.nrrd\n", ["a b.nrrd"]),
        ("sep=;\npath;age\nx.nrrd;3\n", ["x.nrrd"]),
        ('path;note\n"a;b.nrrd";"two\nlines"\n', ["a;b.nrrd"]),
        ("note;file name\n#1;x.nrrd\n2;#y.nrrd\n", ["#y.nrrd"]),
        (f"path;note\nx.nrrd;{'long ' * 1000}\n", ["x.nrrd"]),
        ("a,path;b\n", ["a"]),
    ],
)
def test_table_of_sources_is_split_where_its_writer_meant(tmp_path, text, expected):
    assert listed(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("a,b;c.nrrd\n# no\n'd'.nrrd\n\"e.nrrd\n", "utf-8", ["a,b;c.nrrd", "'d'.nrrd", '"e.nrrd']),
        ("x.nrrd\r\ny.nrrd\r\n", "utf-16", ["x.nrrd", "y.nrrd"]),
        ("path\tage\r\nx.nrrd\t3\r\n", "utf-16", ["x.nrrd"]),
    ],
)
def test_text_file_has_one_path_per_line_unless_it_has_column_names(tmp_path, text, encoding, expected):
    assert listed(tmp_path, text, "list.txt", encoding) == expected


def test_tab_separated_file_is_a_list(tmp_path):
    assert listed(tmp_path, "id\tpath\n1\tx.nrrd\n", "list.tsv") == ["x.nrrd"]


@pytest.mark.parametrize("content", [b"path;a\n\xfc.nrrd;1\n", b"\xff\xfex", b"\xff\xfe\0\0p\0\0\0"])
def test_list_in_another_encoding_is_rejected_with_a_remedy(tmp_path, content):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(SourceError, match="saved as UTF-8"):
        read_list(tmp_path / "list.csv")


@pytest.mark.parametrize("text", ['path;a\n"x.nrrd;1\ny.nrrd;2\n', 'path;a\n"x".nrrd;1\n', "path;a\nx\ry;1\n"])
def test_table_with_ambiguous_cells_or_lines_is_rejected(tmp_path, text):
    with pytest.raises(SourceError, match="check its quotes"):
        listed(tmp_path, text)


def test_rows_have_the_numbers_of_their_lines():
    text = '# first\nsep=;\n\npath;note\na;"two\nlines"\n# between\nb;c\n'
    assert [number for number, _ in rows_of(text, ("path",), comments=True)] == [4, 6, 8]


@pytest.mark.parametrize("text", ["", "\n", ";;\n", "sep=;\n", "# one\n"])
def test_text_without_a_cell_has_no_rows(text):
    assert rows_of(text, (), comments=True) == []


def test_first_matching_column_name_is_used_in_any_case():
    assert column_of(["a", " Source ", "PATH"], ("path", "source")) == 2
    assert column_of(["a"], ("path",)) is None


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_is_decoded_without_its_mark(encoding):
    assert text_of("é".encode(encoding)) == "é"
