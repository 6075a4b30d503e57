"""The key table and retention, without a cluster."""

from __future__ import annotations

import csv
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import lungmix
from lungmix.errors import UsageError
from lungmix.formats import Scan
from lungmix.geometry import Geometry
from lungmix.intake.key_table import KeyTable
from lungmix.intake.retention import age_of, apply_retention, open_table, shift_date
from lungmix.parameters import IntakeParameters
from lungmix.privacy.acquisition import Acquisition
from lungmix.privacy.identity import Identity
from lungmix.store import CohortWriter

ROSSI = Identity("4711", "Rossi^Maria", "19290330", "F", None, study_uid="1.2.3", study_date="20200317")
DOE = Identity("0815", "Doe^John", "19600102", "M", "059Y", study_uid="1.2.4", study_date="20200401")


def scan_of(identity, path="/data/Rossi/scan"):
    return Scan("x", path, "dicom", Geometry((4, 4, 4)), Acquisition("CT"), "f", path, (), identity, reader=None)


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "s.zarr", "a")


def take(cohort, identities, **options):
    parameters = IntakeParameters(**options)
    names = [f"case-{i:03d}" for i in range(1, len(identities) + 1)]
    scans = {name: scan_of(identity, f"/data/{name}") for name, identity in zip(names, identities, strict=True)}
    places = {name: f"source {i}" for i, name in enumerate(names, start=1)}
    return apply_retention(cohort, scans, places, parameters, open_table(cohort, parameters))


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_no_patient_attribute_is_kept_unless_requested(cohort):
    retained = take(cohort, [ROSSI])
    assert retained.scans["case-001"].acquisition == Acquisition("CT")
    assert retained.table is None


def test_sex_and_age_are_kept_on_request_and_high_ages_are_clipped_with_a_note(cohort):
    retained = take(cohort, [ROSSI, DOE], retain_patient=True)
    assert retained.scans["case-001"].acquisition == Acquisition("CT", sex="F", age=90)
    assert retained.scans["case-002"].acquisition == Acquisition("CT", sex="M", age=59)
    assert "over 89" in " ".join(retained.scans["case-001"].notes)
    assert retained.scans["case-002"].notes == ()


@pytest.mark.parametrize(
    ("age", "birth", "study", "years"),
    [
        ("058Y", None, None, 58), ("018M", None, None, 1), ("003D", None, None, 0), ("095Y", None, None, 95),
        (None, "19600329", "20200328", 59), (None, "1960.03.29", "20200329", 60), (None, "19600329", None, None),
        ("abc", "x", "20200328", None), (None, "20200329", "20200328", None), (None, "19600231", "20200328", None),
    ],
)  # fmt: skip
def test_age_comes_from_the_header_or_from_the_dates(age, birth, study, years):
    assert age_of(Identity(age=age, birth_date=birth, study_date=study)) == years


def test_table_is_complete_and_readable_by_its_owner_only(cohort, tmp_path):
    key = tmp_path / "safe" / "key.csv"
    take(cohort, [ROSSI, DOE], key=key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    first, second = rows(key)
    assert first["case"] == "case-001"
    assert first["patient_name"] == "Rossi^Maria"
    assert first["patient_id"] == "4711"
    assert first["study_uid"] == "1.2.3"
    assert first["study_date"] == "20200317"
    assert first["path"] == "/data/case-001"
    assert first["source"] == "source 1"
    assert first["date_shift_days"] == ""
    assert second["patient_id"] == "0815"
    assert [path.name for path in key.parent.iterdir()] == ["key.csv"]


def test_table_grows_and_serves_several_stores(cohort, tmp_path):
    key = tmp_path / "key.csv"
    take(cohort, [ROSSI], key=key)
    other = lungmix.open_cohort(tmp_path / "t.zarr", "a")
    take(other, [DOE], key=key)
    take(cohort, [ROSSI, DOE], key=key)
    assert sorted(row["patient_id"] for row in rows(key)) == ["0815", "0815", "4711"]
    assert {name: row["patient_id"] for name, row in KeyTable.read(key).rows_of(cohort).items()} == {
        "case-001": "4711", "case-002": "0815",
    }  # fmt: skip
    assert [row["patient_id"] for row in KeyTable.read(key).rows_of(other).values()] == ["0815"]


def test_runs_that_share_a_table_keep_each_others_rows(cohort, tmp_path):
    key = tmp_path / "key.csv"
    other = lungmix.open_cohort(tmp_path / "t.zarr", "a")
    parameters = IntakeParameters(key=key)
    # Both runs read the table first; then one after the other adds rows and ends.
    early, late = open_table(cohort, parameters), open_table(other, parameters)
    CohortWriter(cohort).add("case-001", Geometry((4, 4, 4)), Acquisition())
    CohortWriter(other).add("case-001", Geometry((4, 4, 4)), Acquisition())
    first = apply_retention(cohort, {"case-001": scan_of(ROSSI)}, {"case-001": "source 1"}, parameters, early)
    second = apply_retention(other, {"case-001": scan_of(DOE)}, {"case-001": "source 1"}, parameters, late)
    first.drop_unconverted(cohort)
    assert sorted(row["patient_id"] for row in rows(key)) == ["0815", "4711"]
    second.drop_unconverted(other)
    assert sorted(row["patient_id"] for row in rows(key)) == ["0815", "4711"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["key.csv"]


def test_runs_that_share_a_table_shift_the_dates_of_a_patient_equally(cohort, tmp_path):
    key = tmp_path / "key.csv"
    other = lungmix.open_cohort(tmp_path / "t.zarr", "a")
    parameters = IntakeParameters(key=key, shift_dates=True)
    tables = [open_table(store, parameters) for store in (cohort, other)]
    retained = [
        apply_retention(store, {"case-001": scan_of(ROSSI)}, {"case-001": "source 1"}, parameters, table)
        for store, table in zip((cohort, other), tables, strict=True)
    ]
    assert len({store.scans["case-001"].acquisition.study_date for store in retained}) == 1
    assert len({row["date_shift_days"] for row in rows(key)}) == 1


def test_deleted_table_is_written_again_with_the_rows_of_the_run(cohort, tmp_path):
    key = tmp_path / "key.csv"
    retained = take(cohort, [ROSSI, DOE], key=key)
    CohortWriter(cohort).add("case-002", Geometry((4, 4, 4)), Acquisition())
    key.unlink()
    retained.drop_unconverted(cohort)
    assert [row["patient_id"] for row in rows(key)] == ["0815"]


def test_concurrent_processes_add_their_rows_to_one_table(tmp_path):
    key, count = tmp_path / "key.csv", 3
    code = (
        "import sys, lungmix\n"
        "from intake.test_key_table import *\n"
        "cohort = lungmix.open_cohort(sys.argv[1], 'a')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for i in range(10):\n"
        "    take(cohort, [ROSSI] * (i + 1), key=Path(sys.argv[2]), shift_dates=True)\n"
    )
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(
            [*command, str(tmp_path / f"{i}.zarr"), str(key)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            text=True,
        )
        for i in range(count)
    ]
    for process in processes:
        assert process.stdout.readline().strip() == "ready"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    table = rows(key)
    assert len({(row["store"], row["case"]) for row in table}) == len(table) == 10 * count
    assert len({row["date_shift_days"] for row in table}) == 1
    assert not list(tmp_path.glob(".*"))


def test_table_that_stays_locked_by_another_process_raises(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("lungmix.intake.key_table._LOCK_TIMEOUT_S", 0.1)
    table = KeyTable(tmp_path / "key.csv")
    with table.locked_rows(), pytest.raises(UsageError, match="another run"):
        take(cohort, [ROSSI], key=tmp_path / "key.csv")


def test_lock_file_of_a_killed_process_blocks_no_later_run(cohort, tmp_path):
    (tmp_path / ".key.csv.lock").touch()
    take(cohort, [ROSSI], key=tmp_path / "key.csv")
    assert len(rows(tmp_path / "key.csv")) == 1
    assert not (tmp_path / ".key.csv.lock").exists()


def test_partial_files_of_killed_processes_next_to_the_table_are_deleted(cohort, tmp_path):
    (tmp_path / ".key[1].csv.4711.partial").write_text("store,case,patient_name\nx,case-001,Rossi^Maria\n")
    take(cohort, [ROSSI], key=tmp_path / "key[1].csv")
    assert not list(tmp_path.glob(".*"))


def test_table_in_a_read_only_folder_raises(cohort, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot be (read|written)"):
        take(cohort, [ROSSI], key=tmp_path / "file" / "key.csv")


def test_unconverted_case_is_removed_from_the_table(cohort, tmp_path):
    key = tmp_path / "key.csv"
    retained = take(cohort, [ROSSI, DOE], key=key)
    CohortWriter(cohort).add("case-002", Geometry((4, 4, 4)), Acquisition())
    retained.drop_unconverted(cohort)
    assert [row["case"] for row in rows(key)] == ["case-002"]


def test_dates_of_a_patient_are_shifted_equally_in_all_runs(cohort, tmp_path, monkeypatch):
    drawn = iter([3649, 0])
    monkeypatch.setattr("lungmix.intake.key_table.secrets.randbelow", lambda limit: next(drawn))
    key = tmp_path / "key.csv"
    later = replace(ROSSI, study_date="20200417")
    first = take(cohort, [ROSSI, DOE], key=key, shift_dates=True)
    again = take(cohort, [ROSSI, DOE, later], key=key, shift_dates=True)
    dates = [again.scans[f"case-00{i}"].acquisition.study_date for i in (1, 2, 3)]
    assert dates[:2] == [first.scans[f"case-00{i}"].acquisition.study_date for i in (1, 2)]
    days = {row["case"]: int(row["date_shift_days"]) for row in rows(key)}
    assert days == {"case-001": -3650, "case-002": -1, "case-003": -3650}
    assert dates[0] == shift_date("20200317", days["case-001"])
    assert dates[2] == shift_date("20200417", days["case-001"])


def test_shifted_dates_need_a_table():
    with pytest.raises(UsageError, match="`key=FILE`"):
        IntakeParameters(shift_dates=True)


@pytest.mark.parametrize("place", ["s.zarr/key.csv", "s.zarr/case-001/key.csv", "page/key.csv"])
def test_table_must_not_be_in_a_folder_that_may_be_shared(cohort, tmp_path, place):
    with pytest.raises(UsageError, match="may be shared"):
        open_table(cohort, IntakeParameters(key=tmp_path / place), tmp_path / "page", None)


def test_symbolic_link_into_the_store_is_resolved(cohort, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "s.zarr")
    with pytest.raises(UsageError, match="may be shared"):
        open_table(cohort, IntakeParameters(key=tmp_path / "link" / "key.csv"))


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00", b"one line of mine\n"])
def test_another_file_is_not_overwritten(cohort, tmp_path, content):
    key = tmp_path / "thesis.csv"
    key.write_bytes(content)
    with pytest.raises(UsageError, match="not a key table"):
        open_table(cohort, IntakeParameters(key=key))
    assert key.read_bytes() == content


def test_an_empty_file_is_a_new_table(cohort, tmp_path):
    (tmp_path / "key.csv").touch()
    assert open_table(cohort, IntakeParameters(key=tmp_path / "key.csv")).rows_of(cohort) == {}


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16"), (",", "utf-8")])
def test_key_table_saved_by_a_spreadsheet_program_is_read_and_kept(cohort, tmp_path, separator, encoding):
    key = tmp_path / "key.csv"
    take(cohort, [replace(ROSSI, patient_name="Rossi; Maria, G."), DOE], key=key, shift_dates=True)
    saved = rows(key)
    with key.open("w", encoding=encoding, newline="") as stream:
        table = csv.DictWriter(stream, saved[0], delimiter=separator)
        table.writeheader()
        table.writerows(saved)
    assert list(KeyTable.read(key).rows_of(cohort).values()) == saved
    take(cohort, [replace(ROSSI, patient_name="Rossi; Maria, G."), DOE], key=key, shift_dates=True)
    assert rows(key) == saved
