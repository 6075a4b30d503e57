"""Evaluate: imports the reference of a case, compares segments of the case with it, and records the agreement.

The record holds the rows of the tables. A command that is killed so keeps the cases that it had finished, and the next
command with the same reference takes their rows over. Tables are written from the records at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from lungmix.formats.masks import EmptyMaskError, MaskFile
from lungmix.stages import convert, mask
from lungmix.stages.base import StageContext, Status
from lungmix.stages.comparisons import (
    Comparison,
    Plan,
    check_segments,
    comparisons_of_labels,
    images_of,
    plans_for,
    with_aerated,
)
from lungmix.stages.evaluation import Agreement, compare, selected
from lungmix.stages.evaluation_rows import COLUMNS, rows_of_agreement
from lungmix.stages.imported_labels import check_memory, grid_of, import_labels
from lungmix.stages.worst_slices import WorstSlice, add_slice
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.models import record_of
from lungmix.store.schema import ARRAYS, EVALUATION_FILE, EVALUATION_HU_FILE, IMPORTED, REFERENCE
from lungmix.store.tables import Row

STAGE = "evaluate"

RESAMPLED = "the reference has another grid than the scan: its nearest voxels were compared"
UNNAMED = "the reference does not name its labels: 1 was taken as right, 2 as left"
WITHOUT_DISEASE = "the reference has no voxel of the tissues"

_RECORDED = {"rows": EVALUATION_FILE, "by_hu": EVALUATION_HU_FILE}


def key_for(case: Case, reference: MaskFile, what: str) -> str:
    """Return the cache key of an evaluation, which depends on the reference and on the compared images of the case."""
    stages = sorted({mask.STAGE, *(str(ARRAYS[image].stage) for image in images_of(what))})
    return cache_key(
        stage=STAGE, version=1, image=record_of(case, convert.STAGE).get("voxels_sha256"),
        geometry=case.geometry.to_dict(), reference=reference.fingerprint, what=what,
        compared={stage: record_of(case, stage).get("key") for stage in stages},
    )  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """Recorded agreement of a case with a reference.

    Attributes
    ----------
    rows, by_hu : list of dict
        Rows of ``evaluation.csv`` and ``evaluation_hu.csv``.
    notes : tuple of str
        Notes on the reference.
    """

    rows: list[Row]
    by_hu: list[Row]
    notes: tuple[str, ...]


def recorded_evaluation(case: Case, what: str) -> Evaluation | None:
    """Return the recorded agreement of a case, with whichever reference it was compared.

    The result is None if there is no record, or if its columns are not those of this version.
    """
    record = case.evaluations.get(what)
    if record is None:
        return None
    rows = {
        key: [
            {"case": case.name, **{name: math.nan if value is None else value for name, value in row.items()}}
            for row in record.get(key, [])
        ]
        for key in _RECORDED
    }
    for key, file in _RECORDED.items():
        columns = [column.key for column in COLUMNS[file]]
        if any(list(row) != columns for row in rows[key]):
            return None
    return Evaluation(rows["rows"], rows["by_hu"], tuple(record.get("notes", ())))


@dataclass(frozen=True)
class EvaluationStage:
    """Stage that compares segments of cases with their references.

    Attributes
    ----------
    references : mapping of str to MaskFile
        Reference by case.
    what : str
        What is compared, see `lungmix.stages.comparisons.parse_what`.
    """

    references: Mapping[str, MaskFile]
    what: str = "lungs"
    name: str = STAGE
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of a valid evaluation of the case; None without a reference."""
        reference = self.references.get(case.name)
        return None if reference is None else key_for(case, reference, self.what)

    def is_held(self, case: Case) -> bool:
        """Return True if the store holds the comparison of the case with its reference, and both are unchanged."""
        key = case.evaluations.get(self.what, {}).get("key")
        return key is not None and key == self.cache_key(case) and recorded_evaluation(case, self.what) is not None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Compare the case with its reference, unless the store holds the result.

        Raises
        ------
        RoomError
            If workers have too little memory.
        SourceError
            If the reference cannot be used.
        StoreError
            If the case lacks a segment that is compared.
        """
        case, reference = CaseWriter(context.cohort[case_name]), self.references[case_name]
        plans = plans_for(self.what, reference.segments, may_overlap=reference.may_overlap)
        check_segments(case, [comparison for plan in plans for comparison in plan.comparisons])
        if self.is_held(case):
            return "kept"
        check_memory(context.memory, case, reference)
        key, grid = key_for(case, reference, self.what), grid_of(reference, case.geometry)
        case_ref = CaseRef.of(context.cohort, case_name, case.claim(STAGE))
        try:
            agreements, notes, worst = self._compare(context, case_ref, case, plans)
        except BaseException:
            # Release the case first: remaining tasks can then no longer write arrays that are deleted here.
            case.release()
            _clean(case)
            raise
        _clean(case)
        notes += [RESAMPLED] if grid != "same" else []
        tables = rows_of_agreement(case, agreements, grid)
        if worst is not None:
            with self._lock:
                add_slice(context.cohort, worst, float(agreements[0].values["dice"]))
        record = {name: [_plain(row) for row in tables[file]] for name, file in _RECORDED.items()}
        self._record(case, {"key": key, **record, "notes": notes})
        return "done"

    def _compare(
        self, context: StageContext, case_ref: CaseRef, case: CaseWriter, plans: Sequence[Plan]
    ) -> tuple[list[Agreement], list[str], WorstSlice | None]:
        """Return the agreements of all plans, notes on the reference, and the worst slice of the first comparison."""
        reference, report = self.references[case.name], context.progress(case.name, STAGE)
        planned = [comparison for plan in plans for comparison in plan.comparisons]
        agreements: list[Agreement] = []
        notes: list[str] = []
        empty: list[EmptyMaskError] = []
        worst = None
        for number, plan in enumerate(plans):
            comparisons = plan.comparisons
            try:
                voxels = import_labels(context.client, case_ref, reference, plan.values)["voxels"]
                if not comparisons:
                    comparisons = comparisons_of_labels(self.what, [label for label, count in voxels.items() if count])
                    check_segments(case, comparisons)
                    notes += [UNNAMED] if len(comparisons) > 1 else []
            except EmptyMaskError as error:
                empty.append(error)
                # A reference of tissues may be empty, as the scan may show no disease. An empty reference of lungs
                # belongs to another scan.
                is_of_tissues = bool(planned) and all(comparison.image == "tissue" for comparison in planned)
                if not is_of_tissues and len(empty) == len(plans):
                    raise

            comparisons = with_aerated(case, comparisons)

            def progress(done: int, total: int, before: int = number) -> None:
                report(before * total + done, len(plans) * total)

            by_hu = any(comparison.image == "tissue" for comparison in (*planned, *comparisons))
            agreements += compare(context.client, case_ref, comparisons, by_hu=by_hu, progress=progress)
            if not number:
                worst = _worst_slice(case, agreements[0], comparisons[0])
        if len(empty) == len(plans):
            notes.append(WITHOUT_DISEASE)
        return agreements, notes, worst

    def _record(self, case: CaseWriter, record: dict[str, Any]) -> None:
        """Record an evaluation, and remove earlier records that share a region with it, as rows of the table do."""
        regions = {row["region"] for row in record["rows"]}
        others = {
            what: other
            for what, other in case.evaluations.items()
            if regions.isdisjoint(row.get("region") for row in other.get("rows", []))
        }
        case.record_evaluations({**others, self.what: record})


def _worst_slice(case: CaseWriter, agreement: Agreement, comparison: Comparison) -> WorstSlice | None:
    position = agreement.worst_slice
    if position < 0:
        return None
    plane = case.read_temporary(REFERENCE, (slice(position, position + 1), slice(None), slice(None)))[0]
    return WorstSlice(case.name, agreement.region, position, selected(plane, comparison.reference))


def _clean(case: CaseWriter) -> None:
    for array in (REFERENCE, IMPORTED):
        case.delete_array(array)


def _plain(row: Row) -> dict[str, Any]:
    """Return a row without its case, JSON-ready: None replaces NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if name != "case"
    }
