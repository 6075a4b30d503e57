"""Follow-up of a cohort: scans of each patient in their order, and their changes since the first; reads no voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import isclose, isfinite

import numpy as np
from scipy.special import stdtrit

from lungmix.analysis.change import (
    CORRECTED,
    ERRORS,
    IMPROVED,
    INVOLVEMENT,
    SHARES,
    STABLE,
    WORSE,
    Change,
    Counts,
    FollowupScan,
    ShareError,
    changes_of,
    involvement_at_volume,
    labels_of,
    percents,
    remarks_on_pair,
)
from lungmix.analysis.leave_one_out import fit_of_store
from lungmix.analysis.patient_refits import refit_over_patients
from lungmix.kernels.data_dictionary import FOLLOWUP, REGISTRATION
from lungmix.kernels.histogram import weighted_sum
from lungmix.kernels.measures import sum_of
from lungmix.mixture import TissueModel
from lungmix.parameters import DEFORMABLE, NO_HARMONISATION
from lungmix.stages import regions
from lungmix.stages.change import columns_of
from lungmix.stages.fit import HU, masked_cases
from lungmix.stages.measure import UNKNOWN, excluded_regions, has_zones, measured_counts
from lungmix.store import Case, Cohort
from lungmix.store.models import ModelId, harmonised_text, label_id, mask_text
from lungmix.store.patients import PatientScan, patients_of
from lungmix.store.schema import FIT, FOLLOWUP_FILE
from lungmix.store.tables import Row, rows_of
from lungmix.tissue import LOBES, LUNG_ZONES, LUNGS, TISSUES, ZONE_DEPTHS, ZONE_HALVES, ZONE_THIRDS, Tissue

REFITS = 50
"""Number of cohorts that are drawn for the uncertainty of the mixture."""
MOST_SCANS = 500
"""Number of scans above which the mixture counts as known: its uncertainty is far below the other errors then."""

LEVEL = 95.0
"""Level of the intervals, percent."""

DOUBTFUL_SIMILARITY = 0.65
"""Similarity of registered lungs below which a pair gets a remark: see docs/registration.md."""

NAN = float("nan")


@dataclass(frozen=True)
class MeanChange:
    """Mean change of the lung involvement over patients, from the first to the last scan of each.

    Attributes
    ----------
    patients, scans : int
        Patients with two or more measured scans, and their scans.
    value, low, high : float
        Mean of the corrected changes, points, and its interval by Student's t over patients; NaN for fewer than two.
    measured : float
        Mean of the changes without correction for inspiration, points.
    improved, stable, worse : int
        Number of patients by the course of the last scan.
    level : float
        Level of the interval, percent.
    """

    patients: int
    scans: int
    value: float
    low: float
    high: float
    measured: float
    improved: int
    stable: int
    worse: int
    level: float = LEVEL

    def to_dict(self) -> dict[str, float | int]:
        """Return the values, JSON-ready."""
        return asdict(self)


def zone_sums(zones: Counts) -> dict[str, Counts]:
    """Return the histograms of sums of lung zones whose changes are computed.

    Parameters
    ----------
    zones : ndarray of uint64, shape (24, 65536)
        Histograms in the order of `lungmix.tissue.LUNG_ZONES`.

    Returns
    -------
    dict of str to ndarray of uint64, shape (65536,)
        Each third of each lung, such as ``right_upper``; and of both lungs each third, each half, core and peel, such
        as ``both_peel``.
    """
    sums = {}
    for side, third in product(LUNGS, ZONE_THIRDS):
        parts = [zone for zone in LUNG_ZONES if (zone.side, zone.third) == (side, third)]
        sums[f"{side.key}_{third.key}"] = sum_of(zones, parts)
    for part in (*ZONE_THIRDS, *ZONE_HALVES, *ZONE_DEPTHS):
        parts = [zone for zone in LUNG_ZONES if part in (zone.third, zone.half, zone.depth)]
        sums[f"both_{part.key}"] = sum_of(zones, parts)
    return sums


def scan_of(case: Case, exclude_regions: Sequence[Tissue] = ()) -> FollowupScan:
    """Return the histograms and the acquisition of a labelled case.

    Parameters
    ----------
    case : Case
        The case.
    exclude_regions : sequence of Tissue
        Regions of the mask that do not count as lung.
    """
    parts: dict[str, Counts] = {}
    if case.geometry.orientation_known and regions.is_valid(case):
        parts = {lung.key: case.side_counts[lung.label - 1] for lung in LUNGS}
    if has_zones(case):
        parts |= zone_sums(case.zone_counts)
    if (lobes := case.lobe_counts) is not None:
        parts |= {lobe.key: lobes[lobe.label - 1] for lobe in LOBES}
    acquisition, spacing = case.acquisition, case.geometry.axis_order.by_patient(case.geometry.spacing_zyx)[0]
    methods = harmonised_text(case)
    return FollowupScan(
        counts=measured_counts(case, exclude_regions),
        voxel_ml=case.geometry.voxel_ml,
        regions=parts,
        kernel=acquisition.kernel,
        scanner=acquisition.scanner or None,
        mask=mask_text(case),
        slice_mm=float(acquisition.slice_thickness or spacing),
        harmonised="" if methods in (None, NO_HARMONISATION) else str(methods),
    )


def followup_rows(
    cohort: Cohort,
    names: Sequence[str],
    model: TissueModel,
    *,
    exclude_regions: Sequence[Tissue] = (),
    refits: Sequence[TissueModel] = (),
    errors: Mapping[str, ShareError] = ERRORS,
) -> list[Row]:
    """Return one row for each scan of every patient with two or more measured scans: the rows of ``followup.csv``.

    Parameters
    ----------
    cohort : Cohort
        The store, which records its patients (`lungmix.store.patients`).
    names : sequence of str
        Cases that are measured. A patient whose first scan is not among them has no rows.
    model : TissueModel
        Mixture of their labels, of five components.
    exclude_regions : sequence of Tissue
        Regions of the mask that do not count as lung.
    refits, errors
        See `lungmix.analysis.change.changes_of`.

    Returns
    -------
    list of dict
        Rows with the columns of `lungmix.kernels.data_dictionary.FOLLOWUP`, which begin with the patient; columns of
        lungs and zones only if a scan has them.
    """
    rows: list[Row] = []
    labelled = set(names)
    for patient, scans in patients_of(cohort).items():
        measured = [(number, scan) for number, scan in enumerate(scans, start=1) if scan.case in labelled]
        if len(measured) < 2 or measured[0][0] != 1:
            continue
        first = scan_of(cohort[scans[0].case], exclude_regions)
        for number, scan in measured:
            case = cohort[scan.case]
            present = first if number == 1 else scan_of(case, exclude_regions)
            heading: Row = {"case": scan.case, "patient": patient, "scan": number, "days": _days(scan)}
            changes = None if number == 1 else changes_of(first, present, model, refits, errors, LEVEL)
            registered = {} if number == 1 else columns_of(cohort[scans[0].case], case)
            changed = _changed(first, present, changes, scan.days)
            remarks = [str(changed["remarks"]), *_doubts_about(registered)]
            changed["remarks"] = "; ".join(filter(None, remarks))
            rows.append({
                **heading, **_measured(first, present, model), **changed, **registered,
                "mask": mask_text(case) or UNKNOWN,
                "model": str(label_id(case) or ModelId(UNKNOWN, model.digest)),
            })  # fmt: skip
    return _with_all_columns(rows)


def refits_of(cohort: Cohort, model: TissueModel, *, refits: int = REFITS, seed: int = 0) -> list[TissueModel]:
    """Return fits of cohorts that are drawn from the patients of a store: the uncertainty of its mixture.

    Patients are drawn with replacement, each with all scans; a case of no recorded patient is a patient of its own.

    Parameters
    ----------
    cohort : Cohort
        The store.
    model : TissueModel
        Its mixture, the start of the refits.
    refits : int
        Number of cohorts.
    seed : int
        Seed of the draws.

    Returns
    -------
    list of TissueModel
        None for a mixture that was given and not fitted, for fewer than two patients, and for more than `MOST_SCANS`
        scans.
    """
    if cohort.settings.get(FIT, {}).get("given") or model.n_components != len(TISSUES):
        return []
    if len(masked_cases(cohort)) > MOST_SCANS:
        return []
    return refit_over_patients(cohort, model, fit_of_store(cohort), refits=refits, seed=seed).models


def mean_change(rows: Sequence[Mapping[str, float | int | str]], level: float = LEVEL) -> MeanChange:
    """Return the mean change of lung involvement over patients, by the rows of ``followup.csv``.

    Parameters
    ----------
    rows : sequence of dict
        Rows of the table. The last scan of each patient counts.
    level : float
        Level of the interval, percent.
    """
    last = {str(row["patient"]): row for row in rows}
    corrected = [float(row[f"change_{INVOLVEMENT}_{CORRECTED}"]) for row in last.values()]
    finite = np.array([value for value in corrected if isfinite(value)])
    measured = [value for row in last.values() if isfinite(value := float(row[f"change_{INVOLVEMENT}"]))]
    value, half = (float(finite.mean()) if len(finite) else NAN), NAN
    if len(finite) > 1:
        half = float(stdtrit(len(finite) - 1, 0.5 + level / 200) * finite.std(ddof=1) / len(finite) ** 0.5)
    courses = [str(row["course"]) for row in last.values()]
    return MeanChange(
        len(last), len(rows), value, value - half, value + half, float(np.mean(measured)) if measured else NAN,
        courses.count(IMPROVED), courses.count(STABLE), courses.count(WORSE), level,
    )  # fmt: skip


def stored_followup(cohort: Cohort) -> list[Row]:
    """Return the rows of ``followup.csv``; none if the store has no such table."""
    return rows_of(cohort.read_text(FOLLOWUP_FILE) or "")


def fresh_rows(cohort: Cohort, names: Sequence[str], model: TissueModel) -> list[Row]:
    """Return the rows of ``followup.csv`` by the present histograms, see `followup_rows`."""
    refits = refits_of(cohort, model)
    return followup_rows(cohort, names, model, exclude_regions=excluded_regions(cohort), refits=refits)


def cases_with_other_values(stored: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """Return the cases whose stored rows differ from those expected, or of which only one of both has a row.

    Ends of intervals depend on fits, which may differ in their last digits between machines: they may differ by 0.05
    points.

    Parameters
    ----------
    stored, expected : sequence of dict
        Rows of ``followup.csv``; columns that `expected` lacks are not compared.
    """
    stored_rows, expected_rows = ({str(row["case"]): row for row in rows} for rows in (stored, expected))
    common = stored_rows.keys() & expected_rows.keys()
    others = [name for name in common if not _are_alike(stored_rows[name], expected_rows[name])]
    return sorted({*others, *(stored_rows.keys() ^ expected_rows.keys())})


def _are_alike(stored: Row, expected: Row) -> bool:
    if not all(_is_near(key, stored.get(key), value) for key, value in expected.items() if key != "course"):
        return False
    low, high = (float(stored[f"change_{INVOLVEMENT}_{CORRECTED}_{end}"]) for end in ("low", "high"))
    course = WORSE if low > 0 else IMPROVED if high < 0 else STABLE if isfinite(low) else ""
    return str(stored["course"]) == course


def _is_near(key: str, stored: float | int | str | None, expected: float | int | str) -> bool:
    if stored is None or isinstance(stored, str) or isinstance(expected, str):
        return str(stored) == str(expected)
    tolerance = 0.05 if key.endswith(("_low", "_high")) else 1e-6
    is_unknown = not isfinite(stored) and not isfinite(expected)
    return is_unknown or isclose(stored, expected, rel_tol=1e-9, abs_tol=tolerance)


def _days(scan: PatientScan) -> float | int:
    return NAN if scan.days is None else scan.days


def _measured(first: FollowupScan, scan: FollowupScan, model: TissueModel) -> Row:
    """Return the columns of a scan itself."""
    labels = labels_of(model)
    histograms = np.stack([scan.counts, *scan.regions.values()]).astype(np.float64)
    shares = percents(histograms, labels)
    of_lung = {key: float(value) for key, value in zip(SHARES, shares[0], strict=True)}
    volumes = {f"{tissue.key}_ml": of_lung[tissue.key] / 100 * scan.lung_ml for tissue in TISSUES}
    corrected = of_lung[INVOLVEMENT] if scan is first else involvement_at_volume(first, scan, model)
    of_regions = {f"{name}_{INVOLVEMENT}": float(shares[row, -1]) for row, name in enumerate(scan.regions, start=1)}
    mass = weighted_sum(scan.counts, np.maximum(1 + HU / 1000, 0)) * scan.voxel_ml
    return {
        "lung_ml": scan.lung_ml, **of_lung, f"{INVOLVEMENT}_{CORRECTED}": corrected, **volumes, "mass_g": mass,
        **of_regions,
    }  # fmt: skip


def _changed(first: FollowupScan, scan: FollowupScan, changes: Mapping[str, Change] | None, days: int | None) -> Row:
    """Return the columns of the changes since the first scan, which are NaN for the first scan itself."""
    nowhere = Change(NAN, NAN, NAN, NAN, NAN, NAN)
    keys = [*SHARES, *(f"{name}_{INVOLVEMENT}" for name in first.regions)]
    row: Row = {"change_lung_ml": NAN if changes is None else scan.lung_ml - first.lung_ml}
    for key in keys:
        change = nowhere if changes is None else changes.get(key, nowhere)
        row |= {
            f"change_{key}": change.value, f"change_{key}_low": change.low, f"change_{key}_high": change.high,
            f"change_{key}_{CORRECTED}": change.corrected,
            f"change_{key}_{CORRECTED}_low": change.corrected_low,
            f"change_{key}_{CORRECTED}_high": change.corrected_high,
        }  # fmt: skip
    row["course"] = "" if changes is None else changes[INVOLVEMENT].course
    same_day = ["same day as the first scan"] if days == 0 else []
    row["remarks"] = "" if changes is None else "; ".join([*same_day, *remarks_on_pair(first, scan)])
    return row


def _doubts_about(registered: Mapping[str, float | str]) -> list[str]:
    """Return what speaks against two scans being of one patient, by the columns of a registration."""
    similarity = float(registered.get("registration_similarity", NAN))
    if registered.get("registration") != DEFORMABLE or not similarity < DOUBTFUL_SIMILARITY:
        return []
    return [f"structure of the lungs differs (similarity {similarity:.2f}): are both scans of this patient?"]


def _with_all_columns(rows: Sequence[Row]) -> list[Row]:
    """Return rows with the columns of all rows, in the order of the data dictionary; NaN where a row lacks one."""
    keys = {key for row in rows for key in row}
    columns = [column.key for column in FOLLOWUP if column.key in keys]
    return [{key: row.get(key, "" if key == REGISTRATION[0].key else NAN) for key in columns} for row in rows]
