"""What is kept of whose scan it is, before a scan is converted: nothing but what was asked for."""

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
from lungmix.privacy.acquisition import OLDEST
from lungmix.privacy.identity import Identity
from lungmix.store import Cohort

_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True)
class RetainedScans:
    """Scans as they may enter a store.

    Attributes
    ----------
    scans : dict of str to Scan
        By case, with the attributes of patients that were asked for, and notes on them.
    table : KeyTable or None
        Written already; `drop_unconverted` drops what did not come into the store.
    """

    scans: dict[str, Scan]
    table: KeyTable | None = None

    def drop_unconverted(self, cohort: Cohort) -> None:
        """Take cases that did not come into the store out of the key table."""
        if self.table is not None:
            with self.table.changed():
                self.table.leave_out(cohort, [name for name in self.scans if name not in cohort])


def open_table(cohort: Cohort, parameters: IntakeParameters, *outputs: str | Path | None) -> KeyTable | None:
    """The key table, if one was asked for.

    Parameters
    ----------
    cohort : Cohort
        The store.
    parameters : IntakeParameters
        Says which file.
    outputs : str or Path
        Folders that the run writes, which a key table may not lie in.

    Raises
    ------
    UsageError
        If the file is no key table, or lies where it would be passed on.
    """
    if parameters.key is None:
        return None
    check_outside(parameters.key, "--key", cohort.url, *outputs)
    return KeyTable.read(parameters.key, new=True)


def apply_retention(
    cohort: Cohort,
    scans: Mapping[str, Scan],
    places: Mapping[str, str],
    parameters: IntakeParameters,
    table: KeyTable | None,
) -> RetainedScans:
    """Note whose scans cases are in the key table, and keep of patients what was asked for.

    The table is written before the first conversion: a run that is killed leaves no case without its row.
    """
    shifts: dict[str, int | None] = {}
    if table is not None:
        with table.changed():
            for name, scan in scans.items():
                shifts[name] = table.enter(cohort, name, scan, places[name], shift=parameters.shift_dates)
    out = {}
    for name, scan in scans.items():
        days = shifts.get(name)
        known = scan.identity or Identity()
        kept: dict[str, Any] = {}
        notes = scan.notes
        if not scan.geometry.orientation_known and not any("which side is right" in note for note in notes):
            notes = (*notes, UNKNOWN_ORIENTATION)
        if parameters.retain_patient:
            years = age_of(known)
            kept = {"sex": known.sex, "age": years}
            if years is not None and years >= OLDEST:
                notes = (*notes, f"the patient is over {OLDEST - 1} years old, which is kept as {OLDEST}")
        if days is not None:
            kept["study_date"] = shifted(known.study_date or known.series_date or known.acquisition_date, days)
        out[name] = replace(scan, acquisition=replace(scan.acquisition.technical(), **kept), notes=notes)
    return RetainedScans(out, table)


UNKNOWN_ORIENTATION = (
    "the file does not say which side is right, front or up: its lungs are measured together only, as if its slices "
    "were axial; export it again with its orientation"
)


def age_of(known: Identity) -> int | None:
    """Age in years: as DICOM gives it (``058Y``), or between the dates of birth and study."""
    found = re.fullmatch(r"(\d{1,3})([YMWD])", (known.age or "").strip())
    if found:
        return int(int(found[1]) * _YEARS[found[2]])
    birth, study = _date(known.birth_date), _date(known.study_date)
    if birth is None or study is None or study < birth:
        return None
    return study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day))


def shifted(text: str | None, days: int) -> str | None:
    """A date ``YYYYMMDD`` some days later; None if there is none that can be read."""
    known = _date(text)
    try:
        return None if known is None else (known + timedelta(days)).strftime("%Y%m%d").zfill(8)
    except OverflowError:
        return None


def _date(text: str | None) -> date | None:
    digits = re.sub(r"[.\-]", "", (text or "").strip())
    if not re.fullmatch(r"\d{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
