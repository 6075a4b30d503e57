"""Scans of one patient, as a store records them: under a neutral name, with days since the first scan and no dates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lungmix.store.cohort import Cohort
from lungmix.store.cohort_writer import CohortWriter
from lungmix.store.schema import PATIENTS_SETTING


@dataclass(frozen=True)
class PatientScan:
    """One of several scans of a patient.

    Attributes
    ----------
    case : str
        Name of the case.
    days : int or None
        Days since the first scan of the patient; None if unknown.
    """

    case: str
    days: int | None = None


def patients_of(cohort: Cohort, *, need_first: bool = True) -> dict[str, tuple[PatientScan, ...]]:
    """Return the patients with two or more scans in a store, in the order of their names.

    Parameters
    ----------
    cohort : Cohort
        The store.
    need_first : bool
        False to return patients whose first scan is corrupt, too. Changes are since the first scan, so that such a
        patient has none until it is converted again.

    Returns
    -------
    dict of str to tuple of PatientScan
        Scans of each patient from the first to the last, by ``patient-001`` and so on. Cases that cannot be opened are
        left out.
    """
    recorded = cohort.settings.get(PATIENTS_SETTING)
    if not isinstance(recorded, dict) or not recorded:
        return {}
    # One pass over the metadata of all cases, in place of a search for each.
    cases, present = set(cohort), {}
    for patient, scans in sorted(recorded.items()):
        all_scans = list(map(_scan_of, scans))
        present_scans = tuple(scan for scan in all_scans if scan.case in cases)
        if len(present_scans) > 1 and (present_scans[0] == all_scans[0] or not need_first):
            present[str(patient)] = present_scans
    return present


def patients_by_case(cohort: Cohort, *, need_first: bool = True) -> dict[str, str]:
    """Return the patient of each scan of `patients_of`, by the name of its case."""
    patients = patients_of(cohort, need_first=need_first)
    return {scan.case: patient for patient, scans in patients.items() for scan in scans}


def first_scans(cohort: Cohort) -> dict[str, str]:
    """Return the case of the first scan of the patient, by the case of each later scan."""
    return {later.case: first.case for first, *rest in patients_of(cohort).values() for later in rest}


def record_patients(cohort: Cohort, patients: Mapping[str, Sequence[PatientScan]]) -> None:
    """Record which scans of a store are of one patient; this replaces what was recorded.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    patients : mapping of str to sequence of PatientScan
        Scans of each patient from the first to the last, by names that tell nothing about the patient. Nothing stays
        recorded if it is empty.
    """
    setting = {
        patient: [{"case": scan.case, "days": scan.days} for scan in scans] for patient, scans in patients.items()
    }
    CohortWriter(cohort).record_settings(**{PATIENTS_SETTING: setting or None})


def forget_scans(cohort: Cohort, names: Collection[str]) -> None:
    """Remove cases from the recorded patients; days are then since the first scan that is left.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    names : collection of str
        Cases that are about to be deleted.
    """
    recorded = cohort.settings.get(PATIENTS_SETTING)
    scans_of = {
        str(patient): list(map(_scan_of, scans))
        for patient, scans in (recorded.items() if isinstance(recorded, dict) else ())
    }
    left = {patient: [scan for scan in scans if scan.case not in names] for patient, scans in scans_of.items()}
    if left != scans_of:
        record_patients(cohort, {patient: _since_first(scans) for patient, scans in left.items() if len(scans) > 1})


def _since_first(scans: Sequence[PatientScan]) -> list[PatientScan]:
    start = scans[0].days or 0
    return [PatientScan(scan.case, None if scan.days is None else scan.days - start) for scan in scans]


def _scan_of(recorded: Mapping[str, Any]) -> PatientScan:
    days = recorded.get("days")
    return PatientScan(str(recorded["case"]), None if days is None else int(days))
