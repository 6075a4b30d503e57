"""Follow-up of a store: its table, what updates it, what removes rows, and that nobody is named."""

import csv
import io
from math import isnan
from pathlib import Path

import numpy as np
import pytest

import lungmix
from lungmix.analysis.followup import refits_of, stored_followup
from lungmix.errors import UsageError
from lungmix.kernels.data_dictionary import FOLLOWUP
from lungmix.mixture import PUBLISHED
from lungmix.pipeline.followup import update_followup
from lungmix.stages.fit import publish
from lungmix.stages.measure import drop_stale_rows, write_table
from lungmix.store import CaseWriter
from lungmix.store.choices import remember_fit
from lungmix.store.patients import PatientScan, first_scans, patients_of, record_patients
from lungmix.store.tables import is_parquet_of
from lungmix.verify.cohort import verify_cases
from support.labelled import labelled_store

pytestmark = pytest.mark.usefixtures("stages_here")

TABLE = """case,patient,date
case-004,Rossi Mario,2020-03-01
case-001,Rossi Mario,2020-02-01
case-002,Verdi,2020-01-01
case-005,Verdi,2020-05-01
case-003,Verdi,2020-04-01
"""


@pytest.fixture
def cohort(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", scans=5)
    return cohort


@pytest.fixture
def patients(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text(TABLE)
    return path


def pipeline(cohort):
    return lungmix.Pipeline(None, cohort)


def rows(cohort):
    return {(row["patient"], row["scan"]): row for row in stored_followup(cohort)}


def test_table_has_each_scan_of_patients_with_several(cohort, patients):
    result = pipeline(cohort).followup(patients)
    assert result.failed == {}
    table = rows(cohort)
    assert [(*key, row["case"], row["days"]) for key, row in table.items()] == [
        ("patient-001", 1, "case-001", 0), ("patient-001", 2, "case-004", 29), ("patient-002", 1, "case-002", 0),
        ("patient-002", 2, "case-003", 91), ("patient-002", 3, "case-005", 121),
    ]  # fmt: skip
    measured = {row["case"]: row for row in csv.DictReader(io.StringIO(cohort.read_text("measurements.csv")))}
    for row in table.values():
        for key in ("lung_ml", "air", "ggo", "lung_involvement", "consolidation_ml", "mass_g"):
            assert row[key] == pytest.approx(float(measured[row["case"]][key]))
    first, last = table["patient-001", 1], table["patient-001", 2]
    assert isnan(first["change_lung_involvement"])
    assert first["lung_involvement_corrected"] == first["lung_involvement"]
    assert last["change_lung_involvement"] == pytest.approx(last["lung_involvement"] - first["lung_involvement"])
    assert last["change_lung_involvement_corrected"] == pytest.approx(
        last["lung_involvement_corrected"] - first["lung_involvement"]
    )
    low, high = (last[f"change_lung_involvement_corrected_{end}"] for end in ("low", "high"))
    assert low < last["change_lung_involvement_corrected"] < high
    assert (last["course"] == "stable") is (low <= 0 <= high)
    columns = [column.key for column in FOLLOWUP]
    header = list(first)
    assert header == [key for key in columns if key in header]
    assert is_parquet_of(cohort.read_bytes("followup.parquet"), cohort.read_text("followup.csv"))
    assert result.mean_change.patients == 2
    assert "2 patients with 5 scans" in repr(result)


def test_scans_of_one_day_are_remarked(cohort, tmp_path):
    (tmp_path / "p.csv").write_text("case,patient,days\ncase-001,a,3\ncase-002,a,3\n")
    result = pipeline(cohort).followup(tmp_path / "p.csv")
    assert result.rows[0]["remarks"] == ""
    assert result.rows[1]["remarks"].startswith("same day as the first scan")
    assert result.notes["case-002"][0] == "same day as the first scan"


def test_store_has_no_name_and_no_date(cohort, patients):
    pipeline(cohort).followup(patients)
    content = b"".join(path.read_bytes() for path in cohort_files(cohort))
    for word in (b"Rossi", b"rossi", b"Verdi", b"verdi", b"2020"):
        assert word not in content


def cohort_files(cohort):
    return [path for path in Path(cohort.url).rglob("*") if path.suffix in {".csv", ".json", ".parquet"}]


def test_store_without_patients_stays_as_it_is(cohort, tmp_path):
    before = {path: path.read_bytes() for path in cohort_files(cohort)}
    with pytest.raises(UsageError, match="does not know which scans are of one patient"):
        pipeline(cohort).followup()
    pipeline(cohort).measure()
    assert cohort.read_text("followup.csv") is None
    assert {path.name for path in cohort_files(cohort)} == {path.name for path in before} | {"qc.csv", "qc.parquet"}
    assert "patients" not in cohort.settings


def test_table_is_updated_with_the_measurements(cohort, patients):
    pipeline(cohort).followup(patients)
    text = cohort.read_text("followup.csv")
    drop_stale_rows(cohort, lambda case: {"label"} if case.name == "case-001" else ())
    # Changes of the patient were since this scan.
    assert {patient for patient, _ in rows(cohort)} == {"patient-002"}
    drop_stale_rows(cohort, lambda case: {"zone"} if case.name == "case-003" else ())
    assert list(rows(cohort)) == [("patient-002", 1), ("patient-002", 3)]
    # One scan alone has no change.
    drop_stale_rows(cohort, lambda case: {"zone"} if case.name == "case-005" else ())
    assert rows(cohort) == {}
    pipeline(cohort).measure()
    assert cohort.read_text("followup.csv") == text


def test_scan_without_labels_fails_alone(cohort, patients):
    CaseWriter(cohort["case-004"]).drop_stage("label")
    result = pipeline(lungmix.open_cohort(cohort.url, "r+")).followup(patients)
    assert list(result.failed) == ["case-004"]
    assert "has no labels" in result.failed["case-004"]
    assert [(row["patient"], row["scan"]) for row in result.rows] == [("patient-002", n) for n in (1, 2, 3)]


def test_removed_cases_leave_the_follow_up(cohort, patients):
    pipeline(cohort).followup(patients)
    pipeline(cohort).remove(["case-002", "case-004"])
    cohort = lungmix.open_cohort(cohort.url, "r+")
    assert patients_of(cohort) == {"patient-002": (PatientScan("case-003", 0), PatientScan("case-005", 30))}
    assert rows(cohort) == {}
    pipeline(cohort).measure()
    assert [(row["case"], row["days"]) for row in rows(cohort).values()] == [("case-003", 0), ("case-005", 30)]


def test_corrupt_first_scan_is_not_replaced_by_the_second(cohort, patients):
    pipeline(cohort).followup(patients)
    text, recorded = cohort.read_text("followup.csv"), cohort.settings["patients"]
    metadata = Path(cohort.url) / "case-002" / "zarr.json"
    content = metadata.read_bytes()
    metadata.write_bytes(content[:50])
    for table in (None, patients):
        corrupt = lungmix.open_cohort(cohort.url, "r+")
        result = pipeline(corrupt).followup(table)
        assert list(result.failed) == ["case-002"]
        assert {(row["patient"], row["case"]) for row in result.rows} == {
            ("patient-001", "case-001"), ("patient-001", "case-004"),
        }  # fmt: skip
        assert corrupt.settings["patients"] == recorded
        assert first_scans(corrupt) == {"case-004": "case-001"}
        assert len(patients_of(corrupt, need_first=False)["patient-002"]) == 2
    metadata.write_bytes(content)
    pipeline(lungmix.open_cohort(cohort.url, "r+")).measure()
    assert cohort.read_text("followup.csv") == text


def test_table_loses_its_rows_with_another_number_of_components(cohort, patients):
    pipeline(cohort).followup(patients)
    three = lungmix.TissueModel((0.5, 0.3, 0.2), (-900.0, -700.0, -100.0), (2000.0, 9000.0, 30000.0))
    assert update_followup(cohort, list(cohort), three) == []
    assert rows(cohort) == {}
    assert cohort.read_text("followup.csv").startswith("case,patient,scan,days,")


def test_verify_finds_rows_that_do_not_match_the_histograms(cohort, patients):
    pipeline(cohort).followup(patients)
    text = cohort.read_text("followup.csv")

    def problems():
        return verify_cases(None, lungmix.open_cohort(cohort.url), [], {}).wrong

    assert problems() == {}
    write_table(cohort, "followup.csv", text.replace("case-004,patient-001,2,29,", "case-004,patient-001,2,28,"))
    assert problems() == {
        "followup.csv": ["its row of case-004 does not match the histograms: run `Pipeline.followup()`"]
    }
    header, *lines = text.splitlines(keepends=True)
    write_table(cohort, "followup.csv", header + "".join(lines[:-1]))
    assert list(problems()) == ["followup.csv"]
    course = {"stable": "worse", "worse": "stable", "improved": "stable"}
    value = next(csv.DictReader(io.StringIO(header + lines[1])))["course"]
    lines[1] = lines[1].replace(f",{value},", f",{course[value]},")
    write_table(cohort, "followup.csv", header + "".join(lines))
    assert list(problems()) == ["followup.csv"]


def test_verify_reports_a_corrupt_histogram_of_a_case_that_it_does_not_check(cohort, patients):
    pipeline(cohort).followup(patients)
    chunk = next(file for file in (Path(cohort.url) / "case-004" / "hu_counts" / "c").rglob("*") if file.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0x55
    chunk.write_bytes(content)
    result = verify_cases(None, lungmix.open_cohort(cohort.url), [], {})
    assert list(result.wrong) == list(result.damaged) == ["case-004"]
    assert result.wrong["case-004"][0].startswith("hu_counts is damaged")


def test_lobes_of_given_masks_have_changes(cohort, patients):
    for name in ("case-001", "case-004"):
        lobes = np.zeros((5, 65536), np.uint64)
        lobes[1] = cohort[name].hu_counts
        writer = CaseWriter(cohort[name])
        files = writer.write_histogram("lobe_counts", lobes)
        writer.record("mask", {"key": "m", "parameters": {"preset": "physical"}, "files": files})
    pipeline(cohort).followup(patients)
    row = rows(cohort)["patient-001", 2]
    key = "change_right_middle_lobe_lung_involvement"
    assert row[key] == pytest.approx(row["change_lung_involvement"])
    assert row[f"{key}_corrected"] == pytest.approx(row["change_lung_involvement_corrected"])
    assert isnan(row["change_left_upper_lobe_lung_involvement"])
    assert isnan(rows(cohort)["patient-002", 2][key])


def test_refits_draw_patients_with_all_their_scans(cohort):
    # Two patients: in a draw of one of them twice, the mixture is that of its scans.
    record_patients(cohort, {
        "patient-001": [PatientScan("case-001"), PatientScan("case-002")],
        "patient-002": [PatientScan("case-003"), PatientScan("case-004"), PatientScan("case-005")],
    })  # fmt: skip
    assert refits_of(cohort, PUBLISHED) == []
    publish(cohort, PUBLISHED, {"parameters": {"fit": "converged"}})
    remember_fit(cohort, lungmix.FitParameters(fit="converged"))
    models = refits_of(cohort, PUBLISHED, refits=12)
    assert len({tuple(np.round(model.means, 1)) for model in models}) == 3
    assert [model.digest for model in refits_of(cohort, PUBLISHED, refits=12)] == [model.digest for model in models]
    remember_fit(cohort, lungmix.FitParameters(fit="anchored", pool="lungs", weigh="scans"))
    assert len({model.digest for model in refits_of(cohort, PUBLISHED, refits=12)}) == 3


def test_large_cohorts_need_no_refits(cohort, monkeypatch):
    publish(cohort, PUBLISHED, {"parameters": {"fit": "converged"}})
    assert refits_of(cohort, PUBLISHED, refits=2)
    monkeypatch.setattr("lungmix.analysis.followup.MOST_SCANS", 4)
    assert refits_of(cohort, PUBLISHED, refits=2) == []


def test_refits_widen_the_intervals_of_a_fitted_mixture(cohort, patients):
    pipeline(cohort).followup(patients)
    given = rows(cohort)["patient-001", 2]
    publish(cohort, PUBLISHED, {"parameters": {"fit": "converged"}})
    pipeline(cohort).followup()
    fitted = rows(cohort)["patient-001", 2]
    key = "change_lung_involvement_corrected"
    assert fitted[key] == given[key]
    assert fitted[f"{key}_high"] > given[f"{key}_high"]
