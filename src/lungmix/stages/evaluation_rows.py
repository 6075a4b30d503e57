"""Rows of the tables ``evaluation.csv`` and ``evaluation_hu.csv``, the agreement of cases with their references."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lungmix.kernels.data_dictionary import EVALUATION, EVALUATION_HU, Column
from lungmix.stages.comparisons import SEGMENTS
from lungmix.stages.evaluation import BIN_HU, Agreement
from lungmix.stages.measure import UNKNOWN, write_table
from lungmix.store import Case, Cohort
from lungmix.store.models import label_id, mask_text
from lungmix.store.schema import EVALUATION_FILE, EVALUATION_HU_FILE
from lungmix.store.tables import Row, lines_of, rows_of, text_of, without

COLUMNS: dict[str, tuple[Column, ...]] = {EVALUATION_FILE: EVALUATION, EVALUATION_HU_FILE: EVALUATION_HU}
"""Columns of the tables by file name."""


def rows_of_agreement(case: Case, agreements: Sequence[Agreement], grid: str) -> dict[str, list[Row]]:
    """Return the rows of a case, by file name of the table.

    Parameters
    ----------
    case : Case
        The case.
    agreements : sequence of Agreement
        Result of `lungmix.stages.evaluation.compare`.
    grid : {"same", "resampled"}
        ``"same"`` if the reference had the grid of the scan, ``"resampled"`` if it was resampled to it.
    """
    mask, model = mask_text(case) or UNKNOWN, str(label_id(case) or UNKNOWN)
    rows: list[Row] = []
    by_hu: list[Row] = []
    for agreement in agreements:
        key: Row = {"case": case.name, "region": agreement.region}
        # Only rows of tissues name the model: rows of lungs do not depend on it, and stay when labels change.
        made_with = {"mask": mask, "model": model if SEGMENTS[agreement.region][0] == "tissue" else ""}
        rows.append({**key, **agreement.values, "worst_slice": agreement.worst_slice, "grid": grid, **made_with})
        by_hu += [
            {
                **key,
                "from_hu": low,
                "to_hu": low + BIN_HU - 1,
                "reference_ml": reference * case.geometry.voxel_ml,
                "sensitivity": both / reference,
            }
            for low, (reference, both) in agreement.by_hu.items()
        ]
    return {EVALUATION_FILE: rows, EVALUATION_HU_FILE: by_hu}


def stored_evaluations(cohort: Cohort, file: str = EVALUATION_FILE) -> list[Row]:
    """Return the stored rows of a table, without rows of cases that the store no longer holds.

    Rows with other columns than those of this version are left out.
    """
    columns = [column.key for column in COLUMNS[file]]
    names = set(cohort)
    rows = rows_of(cohort.read_text(file) or "")
    return [row for row in rows if list(row) == columns and row["case"] in names]


def store_evaluations(
    cohort: Cohort, rows: Sequence[Row], file: str, compared: Collection[tuple[str, str]] = ()
) -> None:
    """Write rows into a table of the store in place of earlier rows of the same case and region; keep other rows.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing.
    rows : sequence of dict
        Rows with the columns of the table.
    file : {"evaluation.csv", "evaluation_hu.csv"}
        Name of the table.
    compared : collection of tuple of str
        Pairs of case and region whose stored rows are dropped even if `rows` has no new ones for them.
    """
    replaced = {(row["case"], row["region"]) for row in rows} | {*compared}
    stored = stored_evaluations(cohort, file)
    kept = [row for row in stored if (row["case"], row["region"]) not in replaced]
    if not rows and len(kept) == len(stored):
        return
    # Rows of a case stay together, in the order in which they were computed.
    table = text_of(sorted([*kept, *rows], key=lambda row: str(row["case"])))
    if not table:
        # No row is left. A table is written with the columns of its rows, so keep the header of the stored one.
        text = cohort.read_text(file) or ""
        table = without(text, lines_of(text)[1])
    write_table(cohort, file, table)
