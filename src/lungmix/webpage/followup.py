"""Follow-up in the report: patients with several scans, from ``followup.csv``, and a page for each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungmix.analysis.change import CORRECTED, INVOLVEMENT
from lungmix.errors import StoreError
from lungmix.stages.change import reason_of
from lungmix.store import Cohort
from lungmix.store.patients import patients_of
from lungmix.store.schema import FOLLOWUP_FILE
from lungmix.store.tables import Row, rows_of
from lungmix.tissue import CHANGES, TISSUES
from lungmix.webpage.change_maps import FOLDER as CHANGES_FOLDER
from lungmix.webpage.change_maps import stamp_of, write_change
from lungmix.webpage.columns import columns_of
from lungmix.webpage.files import publish
from lungmix.webpage.rendering import render
from lungmix.webpage.scans import DataFiles, remove_files_of_other_cases
from lungmix.webpage.zones import LARGEST_LI

FOLDER = "patients"

_GENERATOR = "lungmix, page of a patient"
"""Text at the beginning of every page of a patient, by which these pages are recognized."""

_SCRIPTS = ("base", "load", "volume", "plane", "zones", "view", "link", "pair")
_HEAD_BYTES = 600
_NAME = re.compile(r"patient-\d+", re.ASCII)
_NOT_MEASURED = ("case", "patient", "scan", "days", "course", "remarks", "mask", "model")


@dataclass(frozen=True)
class Interval:
    """A change with its 95 % interval, in the unit of the measurement.

    Attributes
    ----------
    value, low, high : float
        The change, and the ends of its interval; NaN if they are unknown.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    def text(self, digits: int = 1) -> str:
        """Return the change with its interval, such as ``+1.2 (−0.3 to +2.7)``; empty if the change is unknown."""
        if not math.isfinite(self.value):
            return ""
        ends = [_signed(end, digits) for end in (self.low, self.high) if math.isfinite(end)]
        return _signed(self.value, digits) + (f" ({' to '.join(ends)})" if len(ends) == 2 else "")


@dataclass(frozen=True)
class Patient:
    """Patient with two or more measured scans.

    Attributes
    ----------
    name : str
        Neutral name, such as ``patient-001``.
    scans : tuple of dict
        Rows of ``followup.csv``, from the first scan to the last.
    """

    name: str
    scans: tuple[Row, ...]

    @property
    def cases(self) -> list[str]:
        """Names of the cases."""
        return [str(scan["case"]) for scan in self.scans]

    @property
    def course(self) -> str:
        """``worse``, ``stable`` or ``improved`` from the first scan to the last; empty if it is unknown."""
        return str(self.scans[-1].get("course", ""))

    def values(self, key: str) -> list[float]:
        """Return a measurement of all scans; NaN where it is unknown."""
        return [_number(scan, key) for scan in self.scans]

    def change(self, key: str = INVOLVEMENT, scan: int = -1, *, corrected: bool = False) -> Interval:
        """Return the change of a measurement from the first scan; without an interval if the table has none.

        Parameters
        ----------
        key : str
            Column of the measurement.
        scan : int
            Index of the later scan.
        corrected : bool
            True for the change at the lung volume of the first scan.
        """
        later, name = self.scans[scan], f"change_{key}{f'_{CORRECTED}' if corrected else ''}"
        if name not in later and not corrected:
            return Interval(_number(later, key) - _number(self.scans[0], key))
        return Interval(*(_number(later, name + ending) for ending in ("", "_low", "_high")))


def patients_with_changes(cohort: Cohort) -> list[Patient]:
    """Return the patients of ``followup.csv`` with two or more scans; a store without patients is not read."""
    if not patients_of(cohort):
        return []
    by_patient: dict[str, list[Row]] = {}
    for row in rows_of(cohort.read_text(FOLLOWUP_FILE) or ""):
        name = str(row.get("patient", ""))
        # Names become names of files, so a table that was changed by hand may not name a path.
        if _NAME.fullmatch(name) and str(row.get("case")) in cohort:
            by_patient.setdefault(name, []).append(row)
    return [
        Patient(name, tuple(sorted(rows, key=lambda row: _number(row, "scan"))))
        for name, rows in sorted(by_patient.items())
        if len(rows) > 1
    ]


def table_of(patients: Sequence[Patient]) -> list[dict[str, str]]:
    """Return the rows of the table of patients on the page of the cohort, as texts."""
    rows = []
    for patient in patients:
        first, *_, last = patient.values(INVOLVEMENT)
        rows.append(
            {
                "patient": patient.name,
                "scans": str(len(patient.scans)),
                "days": _plain(patient.values("days")[-1], 0),
                "first": _plain(first, 1),
                "last": _plain(last, 1),
                "change": patient.change().text(),
                "corrected": patient.change(corrected=True).text(),
                "course": patient.course,
                "remarks": str(patient.scans[-1].get("remarks", "")),
            }
        )
    return rows


def write_patients(
    cohort: Cohort,
    patients: Sequence[Patient],
    files: DataFiles,
    folder: Path,
    unreadable: Callable[[str, Exception], None],
) -> None:
    """Write the page of each patient, and delete the pages of other patients.

    Parameters
    ----------
    cohort : Cohort
        The store.
    patients : sequence of Patient
        Patients with changes.
    files : DataFiles
        Data files of the cases that the page can show.
    folder : Path
        Folder of the report.
    unreadable : callable
        Called with each case whose change map cannot be read, and the error. Its patient has a page without it.
    """
    changes = _write_changes(cohort, patients, files, folder, unreadable)
    for index, patient in enumerate(patients):
        page = render(
            "patient.html.j2",
            _SCRIPTS,
            generator=_GENERATOR,
            patient=patient,
            titles=[_title(scan) for scan in patient.scans],
            neighbours=[patients[i].name if 0 <= i < len(patients) else None for i in (index - 1, index + 1)],
            cards=_cards(patient),
            viewed=[
                {
                    "case": case,
                    "stamp": files.stamps[case],
                    "title": _title(scan),
                    "number": _number_of(scan),
                    "change": changes.get(case),
                }
                for case, scan in zip(patient.cases, patient.scans, strict=True)
                if case in files.stamps
            ],
            rows=measurements_of(patient),
            remarks=_remarks(cohort, patient),
            changes=CHANGES,
            tissues=TISSUES,
            files=files,
            largest_li=LARGEST_LI,
        )
        publish(folder / FOLDER / f"{patient.name}.html", page)
    remove_pages_of_other_patients(folder, {patient.name for patient in patients})


def _write_changes(
    cohort: Cohort,
    patients: Sequence[Patient],
    files: DataFiles,
    folder: Path,
    unreadable: Callable[[str, Exception], None],
) -> dict[str, str]:
    """Write the data files of later scans with change maps, and delete those of other cases; return their stamps."""
    stamps = {}
    for patient in patients:
        first, *rest = (cohort[name] for name in patient.cases)
        for later in rest if first.name in files.stamps else ():
            stamp = stamp_of(first, later) if later.name in files.stamps else None
            if stamp is None:
                continue
            try:
                write_change(first, later, folder)
            except (StoreError, OSError) as error:
                unreadable(later.name, error)
            else:
                stamps[later.name] = stamp
    remove_files_of_other_cases(folder / CHANGES_FOLDER, stamps)
    return stamps


def _remarks(cohort: Cohort, patient: Patient) -> list[tuple[str, str]]:
    """Return the remarks on each scan, with the reason of each that could not be registered."""
    first, *rest = (cohort[name] for name in patient.cases)
    reasons = {later.name: reason_of(first, later) for later in rest}
    remarks = []
    for scan in patient.scans:
        reason = reasons.get(str(scan["case"]))
        texts = [str(scan.get("remarks", "")), f"not registered: {reason}" if reason else ""]
        if any(texts):
            remarks.append((_title(scan), "; ".join(filter(None, texts))))
    return remarks


def remove_pages_of_other_patients(folder: Path, kept: Collection[str]) -> None:
    """Delete pages of patients that are not in `kept`; files that are no page of a patient stay."""
    for path in (folder / FOLDER).glob("*.html"):
        if path.stem not in kept:
            with path.open("rb") as stream:
                is_page = _GENERATOR.encode() in stream.read(_HEAD_BYTES)
            if is_page:
                path.unlink()


def measurements_of(patient: Patient) -> list[dict[str, Any]]:
    """Return the rows of the table of measurements on the page of a patient.

    Returns
    -------
    list of dict
        For each measurement ``title``, ``meaning``, ``values`` (text for each scan), and ``changes``: for each later
        scan, the texts of the change and of the change at the lung volume of the first scan. There is no row for a
        measurement that is unknown for all scans.
    """
    measured = [
        {key: value for key, value in scan.items() if not key.startswith("change_") and key not in _NOT_MEASURED}
        for scan in patient.scans
    ]
    rows = []
    for column in columns_of([{"case": case, **row} for case, row in zip(patient.cases, measured, strict=True)]):
        values, changes = [column.text(row) for row in measured], []
        if not any(values):
            continue
        for index in range(1, len(patient.scans)):
            pair = [patient.change(column.key, index, corrected=corrected) for corrected in (False, True)]
            changes.append([change.text(min(column.digits, 1)) for change in pair])
        rows.append(
            {
                "key": column.key,
                "title": column.title,
                "meaning": column.meaning,
                "values": values,
                "changes": changes,
            }
        )
    return rows


def _cards(patient: Patient) -> list[tuple[str, str]]:
    first, *_, last = patient.values(INVOLVEMENT)
    days = patient.values("days")[-1]
    cards = [(str(len(patient.scans)), "scans")]
    if math.isfinite(days):
        cards.append((_plain(days, 0), "days"))
    cards.append((f"{_plain(first, 1)} → {_plain(last, 1)} %", "lung involvement"))
    for corrected, title in ((False, "points of change"), (True, "points at equal lung volume")):
        change = patient.change(corrected=corrected)
        if change.text():
            cards.append((change.text(), title))
    if patient.course:
        cards.append((patient.course, "course"))
    return cards


def _title(scan: Row) -> str:
    days = _number(scan, "days")
    when = f", day {days:.0f}" if math.isfinite(days) else ""
    return f"{_number_of(scan)}{when}: {scan['case']}"


def _number_of(scan: Row) -> str:
    return f"scan {scan.get('scan', '')}"


def _number(row: Row, key: str) -> float:
    value = row.get(key, math.nan)
    return float(value) if isinstance(value, float | int) else math.nan


def _plain(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", "−") if math.isfinite(value) else ""


def _signed(value: float, digits: int) -> str:
    text = f"{value:+,.{digits}f}"
    return text.lstrip("+-") if not float(text.replace(",", "")) else text.replace("-", "−")
