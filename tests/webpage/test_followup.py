"""Follow-up in the report: the table of patients, the figures and the pages of patients."""

import csv
import io
import re
from math import nan

import numpy as np
import pytest

import lungmix
from lungmix.analysis.change import IMPROVED, SHARES, STABLE, WORSE
from lungmix.mixture import PUBLISHED
from lungmix.pipeline.followup import FollowupResult, remember_patients, update_followup
from lungmix.store import CohortWriter
from lungmix.store.patients import record_patients
from lungmix.store.schema import FOLLOWUP_FILE
from lungmix.webpage.followup import (
    Interval,
    Patient,
    measurements_of,
    patients_with_changes,
    table_of,
    write_patients,
)
from lungmix.webpage.followup_figures import COLORS, followup_figure, measures_figure
from lungmix.webpage.page import write_page
from lungmix.webpage.scans import DataFiles
from support.followup import followup_rows, tie_patients
from support.labelled import labelled_store

PATIENTS = {
    "patient-001": [("case-001", 0), ("case-002", 37)],
    "patient-002": [("case-003", None), ("case-004", None), ("case-005", None)],
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    cohort, _ = labelled_store(tmp_path_factory.mktemp("store") / "cohort.zarr", 6)
    tie_patients(cohort, PATIENTS, remarks="kernel differs: <b>soft</b>, sharp")
    return cohort


@pytest.fixture(scope="module")
def page(cohort, tmp_path_factory):
    return write_page(cohort, tmp_path_factory.mktemp("page"))


def simulated(number, days=True, scans=2):
    """Patients with random lung involvement."""
    random = np.random.default_rng(number)
    patients = []
    for index in range(number):
        of_scans = []
        for scan in range(scans):
            shares = dict.fromkeys(SHARES, 20.0) | {"lung_involvement": float(random.uniform(0, 70))}
            case = f"case-{scans * index + scan + 1:03d}"
            when = int(random.integers(5, 400)) * scan if days else None
            of_scans.append(({"case": case, "lung_ml": 4000.0, **shares}, when))
        name = f"patient-{index + 1:03d}"
        patients.append(Patient(name, tuple(followup_rows(name, of_scans, width=8.0))))
    return patients


def test_intervals_are_written_with_signs():
    assert Interval(1.25, -0.31, 2.81).text() == "+1.2 (−0.3 to +2.8)"
    assert Interval(-1234.5).text(0) == "−1,234"
    assert Interval(-0.04, nan, nan).text() == "0.0"
    assert Interval(nan, 0, 1).text() == ""


def test_table_has_the_changes_of_the_store(cohort):
    stored = {row["case"]: row for row in csv.DictReader(io.StringIO(cohort.read_text(FOLLOWUP_FILE)))}
    patients = patients_with_changes(cohort)
    assert [patient.cases for patient in patients] == [[case for case, _ in scans] for scans in PATIENTS.values()]
    first, second = table_of(patients)
    change = float(stored["case-002"]["change_lung_involvement"])
    assert first["change"] == Interval(change, change - 2, change + 2).text()
    assert float(first["first"]) == pytest.approx(float(stored["case-001"]["lung_involvement"]), abs=0.05)
    assert (first["days"], second["days"]) == ("37", "")
    assert second["scans"] == "3"
    assert second["course"] == stored["case-005"]["course"]
    rows = {row["key"]: row for row in measurements_of(patients[1])}
    assert not {"case", "patient", "scan", "days", "course", "remarks"} & rows.keys()
    assert len(rows["lung_ml"]["values"]) == 3
    # Measurements without a column of changes have plain differences.
    ggo = [float(stored[case]["ggo_ml"]) for case in ("case-003", "case-004", "case-005")]
    changes = [float(change.replace("−", "-").replace(",", "")) for change, _ in rows["ggo_ml"]["changes"]]
    assert changes == pytest.approx([ggo[1] - ggo[0], ggo[2] - ggo[0]], abs=0.51)
    assert all("to" in text for change in rows["ggo"]["changes"] for text in change)


def test_measurements_that_no_scan_has_are_no_rows():
    (patient,) = simulated(1)
    for scan, volume in zip(patient.scans, (nan, 5.0), strict=True):
        scan.update(new_ml=nan, gone_ml=volume)
    keys = [row["key"] for row in measurements_of(patient)]
    assert "gone_ml" in keys
    assert "new_ml" not in keys


def test_page_lists_patients_and_each_has_a_page(page):
    text = page.read_text()
    assert 'href="#followup"' in text
    assert re.findall(r'href="patients/(patient-\d+)\.html"', text) == list(PATIENTS)
    assert {path.name for path in (page.parent / "patients").iterdir()} == {f"{name}.html" for name in PATIENTS}
    figures = {path.name for path in (page.parent / "figures").iterdir() if path.name.startswith("followup")}
    assert figures == {"followup.csv", *(f"followup{n}.{kind}" for n in ("", "_measures") for kind in ("png", "svg"))}
    alternative = re.search(r'figures/followup\.svg" alt="([^"]+)"', text)[1]
    assert "patient-002: " in alternative
    text_of_page = (page.parent / "patients" / "patient-002.html").read_text()
    assert "<title>patient-002: 3 scans</title>" in text_of_page
    assert "&lt;b&gt;soft&lt;/b&gt;" in text_of_page
    assert "<b>" not in text_of_page
    # The stamps of data files are those of the main page.
    assert set(re.findall(r'data-stamp="([^"]+)"', text_of_page)) <= set(re.findall(r'data-stamp="([^"]+)"', text))


def test_scans_without_a_data_file_are_not_offered(cohort, tmp_path):
    page = write_page(cohort, tmp_path / "page")
    assert 'id="pair"' in (page.parent / "patients" / "patient-001.html").read_text()
    files = DataFiles({"case-001": "s"}, None, False)
    write_patients(cohort, patients_with_changes(cohort), files, tmp_path / "page", lambda name, error: None)
    text_of_page = (page.parent / "patients" / "patient-001.html").read_text()
    assert 'id="pair"' not in text_of_page
    assert "Two scans with labels are needed" in text_of_page


def test_pages_of_patients_that_are_gone_are_removed(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 4)
    tie_patients(
        cohort, {"patient-001": [("case-001", 0), ("case-002", 9)], "patient-002": [("case-003", 0), ("case-004", 9)]}
    )
    folder = tmp_path / "page"
    write_page(cohort, folder)
    (folder / "patients" / "notes.html").write_text("<p>written by someone else</p>")
    record_patients(cohort, {})
    text = write_page(cohort, folder).read_text()
    assert "followup" not in text
    assert [path.name for path in (folder / "patients").iterdir()] == ["notes.html"]
    assert not list((folder / "figures").glob("followup*"))


def test_store_without_patients_is_not_read(monkeypatch, tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 1)
    CohortWriter(cohort).write_text(FOLLOWUP_FILE, "case,patient\ncase-001,patient-001\n")
    read = []
    monkeypatch.setattr(type(cohort), "read_text", lambda self, name: read.append(name))
    assert patients_with_changes(cohort) == []
    assert read == []
    assert patients_with_changes(lungmix.open_cohort(tmp_path / "other.zarr", "a")) == []


def test_patients_of_a_changed_table_cannot_name_a_path(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 2)
    tie_patients(cohort, {"patient-001": [("case-001", 0), ("case-002", 9)]})
    text = cohort.read_text(FOLLOWUP_FILE)
    for name in ("../../patient-002", "/tmp/patient-001", "patient-1/../x", "", "<b>"):
        CohortWriter(cohort).write_text(FOLLOWUP_FILE, text.replace("patient-001", name))
        assert patients_with_changes(cohort) == []
    CohortWriter(cohort).write_text(FOLLOWUP_FILE, "case,scan\ncase-001,1\ncase-002,2\n")
    assert patients_with_changes(cohort) == []


@pytest.mark.parametrize(("number", "days", "scans"), [(2, True, 2), (2, False, 3), (60, True, 2), (200, False, 2)])
def test_figure_has_a_line_and_a_change_per_patient(number, days, scans):
    patients = simulated(number, days, scans)
    figure = followup_figure(patients)
    lines, changes = figure.axes
    drawn = {(tuple(line.get_xdata()), tuple(line.get_ydata())): line.get_color() for line in lines.get_lines()}
    assert len(drawn) == number
    for patient in patients:
        times = patient.values("days") if days else range(1, scans + 1)
        assert drawn[(*times,), (*patient.values("lung_involvement"),)] == COLORS[patient.course]
    assert lines.get_xlabel() == ("days since the first scan" if days else "scan")
    assert len(lines.texts) == (number if number <= 12 else 0)
    centres = [line.get_xdata()[0] for line in changes.get_lines() if len(line.get_xdata()) == 1]
    assert centres == sorted(patient.change(corrected=True).value for patient in patients)
    assert len(changes.get_yticks()) == (number if number <= 80 else 0)
    assert figure.get_figheight() < 20
    (legend,) = figure.legends
    counts = [int(re.search(r"\((\d+)\)", text.get_text())[1]) for text in legend.get_texts()]
    assert sum(counts) == number
    figure.canvas.draw()


def test_names_at_the_ends_of_lines_do_not_overlap():
    patients = simulated(12)
    for patient in patients:
        patient.scans[-1].update(days=100, lung_involvement=30.0)
    figure = followup_figure(patients)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 12
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_few_patients_have_dotted_lines_at_the_first_lung_volume():
    key = "lung_involvement_corrected"
    for number, expected in ((3, 3), (60, 0)):
        patients = simulated(number)
        for patient in patients:
            for scan in patient.scans:
                scan[key] = 90.0
        lines = followup_figure(patients).axes[0]
        dotted = [line for line in lines.get_lines() if line.get_linestyle() == ":"]
        assert len(dotted) == expected
        assert all(set(line.get_ydata()) == {90.0} for line in dotted)
        assert (lines.get_ylim()[1] > 90) == bool(dotted)


def test_unknown_values_leave_gaps():
    (patient,) = simulated(1, scans=3)
    patient.scans[1]["lung_involvement"] = nan
    patient.scans[-1].update(course="", change_lung_involvement_corrected=nan)
    lines, changes = followup_figure([patient]).axes
    assert np.isnan(lines.get_lines()[0].get_ydata()).sum() == 1
    assert changes.get_lines()[1].get_xdata() == [patient.change().value]
    assert len(measures_figure([patient], ["lung_ml", *SHARES]).axes) == 9
    assert {WORSE, STABLE, IMPROVED, ""} == set(COLORS)


def test_follow_up_of_the_store_is_shown_without_names_of_persons(tmp_path):
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", 4)
    table = tmp_path / "patients.csv"
    table.write_text(
        "case,patient,days\ncase-001,Quirrenbach^Adalbert,0\ncase-003,Quirrenbach^Adalbert,41\n"
        "case-002,Zwetschkenbaum^Eulalia,\ncase-004,Zwetschkenbaum^Eulalia,\n"
    )
    remember_patients(cohort, table, None, FollowupResult())
    rows = {row["case"]: row for row in update_followup(cohort, list(cohort), PUBLISHED)}
    page = write_page(cohort, tmp_path / "page")
    (text,) = [path.read_text() for path in (page.parent / "patients").glob("patient-001.html")]
    change = patients_with_changes(cohort)[0].change(corrected=True)
    expected = [rows["case-003"][f"change_lung_involvement_corrected{end}"] for end in ("", "_low", "_high")]
    assert [change.value, change.low, change.high] == pytest.approx(expected)
    assert change.text() in text
    assert rows["case-003"]["course"] in re.findall(r"<strong>(\w+)</strong>", text)
    assert "scan 2, day 41: case-003" in text
    for path in page.parent.rglob("*"):
        content = path.read_bytes().lower() if path.is_file() else b""
        assert not any(name in content for name in (b"quirrenbach", b"adalbert", b"zwetschkenbaum", b"eulalia")), path
