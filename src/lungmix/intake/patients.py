"""Patients with several scans: by a table of the user, or by the key table; with days since the first scan."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungmix.errors import UsageError, first_of, mark_path, mark_untrusted
from lungmix.formats.tables import column_of
from lungmix.intake.user_tables import (
    CASE_COLUMNS,
    PATIENT_COLUMNS,
    check_cells,
    file_names,
    missing_columns,
    patient_names,
    plain_name,
    read_user_table,
)
from lungmix.store import Cohort
from lungmix.store.patients import PatientScan

_DATE = ("date", "study_date", "studydate", "scan_date")
_DAYS = ("days", "day")
_DATE_PATTERNS = (
    re.compile(r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})"),
    re.compile(r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})"),
    re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})"),
)
"""Forms of dates in which days and months cannot be confused."""
_NOBODY = {"anon", "anonym", "anonymized", "anonymised", "anonymous", "none", "n/a", "na", "patient", "unknown", "0"}
"""Names in headers without a patient's name: scans that share one need not be of one patient."""
_NUMBER_OF_DAYS = re.compile(r"(?P<days>[+-]?\d{1,6})(?:[.,]0{0,2})?")
"""Whole numbers. Three zeros after a separator may be the end of a number of thousands."""
_TIME_OF_DAY = re.compile(r"[T ]\d{1,2}:\d{2}.*")


@dataclass(frozen=True)
class PatientLine:
    """Line of a table of patients.

    Attributes
    ----------
    line : int
        Its number in the file.
    case : str
        Name of a case or, if there is a key table, of its file or folder.
    patient : str
        Name of the patient; it is compared with others only, and never written.
    days : int or None
        Days since any day that is the same for all scans of the patient; None if unknown.
    date : int or None
        Number of the day of the scan; None if unknown.
    """

    line: int
    case: str
    patient: str
    days: int | None = None
    date: int | None = None


@dataclass(frozen=True)
class PatientGroups:
    """Patients with two or more scans in a store.

    Attributes
    ----------
    patients : dict of str to tuple of PatientScan
        Scans of each patient from the first to the last, by ``patient-001``, ``patient-002`` ... in the order of the
        first names of their cases.
    undated : tuple of str
        Patients whose days are unknown; their scans are in the order of the table.
    unmatched : tuple of str
        Lines that name no case of the store, with the names marked (`lungmix.errors.mark_untrusted`).
    """

    patients: dict[str, tuple[PatientScan, ...]]
    undated: tuple[str, ...] = field(default=())
    unmatched: tuple[str, ...] = field(default=())


def read_patients(path: str | Path) -> list[PatientLine]:
    """Read a CSV file with a column ``case``, a column ``patient``, and optionally ``date`` or ``days``.

    Separators may be commas, semicolons or tabs, and names of columns may be in upper or lower case; see
    `lungmix.formats.tables`. Dates are written like 2020-03-29, 20200329 or 29.03.2020.

    Raises
    ------
    UsageError
        If the file is missing or not such a table; the message names the first invalid line.
    """
    file = Path(path)
    example = "a header such as case,patient,date and one line per scan"
    header, lines = read_user_table(file, (*CASE_COLUMNS, *PATIENT_COLUMNS), "patients", example)
    kinds = {"case": CASE_COLUMNS, "patient": PATIENT_COLUMNS, "date": _DATE, "days": _DAYS}
    columns = {name: column_of(header, names) for name, names in kinds.items()}
    if columns["case"] is None or columns["patient"] is None:
        raise missing_columns(file, header, "case and patient")
    check_cells(file, header, lines)
    rows: list[PatientLine] = []
    line_of: dict[str, int] = {}
    for number, cells in lines:
        position = f"{mark_path(file)}, line {number}"
        cell = {name: "" if column is None else cells[column] for name, column in columns.items()}
        if not cell["case"]:
            raise UsageError(f"{position}: no case is named: fill it in or delete the line")
        case = cell["case"].lower()
        if case in line_of:
            raise UsageError(
                f"{position}: {mark_untrusted(cell['case'])} is in line {line_of[case]} already: keep one of the two "
                "lines"
            )
        line_of[case] = number
        patient = plain_name(cell["patient"])
        if not patient:
            raise UsageError(
                f"{position}: {mark_untrusted(cell['case'])} has no patient: fill it in or delete the line"
            )
        days = None if not cell["days"] else _days_of(cell["days"], position)
        date = None if not cell["date"] else _date_of(cell["date"], position)
        rows.append(PatientLine(number, case, patient, days, date))
    return rows


def group_patients(
    cohort: Cohort, patients: str | Path | None, key: Mapping[str, Mapping[str, str]] | None = None
) -> PatientGroups:
    """Return which cases of a store are scans of one patient, and days since the first scan of each patient.

    Days are those of the column ``days`` of the table, or else follow from its dates, from the shifted dates that the
    store keeps, or from the dates of the key table: from the first of these that all scans of the patient have.

    Parameters
    ----------
    cohort : Cohort
        The store.
    patients : str or Path, optional
        Table of patients, see `read_patients`; without it, the key table tells who the patients are.
    key : mapping, optional
        Rows of a key table by case. With them, the table of patients may name files or folders instead of cases.

    Raises
    ------
    UsageError
        If a table is invalid, or no patient has two scans in the store.
    """
    # A corrupt case stays the first scan of its patient: its changes are not since another scan.
    cases = sorted({*cohort, *cohort.damaged})
    unmatched: list[str] = []
    if patients is None:
        matches, named_by = _by_key(cases, key or {}), "the key table"
    else:
        matches, unmatched = _match(cases, read_patients(patients), key)
        named_by = mark_path(Path(patients))
    if patients is not None and not matches:
        raise UsageError(
            f"{named_by} names no case of the store: it names {first_of(unmatched)}, and the store has "
            f"{first_of(cases) if cases else 'no case'}"
        )
    groups: dict[str, list[tuple[str, PatientLine]]] = {}
    for name in sorted(matches):
        groups.setdefault(matches[name].patient, []).append((name, matches[name]))
    several = [scans for scans in groups.values() if len(scans) > 1]
    if not several:
        raise UsageError(
            f"by {named_by} no patient has two scans in the store, so nothing can be compared: give a `patients` table "
            "with the same patient in the lines of two cases"
        )
    ordered: dict[str, tuple[PatientScan, ...]] = {}
    undated = []
    for number, scans in enumerate(several, start=1):
        patient = f"patient-{number:03d}"
        in_table = sorted(scans, key=lambda scan: (scan[1].line, scan[0]))
        days = _common_days(cohort, in_table, key)
        if days is None:
            undated.append(patient)
            ordered[patient] = tuple(PatientScan(name) for name, _ in in_table)
            continue
        first = min(days)
        by_day = sorted(zip(days, in_table, strict=True), key=lambda scan: scan[0])
        ordered[patient] = tuple(PatientScan(name, day - first) for day, (name, _) in by_day)
    return PatientGroups(ordered, tuple(undated), tuple(unmatched))


def _match(
    cases: Sequence[str], lines: Sequence[PatientLine], key: Mapping[str, Mapping[str, str]] | None
) -> tuple[dict[str, PatientLine], list[str]]:
    """Return the line of each case that has one, and texts of the other lines."""
    by_name = {line.case: line for line in lines}
    files = {name: dict.fromkeys(file_names((key or {}).get(name))) for name in cases}
    # A file name that several cases have tells none of them apart.
    uses = Counter(alias for aliases in files.values() for alias in aliases)
    matches = {name: by_name[name.lower()] for name in cases if name.lower() in by_name}
    # A line that names a case is about no other case whose file has the same name.
    for_files = by_name.keys() - {name.lower() for name in matches}
    for name in cases:
        aliases = [alias for alias in files[name] if uses[alias] == 1 and alias in for_files]
        if name not in matches and aliases:
            matches[name] = by_name[aliases[0]]
    used = {line.line for line in matches.values()}
    return matches, [f"line {line.line} ({mark_untrusted(line.case)})" for line in lines if line.line not in used]


def scans_by_key(cases: Iterable[str], key: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Return the cases of each patient who has two or more of them by the rows of a key table."""
    groups: dict[str, list[str]] = {}
    for name, line in _by_key(sorted(cases), key).items():
        groups.setdefault(line.patient, []).append(name)
    return [scans for scans in groups.values() if len(scans) > 1]


def _by_key(cases: Sequence[str], key: Mapping[str, Mapping[str, str]]) -> dict[str, PatientLine]:
    """Return a line for each case whose patient the key table names."""
    matches = {}
    for name in cases:
        aliases = [alias for alias in patient_names(key.get(name)) if alias not in _NOBODY]
        if aliases:
            matches[name] = PatientLine(0, name, aliases[0])
    return matches


def _common_days(
    cohort: Cohort, scans: Sequence[tuple[str, PatientLine]], key: Mapping[str, Mapping[str, str]] | None
) -> list[int] | None:
    """Return the day of each scan from the first source that has those of all scans; None if no source has."""
    kept = [_ordinal(cohort[name].acquisition.study_date) if name in cohort else None for name, _ in scans]
    recorded = [_ordinal((key or {}).get(name, {}).get("study_date")) for name, _ in scans]
    sources = ([line.days for _, line in scans], [line.date for _, line in scans], kept, recorded)
    for days in sources:
        complete = [day for day in days if day is not None]
        if len(complete) == len(scans):
            return complete
    return None


def _days_of(text: str, position: str) -> int:
    match = _NUMBER_OF_DAYS.fullmatch(text)
    if match is None:
        raise UsageError(f"{position}: {mark_untrusted(text)} is no number of days: write a whole number, such as 14")
    return int(match["days"])


def _date_of(text: str, position: str) -> int:
    """Return the number of a day."""
    ordinal = _ordinal(_TIME_OF_DAY.sub("", text))
    if ordinal is None:
        raise UsageError(
            f"{position}: {mark_untrusted(text)} is no date that can be read: write it like 2020-03-29, or give days "
            "in a column days"
        )
    return ordinal


def _ordinal(text: str | None) -> int | None:
    match = next((match for pattern in _DATE_PATTERNS if (match := pattern.fullmatch((text or "").strip()))), None)
    if match is None:
        return None
    try:
        return datetime.date(*(int(match[part]) for part in ("year", "month", "day"))).toordinal()
    except ValueError:
        return None
