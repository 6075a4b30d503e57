"""Severity scores that are computed from the lung involvement: of the lungs, of six lung zones, and of five lobes.

All follow from histograms, so no voxel is read. What is uncertain in them is the mixture: it is fitted again to cohorts
that are drawn from the patients with replacement, and each refit gives other scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.analysis.bootstrap import LEAST_SCANS, check_refits
from lungmix.analysis.case_table import CaseTable, join_table
from lungmix.analysis.leave_one_out import fit_of_store
from lungmix.analysis.patient_refits import PatientRefits, refit_over_patients
from lungmix.analysis.severity_agreement import compare_with_reader
from lungmix.errors import StoreError, UsageError, count_of, first_of
from lungmix.kernels.severity import LIMITS, severity_scores, total_scores, zone_scores
from lungmix.mixture import TissueModel
from lungmix.parameters import FITS
from lungmix.stages.measure import comparable_measurements, excluded_regions, has_zones, measured_counts
from lungmix.store import Case, Cohort
from lungmix.store.models import record_of
from lungmix.store.patients import patients_by_case
from lungmix.store.schema import LABEL
from lungmix.tissue import INVOLVED, LOBES, LUNG_ZONES, LUNGS, TISSUES, ZONE_THIRDS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SIX_ZONES = tuple(f"{side.key}_{third.key}" for side, third in product(LUNGS, ZONE_THIRDS))
"""Lung zones of the 24-point score."""

FIVE_LOBES = tuple(lobe.key for lobe in LOBES)
"""Lobes of the 25-point score."""

SCORES = {"score": "S", "score_24": "24 points", "score_25": "25 points"}
"""Names and titles of the scores: of the lungs (0 to 5), of six zones (0 to 24), and of five lobes (0 to 25)."""

ALL_TISSUES, DENSE_TISSUES = "", "_dense"
"""Endings of the names of scores: by lung involvement, and by consolidation and other denser tissue alone."""

_TISSUES_OF = {ALL_TISSUES: INVOLVED, DENSE_TISSUES: ("consolidation", "other")}
_MISSING = -1


@dataclass(frozen=True)
class SeverityStudy:
    """Computed scores of the cases of a store.

    Attributes
    ----------
    rows : list of dict
        One row per case: ``case``; the columns of `SCORES`, each by both of `ALL_TISSUES` and `DENSE_TISSUES`, and with
        the bounds ``_low`` and ``_high`` of its interval; and the scores of the zones and lobes. NaN where a case has
        no zones, not all lobes, or no interval.
    summary : list of dict
        One row per score: ``score``, ``scans``, ``median``, ``lower_quartile``, ``upper_quartile``, ``mean``, and
        ``mean_low`` and ``mean_high``, the interval of the mean. The interval contains the choice of patients as well.
    agreement : list of dict
        Agreement with the scores of each reader, see `lungmix.analysis.severity_agreement.compare_with_reader`; empty
        without such scores.
    fit : str or None
        Name of the fit that was repeated; None if the labels are by a given model, whose scores have no intervals.
    patients, refits : int
        Number of patients that cohorts were drawn from, and number of these cohorts.
    level : float
        Level of the intervals, percent.
    detection_limit : float
        Largest involvement with the score 0, percent.
    notes : list of str
        Sentences about scores that are missing and intervals that are not reliable.
    """

    rows: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    agreement: list[dict[str, Any]]
    fit: str | None
    patients: int
    refits: int
    level: float
    detection_limit: float
    notes: list[str]


def study(
    cohort: Cohort,
    *,
    refits: int = 200,
    level: float = 95.0,
    detection_limit: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    reader: CaseTable | None = None,
    key: Mapping[str, Mapping[str, str]] | None = None,
) -> SeverityStudy:
    """Return the computed scores of all measured cases of a store, with intervals by refits of the mixture.

    Parameters
    ----------
    cohort : Cohort
        The store.
    refits : int
        Number of cohorts that are drawn from the patients, with replacement. All scans of a drawn patient are pooled.
    level : float
        Level of the intervals, percent.
    detection_limit : float
        Largest involvement with the score 0, percent.
    seed : int
        Seed of the draws.
    progress : callable, optional
        Called as ``progress(done, total)`` after each refit.
    reader : CaseTable, optional
        Table with scores of a reader, which are compared with the computed ones.
    key : mapping, optional
        Rows of a key table by case, by which the table may name scans and patients.

    Raises
    ------
    UsageError
        If a number is out of range, or the table cannot be compared.
    StoreError
        If no case is measured, cases have labels by several models, or the model has no tissues.
    """
    check_refits(refits, level)
    if not LIMITS[0] <= detection_limit < LIMITS[1]:
        raise UsageError(
            f"a detection limit of {detection_limit:g} % is not possible: give a number from 0 to below {LIMITS[1]:g} %"
        )
    names = [str(row["case"]) for row in comparable_measurements(cohort)]
    model = cohort.model
    if not names or model is None:
        raise StoreError("no case is measured: run `Pipeline.run(sources)` first")
    if model.n_components != len(TISSUES):
        raise StoreError("scores need a mixture of five components, one for each tissue: fit one first")
    model_names = {str(record_of(cohort[name], LABEL).get("model_name")) for name in names}
    fit = model_names.pop() if len(model_names) == 1 else None
    fit = fit if fit in FITS else None
    refitted = PatientRefits([], np.zeros((0, 0)), {})
    if fit is not None:
        parameters = fit_of_store(cohort, fit)
        refitted = refit_over_patients(cohort, model, parameters, refits=refits, seed=seed, progress=progress)
    models = [model, *refitted.models]
    involved = {ending: _involved(models, tissues) for ending, tissues in _TISSUES_OF.items()}
    rows, columns = [], []
    for name in names:
        row, scores = _scores_of(cohort[name], excluded_regions(cohort), involved, detection_limit, level)
        rows.append(row)
        columns.append(scores)
    drawn = np.zeros((len(refitted.times), len(names)))
    for k, name in enumerate(names):
        if name in refitted.patients:
            drawn[:, k] = refitted.times[:, refitted.patients[name]]
    summary = [
        _summary(key, np.stack([scores[key] for scores in columns]), drawn, level)
        for key in (f"{score}{ending}" for ending in _TISSUES_OF for score in SCORES)
    ]
    patients = refitted.n_patients
    notes = _notes(rows, fit, patients)
    agreement: list[dict[str, Any]] = []
    if reader is not None:
        joined = join_table(names, reader, key)
        patient_of = joined.patients | patients_by_case(cohort)
        agreement, uncompared = compare_with_reader(rows, reader, joined, patient_of, level=level, seed=seed)
        notes += uncompared
        fewest = min((row["scans"] for row in agreement), default=LEAST_SCANS)
        if fewest < LEAST_SCANS:
            notes.append(
                f"agreement of {fewest} scans is uncertain, and its intervals tend to be too narrow; use "
                f"{LEAST_SCANS} or more"
            )
        if joined.unmatched:
            notes.append(f"in the table, but not measured: {first_of(joined.unmatched)}")
    return SeverityStudy(rows, summary, agreement, fit, patients, len(refitted.models), level, detection_limit, notes)


def _involved(models: Sequence[TissueModel], tissues: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which HU each model labels as one of some tissues: shape (models, 65536)."""
    labels = [tissue.label for tissue in TISSUES if tissue.key in tissues]
    return np.stack([np.isin(model.lookup_table(), labels) for model in models])


def _scores_of(
    case: Case,
    excluded: Sequence[Any],
    involved: Mapping[str, npt.NDArray[np.bool_]],
    detection_limit: float,
    level: float,
) -> tuple[dict[str, Any], dict[str, Ints]]:
    """Return the row of a case, and each score under each model; the first model is that of the store."""
    histograms = dict(_histograms(case, excluded))
    row: dict[str, Any] = {"case": case.name}
    parts: dict[str, Any] = {}
    by_model: dict[str, Ints] = {}
    for ending, is_involved in involved.items():
        percents = {name: _percents(counts, is_involved) for name, counts in histograms.items()}
        zones = np.stack([zone_scores(percents[name], detection_limit) for name in SIX_ZONES], axis=-1)
        lobes = np.stack([severity_scores(percents[name], detection_limit) for name in FIVE_LOBES], axis=-1)
        of_lungs = severity_scores(percents["lung"], detection_limit)
        for score, values in zip(SCORES, (of_lungs, total_scores(zones), total_scores(lobes)), strict=True):
            key = f"{score}{ending}"
            by_model[key] = values
            row |= _with_interval(key, values, level)
        if ending == ALL_TISSUES:
            of_parts = zip((*SIX_ZONES, *FIVE_LOBES), (*zones[0].tolist(), *lobes[0].tolist()), strict=True)
            parts = {f"score_{name}": _or_nan(value) for name, value in of_parts}
    return row | parts, by_model


def _histograms(case: Case, excluded: Sequence[Any]) -> Iterator[tuple[str, npt.NDArray[np.uint64]]]:
    """Yield the histograms of the lung, of six zones and of five lobes; they are empty if the case has no zones."""
    lung = measured_counts(case, excluded)
    yield "lung", lung
    zones = case.zone_counts if has_zones(case) else None
    for side, third in product(LUNGS, ZONE_THIRDS):
        rows = [zone.label - 1 for zone in LUNG_ZONES if (zone.side, zone.third) == (side, third)]
        yield f"{side.key}_{third.key}", np.zeros_like(lung) if zones is None else zones[rows].sum(axis=0)
    lobes = case.lobe_counts
    for lobe in LOBES:
        yield lobe.key, np.zeros_like(lung) if lobes is None else lobes[lobe.label - 1]


def _percents(counts: npt.NDArray[np.uint64], is_involved: npt.NDArray[np.bool_]) -> Floats:
    """Return the percentage of voxels with involved HU under each model; NaN without voxels."""
    present = np.flatnonzero(counts)
    if not len(present):
        return np.full(len(is_involved), np.nan)
    # Sums of whole numbers are exact in double precision.
    involved = is_involved[:, present].astype(np.float64) @ counts[present].astype(np.float64)
    return np.asarray(100.0 * involved / float(counts.sum()), np.float64)


def _with_interval(key: str, values: Ints, level: float) -> dict[str, Any]:
    """Return a score with the bounds of its interval, which are scores of refits."""
    low = high = _MISSING
    if len(values) > 1:
        tail = (100 - level) / 2
        low = int(np.percentile(values[1:], tail, method="lower"))
        high = int(np.percentile(values[1:], 100 - tail, method="higher"))
    return {key: _or_nan(values[0]), f"{key}_low": _or_nan(low), f"{key}_high": _or_nan(high)}


def _or_nan(value: int) -> float | int:
    return float("nan") if value == _MISSING else int(value)


def _summary(key: str, values: Ints, drawn: Floats, level: float) -> dict[str, Any]:
    """Return the distribution of a score over cases, and the interval of its mean over drawn patients.

    `values` has a row per case and a column per model, `drawn` a row per refit and a column per case.
    """
    scored = values[:, 0] != _MISSING
    valid = values[scored]
    quartiles = np.percentile(valid[:, 0], [50, 25, 75]) if scored.any() else np.full(3, np.nan)
    mean = float(valid[:, 0].mean()) if scored.any() else float("nan")
    low = high = float("nan")
    if len(drawn) and scored.any():
        weights = drawn[:, scored]
        with np.errstate(invalid="ignore"):
            means = (weights * valid[:, 1:].T).sum(axis=1) / weights.sum(axis=1)
        tail = (100 - level) / 2
        low, high = (float(bound) for bound in np.nanpercentile(means, [tail, 100 - tail]))
    median, lower, upper = (float(value) for value in quartiles)
    return {
        "score": key, "scans": int(scored.sum()), "median": median, "lower_quartile": lower, "upper_quartile": upper,
        "mean": mean, "mean_low": low, "mean_high": high,
    }  # fmt: skip


def _notes(rows: Sequence[Mapping[str, Any]], fit: str | None, patients: int) -> list[str]:
    notes = []
    for key, reason in (
        ("score_24", "no lung zones: `Pipeline.zones()` makes them"),
        ("score_25", "not all five lobes: give masks that distinguish lobes, `masks=PLACE`"),
    ):
        missing = sum(np.isnan(row[key]) for row in rows)
        if missing:
            notes.append(f"{count_of(missing, 'case')} of {len(rows)} without {SCORES[key]}: {reason}")
    if fit is None:
        notes.append("labels are not by a fit of this store, so that the scores have no intervals")
    elif patients < 2:
        notes.append("the scores have no intervals, which need the scans of two patients or more")
    elif patients < LEAST_SCANS:
        notes.append(f"{patients} patients are too few, and intervals tend to be too narrow; use {LEAST_SCANS} or more")
    return notes
