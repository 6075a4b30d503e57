"""Measure: reads the histograms of all cases and the model, writes the tables of measurements; reads no voxel.

Before the labels of a case change, its rows are dropped from the tables. So the tables are correct even after a command
that was killed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import StoreError
from lungmix.kernels.data_dictionary import (
    BY_LOBES,
    DENSE_COLUMNS,
    EVALUATION,
    EVALUATION_HU,
    EXPECTED,
    FOLLOWUP,
    HARMONISED_COLUMNS,
    MEASUREMENTS,
    QUALITY,
    RADIOMICS,
    ZONES,
)
from lungmix.kernels.measures import component_keys, measure_dense, measure_lobes, measure_scan, measure_zones, sum_of
from lungmix.kernels.radiomics import first_order
from lungmix.mixture import TissueModel
from lungmix.parameters import NO_HARMONISATION
from lungmix.quality_flags import QualityParameters
from lungmix.stages import lung_zones, quality, regions
from lungmix.stages.comparisons import SEGMENTS
from lungmix.stages.flags import exact_parts, quality_row, raised_flags
from lungmix.store import MEASUREMENTS_FILE, QUALITY_FILE, ZONES_FILE, Case, Cohort, CohortWriter, parquet_name
from lungmix.store.choices import last_quality
from lungmix.store.models import ModelId, harmonised_text, label_id, mask_text, record_of
from lungmix.store.schema import (
    ARRAYS,
    CASE_TABLES,
    EVALUATIONS,
    FOLLOWUP_FILE,
    FROM_FILE,
    MASK,
    PATIENTS_SETTING,
    STAGES,
    ZONE,
)
from lungmix.store.tables import Row, lines_of, parquet_of, rows_of, text_of, without_lines
from lungmix.tissue import SIDES, Tissue

WORDS = ("case", "mask", "model", HARMONISED_COLUMNS[0].key)
"""Text columns of ``measurements.csv``; all others are numeric."""

UNKNOWN = "unknown"
_SETTING = "tables"


def measure_cohort(
    cohort: Cohort,
    names: Sequence[str],
    model: TissueModel,
    exclude_regions: Sequence[Tissue] = (),
    file: str = MEASUREMENTS_FILE,
    measured: Sequence[Row] = (),
) -> list[Row]:
    """Measure cases and write a table as ``.csv`` and ``.parquet``.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    names : sequence of str
        Labelled cases.
    model : TissueModel
        The mixture of their labels.
    exclude_regions : sequence of Tissue
        Regions of the mask that do not count as lung in the whole-mask columns.
    file : str
        File name of the table. ``measurements.csv`` has one row per case. ``qc.csv`` has flags by the thresholds of
        the store, one row per case. ``radiomics.csv`` has first-order features of the lung and of each tissue (labels
        without median filter), one row per region of a case. ``zones.csv`` has one row per lung zone, and per sum of
        zones, of each case with lung zones, and one per lobe of each case with lobes.
    measured : sequence of dict
        Rows of ``measurements.csv`` of the same cases, which ``qc.csv`` needs; rows that are not given are computed.

    Returns
    -------
    list of dict
        Rows, with the columns of `lungmix.kernels.data_dictionary.MEASUREMENTS`, `QUALITY`, `RADIOMICS` or `ZONES`.
    """
    thresholds = last_quality(cohort)
    rows_by_case = {row["case"]: row for row in measured}
    rows = [
        row
        for name in names
        for row in rows_of_case(cohort[name], file, model, exclude_regions, thresholds, rows_by_case.get(name))
    ]
    if any(DENSE_COLUMNS[0].key in row for row in rows):
        rows = with_dense_columns(rows)
    if any(HARMONISED_COLUMNS[0].key in row for row in rows):
        rows = with_harmonised_columns(rows)
    if not rows:
        # A table is written with the columns of its rows. Without rows, keep the header of the stored table.
        drop_rows(cohort, lines_of(cohort.read_text(file) or "")[1])
        return rows
    keys = [region.key for region in SIDES if region in exclude_regions]
    if [region.key for region in excluded_regions(cohort)] != keys:
        # Record the setting before the tables are written. If the command is killed between the two, `lungmix verify`
        # finds rows that do not match the setting, and the next run replaces them.
        CohortWriter(cohort).record_settings(**{_SETTING: {"leave_out": keys}})
    write_table(cohort, file, text_of(rows))
    return rows


def rows_of_case(
    case: Case,
    file: str,
    model: TissueModel,
    exclude_regions: Sequence[Tissue] = (),
    thresholds: QualityParameters | None = None,
    measured: Row | None = None,
) -> list[Row]:
    """Return the rows of a labelled case in a table; none in ``zones.csv`` if it has neither lung zones nor lobes.

    Parameters
    ----------
    case : Case
        The labelled case.
    file : str
        File name of the table, one of `TABLES`.
    model, exclude_regions : TissueModel, sequence of Tissue
        See `measure_cohort`.
    thresholds : QualityParameters, optional
        Thresholds of quality control.
    measured : dict, optional
        Row of the case in ``measurements.csv``; by default it is computed if the table needs it.
    """
    if file == QUALITY_FILE:
        row = measured or rows_of_case(case, MEASUREMENTS_FILE, model, exclude_regions)[0]
        return [quality_row(case, row, thresholds)]
    region_histograms = case.side_counts if case.geometry.orientation_known and regions.is_valid(case) else None
    table, posteriors = _tables_of(model)
    provenance = {"mask": mask_text(case) or UNKNOWN, "model": str(label_id(case) or ModelId(UNKNOWN, model.digest))}
    if file == MEASUREMENTS_FILE:
        faces = case.stages[regions.STAGE]["touches"] if region_histograms is not None else {}
        touches = {key: bool(hit) for key, hit in faces.items()} if region_histograms is not None else None
        rejected = case.stages[regions.STAGE].get(regions.REJECTED) if regions.is_valid(case) else None
        values = measure_scan(
            case.hu_counts,
            region_histograms,
            table,
            case.geometry.voxel_ml,
            touches,
            exclude_regions,
            rejected,
            posteriors,
        )
        moved = ("left_out_ml", "rejected_ml", *(key for key in values if key.endswith(EXPECTED)))
        after_provenance = {key: values.pop(key) for key in moved}
        parts = case.region_counts
        dense = {} if parts is None else measure_dense(parts, table, case.geometry.voxel_ml, posteriors)
        harmonised = {HARMONISED_COLUMNS[0].key: text} if (text := harmonised_text(case)) is not None else {}
        return [{"case": case.name, **values, **provenance, **after_provenance, **dense, **harmonised}]
    if file == ZONES_FILE:
        zone_rows: list[Row] = []
        if has_zones(case):
            zones = measure_zones(case.zone_counts, table, case.geometry.voxel_ml, posteriors)
            zone_rows += [{**row, "by": str(case.stages[ZONE]["by"])} for row in zones]
        if (lobe_histograms := case.lobe_counts) is not None:
            lobes = measure_lobes(lobe_histograms, table, case.geometry.voxel_ml, posteriors)
            zone_rows += [{**row, "by": BY_LOBES} for row in lobes]
        return [{"case": case.name, **row, **provenance} for row in zone_rows]
    rows: list[Row] = []
    lung_histogram = measured_counts(case, exclude_regions)
    for label_value, region in enumerate(["lung", *component_keys(model.n_components)]):
        histogram = lung_histogram if label_value == 0 else np.where(table == label_value, lung_histogram, np.uint64(0))
        features = first_order(histogram, case.geometry.voxel_ml * 1000)
        columns: Row = {"case": case.name, "region": region, "label": label_value, "voxels": int(histogram.sum())}
        rows.append({**columns, **provenance, **features})
    return rows


def has_zones(case: Case) -> bool:
    """Return True if a labelled case has lung zones of its present mask, and its orientation is known."""
    return case.geometry.orientation_known and lung_zones.is_valid(case)


def has_zone_rows(case: Case) -> bool:
    """Return True if a labelled case has rows in ``zones.csv``: it has lung zones, or lobes of a given mask."""
    return has_zones(case) or case.has_lobes


def measured_counts(case: Case, exclude_regions: Sequence[Tissue]) -> npt.NDArray[np.uint64]:
    """Return the histogram of the voxels of a case that count as lung, uint64 of shape (65536,)."""
    has_regions = case.geometry.orientation_known and regions.is_valid(case)
    return case.hu_counts - sum_of(case.side_counts if has_regions else None, exclude_regions)


@lru_cache(maxsize=4)
def _tables_of(model: TissueModel) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Return label and posteriors by HU; computed once for all cases of a cohort."""
    return model.lookup_table(), model.posterior_table()


def with_dense_columns(rows: Sequence[Row]) -> list[Row]:
    """Return rows with the columns of dense lung, which are NaN for masks of other presets than ``anatomical``."""
    return [row | {column.key: row.get(column.key, float("nan")) for column in DENSE_COLUMNS} for row in rows]


def with_harmonised_columns(rows: Sequence[Row]) -> list[Row]:
    """Return rows with the column of harmonisation at their end, which is ``none`` for scans without it."""
    key = HARMONISED_COLUMNS[0].key
    return [{**{name: row[name] for name in row if name != key}, key: row.get(key, NO_HARMONISATION)} for row in rows]


def without_expected_columns(rows: Sequence[Row], present: Collection[str] = ()) -> list[Row]:
    """Return rows without columns of expected values, some or all of which tables of earlier versions do not have.

    Columns whose names are in `present` stay.
    """
    return [{key: row[key] for key in row if key in present or not key.endswith(EXPECTED)} for row in rows]


def excluded_regions(cohort: Cohort) -> list[Tissue]:
    """Return the regions of the mask that do not count as lung in the stored tables."""
    keys = cohort.settings.get(_SETTING, {}).get("leave_out", [])
    return [region for region in SIDES if region.key in keys]


def drop_rows(cohort: Cohort, names: Collection[str]) -> None:
    """Drop the rows of cases from the tables; headers and other rows keep their bytes."""
    _drop_lines(cohort, dict.fromkeys(names, STAGES))


def drop_stale_rows(cohort: Cohort, stale: Callable[[Case], Collection[str]]) -> None:
    """Drop the rows of cases that are about to change, because a stage is about to be recomputed.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    stale : callable
        Called with a case. Returns the names of its stages whose results will or may change.
    """
    if any(cohort.read_text(file) for file in _tables_in(cohort)):
        _drop_lines(cohort, {name: stages for name, case in cohort.items() if (stages := stale(case))})


def _drop_lines(cohort: Cohort, stale: Mapping[str, Collection[str]]) -> None:
    """Drop the rows of cases with stale stages.

    In tables of evaluations, only rows of segments whose image a stale stage writes are dropped. On lung zones depend
    only the tables of zones and of the follow-up.
    """
    beyond_zones = {name: stages for name, stages in stale.items() if {*stages} != {ZONE}}
    for file in _tables_in(cohort):
        text = cohort.read_text(file)
        selected = stale if file in (ZONES_FILE, FOLLOWUP_FILE) else beyond_zones
        if file == FOLLOWUP_FILE:
            selected = _with_scans_of_patients(text or "", selected)
        if not text or lines_of(text)[1].keys().isdisjoint(selected):
            continue

        def is_stale(
            name: str, line: str, file: str = file, selected: Mapping[str, Collection[str]] = selected
        ) -> bool:
            return name in selected and (file not in EVALUATIONS or _stage_of_row(line) in {*selected[name], None})

        kept = without_lines(text, is_stale)
        if kept != text:
            write_table(cohort, file, kept)


def _tables_in(cohort: Cohort) -> tuple[str, ...]:
    """Return the tables that a store may have; only a store that records its patients has that of the follow-up."""
    return (
        CASE_TABLES
        if PATIENTS_SETTING in cohort.settings
        else tuple(file for file in CASE_TABLES if file != FOLLOWUP_FILE)
    )


def _with_scans_of_patients(text: str, stale: Mapping[str, Collection[str]]) -> dict[str, Collection[str]]:
    """Return the stale cases, and all cases of the patients whose first scan is stale or who have one row left."""
    rows_by_patient: dict[str, list[Row]] = {}
    for row in rows_of(text):
        rows_by_patient.setdefault(str(row["patient"]), []).append(row)
    selected = dict(stale)
    for rows in rows_by_patient.values():
        stages = [stale[str(row["case"])] for row in rows if str(row["case"]) in stale]
        is_first_stale = any(row["scan"] == 1 and str(row["case"]) in stale for row in rows)
        if stages and (is_first_stale or len(rows) - len(stages) < 2):
            selected |= {str(row["case"]): stages[0] for row in rows}
    return selected


def _stage_of_row(line: str) -> str | None:
    """Return the stage that writes the segment of a row of an evaluation; None if it names no segment."""
    cells = line.split(",", 2)
    segment = SEGMENTS.get(cells[1].strip()) if len(cells) > 1 else None
    return None if segment is None else ARRAYS[segment[0]].stage


def measured_cases(cohort: Cohort) -> set[str]:
    """Return the names of all cases with rows in any table, including cases that the store no longer holds."""
    return {name for file in _tables_in(cohort) for name in lines_of(cohort.read_text(file) or "")[1]}


def read_measurements(cohort: Cohort) -> list[Row]:
    """Return the rows of ``measurements.csv`` of cases that have labels; empty if there is no table."""
    text = cohort.read_text(MEASUREMENTS_FILE)
    if not text:
        return []
    labelled = {name for name, case in cohort.items() if case.has_labels}
    return [
        {key: value if key in WORDS else float(value) for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(text))
        if row.get("case") in labelled
    ]


def comparable_measurements(cohort: Cohort) -> list[Row]:
    """Return the rows of `read_measurements` if they may be compared with each other.

    Raises
    ------
    StoreError
        If rows belong to labels by several models, or to masks with several parameters.
    """
    rows = read_measurements(cohort)
    for column, difference in (("model", "models"), ("mask", "kinds of masks")):
        kinds = dict.fromkeys(str(row[column]) for row in rows if column in row)
        if len(kinds) > 1:
            remedy = "run `Pipeline.run(sources)` first"
            if column == "mask" and any(FROM_FILE in record_of(case, MASK) for case in cohort.values()):
                # Another run would keep masks from files, so it is no remedy.
                remedy = "give a mask for every case, `masks=PLACE`, or have all computed, `masks='none'`"
            raise StoreError(
                f"{MEASUREMENTS_FILE} has rows of {len(kinds)} different {difference} ({', '.join(kinds)}), "
                f"which cannot be compared: {remedy}"
            )
    return rows


def stored_rows(cohort: Cohort) -> list[Row]:
    """Return all rows of ``measurements.csv`` with their types; none if a numeric column holds text."""
    rows = rows_of(cohort.read_text(MEASUREMENTS_FILE) or "")
    plain = all(isinstance(value, float | int) for row in rows for key, value in row.items() if key not in WORDS)
    return rows if plain else []


def quality_details(cohort: Cohort, case: Case) -> dict[str, Any]:
    """Return the flags and the numbers of quality control of a case, by the thresholds of its store.

    Returns
    -------
    dict
        ``flags``: the raised flags by name, missing if there are none. ``quality``: the recorded numbers, with volumes
        as in ``qc.csv``, or the text ``not measured``.
    """
    row = next((row for row in stored_rows(cohort) if row["case"] == case.name), None)
    flags = {flag.name: flag.to_dict() for flag in raised_flags(case, last_quality(cohort), row)}
    details: dict[str, Any] = {"flags": flags} if flags else {}
    if quality.is_unmeasured(case):
        # The record may hold numbers of an earlier mask, which do not describe the present one.
        details["quality"] = quality.NOT_MEASURED
    elif case.quality:
        details["quality"] = {**case.quality, **exact_parts(case)}
    return details


def dictionary() -> dict[str, list[dict[str, str]]]:
    """Return the columns of the tables with unit and meaning."""
    return {
        name: [{"column": column.key, "unit": column.unit, "meaning": column.meaning} for column in columns]
        for name, columns in (
            ("measurements", MEASUREMENTS),
            ("dense_lung", DENSE_COLUMNS),
            ("harmonised", HARMONISED_COLUMNS),
            ("zones", ZONES),
            ("followup", FOLLOWUP),
            ("radiomics", RADIOMICS),
            ("qc", QUALITY),
            ("evaluation", EVALUATION),
            ("evaluation_hu", EVALUATION_HU),
        )
    }


def write_table(cohort: Cohort, file: str, text: str) -> None:
    """Write a table as CSV and as Parquet."""
    # The CSV is written last: if the command is killed before, its stale rows remain and the next run drops them.
    writer = CohortWriter(cohort)
    writer.write_bytes(parquet_name(file), parquet_of(text))
    writer.write_text(file, text)
