"""Retention of patient attributes, applied before conversion: only requested attributes are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from lungmix.formats import Scan
from lungmix.intake.key_table import KeyTable, check_outside
from lungmix.parameters import IntakeParameters
from lungmix.privacy.acquisition import MAX_AGE
from lungmix.privacy.identity import Identity
from lungmix.store import Cohort

_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True)
class RetainedScans:
    """Scans without the patient attributes that the store must not keep.

    Attributes
    ----------
    scans : dict of str to Scan
        Scans by case, with the requested attributes of patients, and notes for the user.
    table : KeyTable or None
        Key table with rows of all scans, already written; `drop_unconverted` removes rows without a case.
    """

    scans: dict[str, Scan]
    table: KeyTable | None = None

    def drop_unconverted(self, cohort: Cohort) -> None:
        """Remove the rows of scans that could not be converted from the key table."""
        if self.table is not None:
            with self.table.locked_rows():
                self.table.drop_rows(cohort, [name for name in self.scans if name not in cohort])


def open_table(cohort: Cohort, parameters: IntakeParameters, *outputs: str | Path | None) -> KeyTable | None:
    """Read the key table, or start a new one, if it was requested.

    Parameters
    ----------
    cohort : Cohort
        The store.
    parameters : IntakeParameters
        Parameters of the run, with the path of the key table.
    outputs : str or Path
        Folders that the run writes, which must not contain the key table.

    Raises
    ------
    UsageError
        If the file is not a key table, or is inside the store or an output folder.
    """
    if parameters.key is None:
        return None
    check_outside(parameters.key, "key", cohort.url, *outputs)
    return KeyTable.read(parameters.key, new=True)


def apply_retention(
    cohort: Cohort,
    scans: Mapping[str, Scan],
    source_labels: Mapping[str, str],
    parameters: IntakeParameters,
    table: KeyTable | None,
) -> RetainedScans:
    """Write the key table, and remove all attributes of patients except the requested ones.

    The table is written before the first conversion, so that a killed run leaves no case without its row in the table.

    Parameters
    ----------
    cohort : Cohort
        The store.
    scans : mapping of str to Scan
        Scans by case name.
    source_labels : mapping of str to str
        Source labels by case name, see `lungmix.intake.case_names.source_label`.
    parameters : IntakeParameters
        The requested attributes.
    table : KeyTable or None
        Key table, if one was requested.
    """
    shifts: dict[str, int | None] = {}
    if table is not None:
        with table.locked_rows():
            for name, scan in scans.items():
                shifts[name] = table.add_scan(cohort, name, scan, source_labels[name], shift=parameters.shift_dates)
    retained = {}
    for name, scan in scans.items():
        days = shifts.get(name)
        identity = scan.identity or Identity()
        attributes: dict[str, Any] = {}
        notes = scan.notes
        if not scan.geometry.orientation_known and not any("which side is right" in note for note in notes):
            notes = (*notes, UNKNOWN_ORIENTATION)
        if parameters.retain_patient:
            years = age_of(identity)
            attributes = {"sex": identity.sex, "age": years}
            if years is not None and years >= MAX_AGE:
                notes = (*notes, f"the patient is over {MAX_AGE - 1} years old, which is kept as {MAX_AGE}")
        if days is not None:
            study_date = identity.study_date or identity.series_date or identity.acquisition_date
            attributes["study_date"] = shift_date(study_date, days)
        retained[name] = replace(scan, acquisition=replace(scan.acquisition.technical(), **attributes), notes=notes)
    return RetainedScans(retained, table)


UNKNOWN_ORIENTATION = (
    "the file does not say which side is right, front or up: its lungs are measured together only, as if its slices "
    "were axial; export it again with its orientation"
)


def age_of(identity: Identity) -> int | None:
    """Return the age in whole years, from the DICOM age (``058Y``), or else from the dates of birth and study.

    The result is None if the header has neither.
    """
    match = re.fullmatch(r"(\d{1,3})([YMWD])", (identity.age or "").strip())
    if match:
        return int(int(match[1]) * _YEARS[match[2]])
    birth, study = _parse_date(identity.birth_date), _parse_date(identity.study_date)
    if birth is None or study is None or study < birth:
        return None
    return study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day))


def shift_date(text: str | None, days: int) -> str | None:
    """Return a date ``YYYYMMDD``, shifted by a number of days; None if the text is missing or not a date."""
    parsed = _parse_date(text)
    try:
        return None if parsed is None else (parsed + timedelta(days)).strftime("%Y%m%d").zfill(8)
    except OverflowError:
        return None


def _parse_date(text: str | None) -> date | None:
    digits = re.sub(r"[.\-]", "", (text or "").strip())
    if not re.fullmatch(r"\d{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
