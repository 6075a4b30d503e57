"""Measure: reads the counts of all cases and the model, writes the tables of measurements; touches no voxel.

Rows of cases whose labels are about to change are taken out before they do: what stands in a table is true, also after
a command that was killed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Sequence

import numpy as np

from lungmix.errors import StoreError
from lungmix.kernels.data_dictionary import MEASUREMENTS, RADIOMICS
from lungmix.kernels.measures import component_keys, measure_scan, sum_of
from lungmix.kernels.radiomics import first_order
from lungmix.mixture import TissueModel
from lungmix.stages import label, regions
from lungmix.store import MEASUREMENTS_FILE, RADIOMICS_FILE, Case, Cohort, parquet_name
from lungmix.store.models import ModelId, label_id, mask_text
from lungmix.store.tables import Row, lines_of, parquet_of, rows_of, text_of, without
from lungmix.tissue import SIDES, Tissue

TABLES = (MEASUREMENTS_FILE, RADIOMICS_FILE)
WORDS = ("case", "mask", "model")
"""Columns of ``measurements.csv`` that hold words; all others hold numbers."""

UNKNOWN = "unknown"
_SETTING = "tables"


def measure_cohort(
    cohort: Cohort, names: Sequence[str], model: TissueModel, leave_out: Sequence[Tissue] = ()
) -> list[Row]:
    """Measure cases and write ``measurements.csv`` and ``measurements.parquet``, one row a case.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing.
    names : sequence of str
        Labelled cases.
    model : TissueModel
        The mixture of their labels.
    leave_out : sequence of Tissue
        Parts of the mask that do not count as lung in the columns without a side.

    Returns
    -------
    list of dict
        The rows; `lungmix.kernels.data_dictionary.MEASUREMENTS` says what columns mean.
    """
    return _write_all(cohort, MEASUREMENTS_FILE, names, model, leave_out)


def radiomics_of_cohort(
    cohort: Cohort, names: Sequence[str], model: TissueModel, leave_out: Sequence[Tissue] = ()
) -> list[Row]:
    """First-order features of the lung and of each tissue of cases; writes ``radiomics.csv`` and ``.parquet``.

    Parameters are those of `measure_cohort`; `lungmix.kernels.data_dictionary.RADIOMICS` says what columns mean.
    Tissues are
    those of the labels voxel by voxel, before the median filter.
    """
    return _write_all(cohort, RADIOMICS_FILE, names, model, leave_out)


def rows_of_case(case: Case, file: str, model: TissueModel, leave_out: Sequence[Tissue] = ()) -> list[Row]:
    """What a table holds of a labelled case.

    Parameters
    ----------
    case : Case
        Whose counts are read.
    file : str
        One of `TABLES`.
    model, leave_out : TissueModel, sequence of Tissue
        See `measure_cohort`.
    """
    sides = case.side_counts if case.geometry.orientation_known and regions.is_valid(case) else None
    table = model.lookup_table()
    made = {"mask": mask_text(case) or UNKNOWN, "model": str(label_id(case) or ModelId(UNKNOWN, model.digest))}
    if file == MEASUREMENTS_FILE:
        faces = case.stages[regions.STAGE]["touches"] if sides is not None else {}
        touches = {key: bool(hit) for key, hit in faces.items()} if sides is not None else None
        rejected = case.stages[regions.STAGE].get(regions.REJECTED) if regions.is_valid(case) else None
        values = measure_scan(case.hu_counts, sides, table, case.geometry.voxel_ml, touches, leave_out, rejected)
        excluded = {key: values.pop(key) for key in ("left_out_ml", "rejected_ml")}
        return [{"case": case.name, **values, **made, **excluded}]
    rows: list[Row] = []
    counts = case.hu_counts - sum_of(sides, leave_out)
    for number, region in enumerate(["lung", *component_keys(model.n_components)]):
        own = counts if number == 0 else np.where(table == number, counts, np.uint64(0))
        features = first_order(own, case.geometry.voxel_ml * 1000)
        head: Row = {"case": case.name, "region": region, "label": number, "voxels": int(own.sum())}
        rows.append({**head, **made, **features})
    return rows


def excluded_regions(cohort: Cohort) -> list[Tissue]:
    """Parts of the mask that do not count as lung in the tables as they stand."""
    keys = cohort.settings.get(_SETTING, {}).get("leave_out", [])
    return [one for one in SIDES if one.key in keys]


def drop_rows(cohort: Cohort, names: Collection[str]) -> None:
    """Take the rows of cases out of the tables; heads and other rows stay as they are, to the byte."""
    for file in TABLES:
        text = cohort.read_text(file)
        if text and not lines_of(text)[1].keys().isdisjoint(names):
            _write(cohort, file, without(text, names))


def drop_stale_rows(cohort: Cohort, is_stale: Callable[[Case], bool]) -> None:
    """Take out the rows of cases before what they were measured on is made anew.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing.
    is_stale : callable
        Whether a case is about to change. A case of which it cannot be told counts as one that is.
    """
    if any(cohort.read_text(file) for file in TABLES):
        drop_rows(cohort, {name for name, case in cohort.items() if is_stale(case)})


def measured_cases(cohort: Cohort) -> set[str]:
    """Cases that a table has rows of, in the store or not."""
    return {name for file in TABLES for name in lines_of(cohort.read_text(file) or "")[1]}


def read_measurements(cohort: Cohort) -> list[Row]:
    """Return the table as it stands in the store, without rows of cases that have no labels; empty if there is none."""
    text = cohort.read_text(MEASUREMENTS_FILE)
    if not text:
        return []
    labelled = {name for name, case in cohort.items() if label.STAGE in {*case.stages, *case.damage}}
    return [
        {key: value if key in WORDS else float(value) for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(text))
        if row.get("case") in labelled
    ]


def comparable_measurements(cohort: Cohort) -> list[Row]:
    """Return the rows of `read_measurements`, which may be compared with each other.

    Raises
    ------
    StoreError
        If they are of labels by several models, or of masks of several sizes.
    """
    rows = read_measurements(cohort)
    for column, what in (("model", "labels by several models"), ("mask", "masks of several sizes")):
        kinds = dict.fromkeys(str(row[column]) for row in rows if column in row)
        if len(kinds) > 1:
            raise StoreError(
                f"{MEASUREMENTS_FILE} has rows of {what} ({', '.join(kinds)}), which cannot be compared: "
                f"run `lungmix run {cohort.url} SOURCE` first"
            )
    return rows


def stored_rows(cohort: Cohort) -> list[Row]:
    """All rows of ``measurements.csv``, with the types that they were written from; none if they are not numbers."""
    rows = rows_of(cohort.read_text(MEASUREMENTS_FILE) or "")
    plain = all(isinstance(value, float | int) for row in rows for key, value in row.items() if key not in WORDS)
    return rows if plain else []


def dictionary() -> dict[str, list[dict[str, str]]]:
    """Columns of both tables with unit and meaning."""
    return {
        name: [{"column": one.key, "unit": one.unit, "meaning": one.meaning} for one in columns]
        for name, columns in (("measurements", MEASUREMENTS), ("radiomics", RADIOMICS))
    }


def _write_all(
    cohort: Cohort, file: str, names: Sequence[str], model: TissueModel, leave_out: Sequence[Tissue]
) -> list[Row]:
    rows = [row for name in names for row in rows_of_case(cohort[name], file, model, leave_out)]
    if not rows:
        # What columns there are follows from rows; the head of a table that was there stays.
        drop_rows(cohort, lines_of(cohort.read_text(file) or "")[1])
        return rows
    if [one.key for one in excluded_regions(cohort)] != [one.key for one in SIDES if one in leave_out]:
        # Before the tables: rows of other parts are found by `lungmix verify`, and the next run writes them again.
        cohort.record_settings(**{_SETTING: {"leave_out": [one.key for one in SIDES if one in leave_out]}})
    _write(cohort, file, text_of(rows))
    return rows


def _write(cohort: Cohort, file: str, text: str) -> None:
    # The text comes last: while it has rows that are to go, the same command takes them out again.
    cohort.write_bytes(parquet_name(file), parquet_of(text))
    cohort.write_text(file, text)
