"""Which scans are of one patient: tables, key tables, days, and errors that name the line."""

from contextlib import suppress
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lungmix.errors import UsageError
from lungmix.intake.patients import group_patients, read_patients
from lungmix.store.patients import PatientScan


class Cases(dict):
    """Cases by name, and corrupt cases."""

    damaged = ()


def store(*names, **dates):
    """Cases with the shifted dates that they keep."""
    return Cases({name: SimpleNamespace(acquisition=SimpleNamespace(study_date=dates.get(name))) for name in names})


def table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "patients.csv"
    path.write_bytes(text.encode(encoding))
    return path


def scans(*pairs):
    return tuple(PatientScan(*pair) for pair in pairs)


def test_corrupt_cases_stay_scans_of_their_patient(tmp_path):
    cases = store("b", "c", b="20200301", c="20200302")
    cases.damaged = {"a": "corrupt"}
    groups = group_patients(cases, table(tmp_path, "case,patient,date\na,x,2020-01-01\nb,x,2020-01-03\n"))
    assert groups.patients == {"patient-001": scans(("a", 0), ("b", 2))}
    groups = group_patients(cases, table(tmp_path, "case,patient\na,x\nb,x\nc,x\n"))
    assert groups.patients == {"patient-001": scans(("a",), ("b",), ("c",))}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_dates_give_days_since_the_first_scan(tmp_path, separator, encoding):
    lines = [
        "Case,Patient,Date,remark", "b,Rossi^Mario,2020-03-29,x", "a,rossi mario,27.03.2020,", "c,Müller,20200101,",
        "d,Müller ,2020/1/31,", "e,Bianchi,,",
    ]  # fmt: skip
    groups = group_patients(store(*"abcde"), table(tmp_path, "\n".join(lines).replace(",", separator), encoding))
    assert groups.patients == {
        "patient-001": scans(("a", 0), ("b", 2)),
        "patient-002": scans(("c", 0), ("d", 30)),
    }
    assert groups.undated == groups.unmatched == ()


def test_days_may_count_from_any_day(tmp_path):
    groups = group_patients(store(*"abc"), table(tmp_path, "case,patient,days\na,x,40\nb,x,-2\nc,x,40\n"))
    assert groups.patients == {"patient-001": scans(("b", 0), ("a", 42), ("c", 42))}


def test_patients_are_numbered_by_the_first_names_of_their_cases(tmp_path):
    text = "case,patient\nd,Anna\nc,Zoe\nb,Anna\na,Zoe\n"
    groups = group_patients(store(*"abcd"), table(tmp_path, text))
    assert groups.patients == {"patient-001": scans(("c",), ("a",)), "patient-002": scans(("d",), ("b",))}
    assert groups.undated == ("patient-001", "patient-002")


def test_scan_without_a_day_leaves_the_days_of_its_patient_unknown(tmp_path):
    groups = group_patients(store(*"abcd"), table(tmp_path, "case,patient,days\nb,x,9\na,x,\nc,y,1\nd,y,3\n"))
    assert groups.patients == {"patient-001": scans(("b",), ("a",)), "patient-002": scans(("c", 0), ("d", 2))}
    assert groups.undated == ("patient-001",)


def test_kept_dates_give_days_where_the_table_has_none(tmp_path):
    cohort = store("a", "b", a="20100301", b="20100228")
    groups = group_patients(cohort, table(tmp_path, "case,patient\na,x\nb,x\n"))
    assert groups.patients == {"patient-001": scans(("b", 0), ("a", 1))}


def key_row(path, patient_id="", patient_name="", study_date=""):
    return {"path": path, "patient_id": patient_id, "patient_name": patient_name, "study_date": study_date}


def test_key_table_tells_patients_and_dates():
    key = {
        "a": key_row("/s/1", "77", "Rossi^Mario", "20200105"), "b": key_row("/s/2", "77", "Rossi", "20200101"),
        "c": key_row("/s/3", "", "Verdi^Anna", "20200101"), "d": key_row("/s/4", "", "verdi anna", "20200102"),
        "e": key_row("/s/5", "", "ANONYMOUS", "20200101"), "f": key_row("/s/6", "", "Anonymous", "20200102"),
        "g": key_row("/s/7"), "h": key_row("/s/8"),
    }  # fmt: skip
    assert group_patients(store(*"abcdefghi"), None, key).patients == {
        "patient-001": scans(("b", 0), ("a", 4)),
        "patient-002": scans(("c", 0), ("d", 1)),
    }


def test_table_may_name_files_of_the_key_table(tmp_path):
    key = {"a": key_row("/s/Rossi-1.nii.gz"), "b": key_row("/s/Rossi-2"), "c": key_row("/t/x.nrrd"),
           "d": key_row("/u/x.nrrd")}  # fmt: skip
    text = "case,patient\nrossi-1,m\nRossi-2,m\nx.nrrd,m\n"
    groups = group_patients(store(*"abcd"), table(tmp_path, text), key)
    assert groups.patients == {"patient-001": scans(("a",), ("b",))}
    assert len(groups.unmatched) == 1
    assert groups.unmatched[0].startswith("line 4 (")


def test_days_come_from_the_first_source_that_has_all(tmp_path):
    cases = store("a", "b", a="20200105", b="20200101")
    key = {"a": key_row("/s/1", study_date="20200101"), "b": key_row("/s/2", study_date="20200111")}
    for columns, cells, days in (
        ("days,date", ("9,2020-01-01", "7,2020-03-01"), {"b": 0, "a": 2}),
        ("days,date", ("9,2020-01-01", ",2020-03-01"), {"a": 0, "b": 60}),
        ("days,date", ("9,2020-01-01", "7,"), {"b": 0, "a": 2}),
        ("days,date", ("9,", ",2020-03-01"), {"b": 0, "a": 4}),
        ("remark", ("", ""), {"b": 0, "a": 4}),
    ):
        text = f"case,patient,{columns}\na,x,{cells[0]}\nb,x,{cells[1]}\n"
        groups = group_patients(cases, table(tmp_path, text), key)
        assert groups.patients == {"patient-001": scans(*days.items())}
    groups = group_patients(store("a", "b", a="20200105"), table(tmp_path, text), key)
    assert groups.patients == {"patient-001": scans(("a", 0), ("b", 10))}


def test_a_line_is_about_one_case_only(tmp_path):
    # The name of the file of one case is the name of another case.
    key = {"scan-1": key_row("/s/scan-2.nrrd"), "scan-2": key_row("/s/scan-3.nrrd"), "x": key_row("/s/x.nrrd")}
    text = "case,patient\nscan-2,m\nscan-3,n\nx,m\n"
    groups = group_patients(store("scan-1", "scan-2", "x"), table(tmp_path, text), key)
    assert groups.patients == {"patient-001": scans(("scan-2",), ("x",))}
    assert [line.split(" (")[0] for line in groups.unmatched] == ["line 3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,patient\n", "holds no patients"),
        ("case,day\na,1\n", "has the columns .* it needs case and patient"),
        ("case,patient\na,x\nb\n", "line 3: 1 cells"),
        ("case,patient\na,x\n,x\n", "line 3: no case"),
        ("case,patient\na,x\nA,x\n", "line 3: .* is in line 2 already"),
        ("case,patient\na,x\nb,\n", "line 3: .* has no patient"),
        ("case,patient,days\na,x,0\nb,x,1.5\n", "line 3: .* is no number of days"),
        ('case,patient,days\na,x,0\nb,x,"1,000"\n', "line 3: .* is no number of days"),
        ("case;patient;days\na;x;0\nb;x;1.000\n", "line 3: .* is no number of days"),
        ("case,patient,date\na,x,03/04/2020\n", "line 2: .* is no date"),
        ("case,patient,date\na,x,2020-02-30\n", "line 2: .* is no date"),
        ('case,patient\na,"x\n', "not a valid CSV table"),
        ("case,patient\na,x\nb,y\n", "no patient has two scans"),
        ("case,patient\nk,x\nl,x\n", "names no case of the store"),
    ],
)
def test_invalid_table_is_rejected_with_its_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        group_patients(store("a", "b"), table(tmp_path, text))


def test_missing_or_binary_file_is_rejected(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_patients(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        read_patients(tmp_path / "x.csv")


CELLS = st.sampled_from([
    "case", "a", "b", "1", "-3", "1e400", "nan", "2020-02-29", "20200230", "٣", "", '"', "=1+1", "\0", "x" * 40,
])  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(
    st.binary(max_size=60),
    st.lists(st.lists(CELLS, min_size=2, max_size=5), max_size=5).map(
        lambda lines: "\n".join(["case,patient,date,days", *(",".join(cells) for cells in lines)]).encode()
    ),
))  # fmt: skip
def test_any_content_is_a_table_or_an_error_with_a_message(tmp_path, content):
    path = tmp_path / "patients.csv"
    path.write_bytes(content)
    with suppress(UsageError):
        lines = read_patients(path)
        assert lines
        assert len({line.case for line in lines}) == len(lines)
