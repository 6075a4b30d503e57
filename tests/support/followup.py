"""Patients with several scans: rows of followup.csv from the measurements of a store."""

from __future__ import annotations

from math import nan

from lungmix.analysis.change import IMPROVED, SHARES, STABLE, WORSE
from lungmix.stages.measure import read_measurements
from lungmix.store import CohortWriter
from lungmix.store.patients import PatientScan, record_patients
from lungmix.store.schema import FOLLOWUP_FILE
from lungmix.store.tables import text_of
from lungmix.tissue import TISSUES


def followup_rows(name, scans, width=2.0, remarks=""):
    """Return the rows of a patient; `scans` are pairs of the measurements of a case and days."""
    first = scans[0][0]
    rows = []
    for number, (measured, days) in enumerate(scans, start=1):
        row = {"case": measured["case"], "patient": name, "scan": number, "days": nan if days is None else days}
        row |= {key: measured[key] for key in ("lung_ml", *SHARES)}
        row |= {f"{t.key}_ml": measured[t.key] * measured["lung_ml"] / 100 for t in TISSUES}
        row["change_lung_ml"] = nan if number == 1 else measured["lung_ml"] - first["lung_ml"]
        for key in SHARES:
            change = nan if number == 1 else measured[key] - first[key]
            for ending, value in (("", change), ("_corrected", change / 2)):
                row[f"change_{key}{ending}"] = value
                row |= {f"change_{key}{ending}_low": value - width, f"change_{key}{ending}_high": value + width}
        corrected = row["change_lung_involvement_corrected"]
        row["course"] = WORSE if corrected > width else IMPROVED if corrected < -width else STABLE
        row["remarks"] = remarks
        if number == 1:
            row |= {"course": "", "remarks": ""}
        rows.append(row)
    return rows


def tie_patients(cohort, patients, **options):
    """Record patients of a measured store, by pairs of case and days, and write its followup.csv."""
    measured = {row["case"]: row for row in read_measurements(cohort)}
    record_patients(cohort, {name: [PatientScan(*scan) for scan in scans] for name, scans in patients.items()})
    rows = [
        row
        for name, scans in patients.items()
        for row in followup_rows(name, [(measured[case], days) for case, days in scans], **options)
    ]
    CohortWriter(cohort).write_text(FOLLOWUP_FILE, text_of(rows))
    return rows
