"""Measure: reads the counts of all cases and the model, writes the table of measurements; touches no voxel."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from lungmix.kernels.measures import measure_counts
from lungmix.mixture import TissueModel
from lungmix.store import MEASUREMENTS_FILE, Cohort

Row = dict[str, float | int | str]


def measure_cohort(cohort: Cohort, names: Sequence[str], model: TissueModel) -> list[Row]:
    """Measure cases and write ``measurements.csv``, one row a case.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing.
    names : sequence of str
        Labelled cases.
    model : TissueModel
        The mixture of their labels.

    Returns
    -------
    list of dict
        The rows; see `lungmix.kernels.measures.measure_counts` for columns and units.
    """
    table = model.table()
    rows: list[Row] = []
    for name in names:
        case = cohort[name]
        rows.append({"case": name, **measure_counts(case.hu_counts, table, case.geometry.voxel_ml)})
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    cohort.write_text(MEASUREMENTS_FILE, text.getvalue())
    return rows


def read_measurements(cohort: Cohort) -> list[Row]:
    """The table as it stands in the store; empty if there is none."""
    text = cohort.read_text(MEASUREMENTS_FILE) or ""
    return [
        {key: value if key == "case" else float(value) for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]
