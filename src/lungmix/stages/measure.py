"""Measure: reads the counts of all cases and the model, writes the tables of measurements; touches no voxel."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from lungmix.kernels.columns import MEASUREMENTS, RADIOMICS
from lungmix.kernels.measures import component_keys, measure_scan, sum_of
from lungmix.kernels.radiomics import first_order
from lungmix.mixture import TissueModel
from lungmix.stages import side
from lungmix.store import MEASUREMENTS_FILE, RADIOMICS_FILE, Cohort, parquet_name
from lungmix.store.tables import parquet_of
from lungmix.tissue import Tissue

Row = dict[str, float | int | str]


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
        The rows; `lungmix.kernels.columns.MEASUREMENTS` says what columns mean.
    """
    table = model.table()
    rows: list[Row] = []
    for name in names:
        case = cohort[name]
        known = side.is_valid(case)
        faces = case.stages[side.STAGE]["touches"] if known else {}
        touches = {key: bool(hit) for key, hit in faces.items()} if known else None
        sides = case.side_counts if known else None
        values = measure_scan(case.hu_counts, sides, table, case.geometry.voxel_ml, touches, leave_out)
        rows.append({"case": name, **values})
    _write(cohort, MEASUREMENTS_FILE, rows)
    return rows


def radiomics_of_cohort(
    cohort: Cohort, names: Sequence[str], model: TissueModel, leave_out: Sequence[Tissue] = ()
) -> list[Row]:
    """First-order features of the lung and of each tissue of cases; writes ``radiomics.csv`` and ``.parquet``.

    Parameters are those of `measure_cohort`; `lungmix.kernels.columns.RADIOMICS` says what columns mean. Tissues are
    those of the labels voxel by voxel, before the median filter.
    """
    table = model.table()
    rows: list[Row] = []
    for name in names:
        case = cohort[name]
        counts = case.hu_counts - sum_of(case.side_counts if side.is_valid(case) else None, leave_out)
        for label, region in enumerate(["lung", *component_keys(model.n_components)]):
            own = counts if label == 0 else np.where(table == label, counts, np.uint64(0))
            features = first_order(own, case.geometry.voxel_ml * 1000)
            rows.append({"case": name, "region": region, "label": label, "voxels": int(own.sum()), **features})
    _write(cohort, RADIOMICS_FILE, rows)
    return rows


def read_measurements(cohort: Cohort) -> list[Row]:
    """The table as it stands in the store; empty if there is none."""
    text = cohort.read_text(MEASUREMENTS_FILE) or ""
    return [
        {key: value if key == "case" else float(value) for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]


def dictionary() -> dict[str, list[dict[str, str]]]:
    """Columns of both tables with unit and meaning."""
    return {
        name: [{"column": one.key, "unit": one.unit, "meaning": one.meaning} for one in columns]
        for name, columns in (("measurements", MEASUREMENTS), ("radiomics", RADIOMICS))
    }


def _write(cohort: Cohort, file: str, rows: list[Row]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    cohort.write_text(file, text.getvalue())
    cohort.write_bytes(parquet_name(file), parquet_of(rows))
