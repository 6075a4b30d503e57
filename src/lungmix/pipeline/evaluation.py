"""Evaluation of a cohort against the masks of others: which reference belongs to a case, comparison, tables."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from statistics import median

from distributed import Client

from lungmix.callbacks import Callback, LogWarnings, stage_events
from lungmix.cluster import connect, map_bounded
from lungmix.cluster.reconnect import is_connection_lost
from lungmix.cluster.worker_exits import explained
from lungmix.cluster.worker_memory import worker_memory_of
from lungmix.errors import ClusterError, LockedError, LungmixError, redact, reveal
from lungmix.formats.masks import REGIONS, EmptyMaskError, MaskFile
from lungmix.formats.masks.words import LUNG_REGIONS
from lungmix.intake.mask_files import match_masks
from lungmix.pipeline.retry import CONNECTION_LOST
from lungmix.pipeline.runner import reason_of
from lungmix.stages.comparisons import Comparison, check_segments, comparisons_of_labels, parse_what, plans_for
from lungmix.stages.evaluation import Agreement, compare, selected
from lungmix.stages.evaluation_rows import rows_of_agreement, store_evaluations
from lungmix.stages.given_mask import import_labels
from lungmix.stages.imported_labels import grid_of
from lungmix.stages.worst_slices import WorstSlice, store_slices
from lungmix.store import CaseRef, CaseWriter, Cohort, open_cohort
from lungmix.store.schema import EVALUATION_FILE, EVALUATION_HU_FILE, IMPORTED, REFERENCE
from lungmix.store.tables import Row

TITLE = "evaluate"
_SUMMARIZED = (("dice", "Dice", 3), ("asd_mm", "ASD mm", 2), ("hd95_mm", "HD95 mm", 1))
_SHOWN = 4


@dataclass(repr=False)
class EvaluationResult:
    """Result of an evaluation.

    Attributes
    ----------
    done : list of str
        Compared cases.
    failed : dict of str to str
        Reason of each case that was not compared, without names of files.
    messages : dict of str to str
        The same reasons with names of files, for the terminal.
    rows : list of dict
        One row per compared region of a case, with the columns of ``evaluation.csv``.
    by_hu : list of dict
        Sensitivity by HU, with the columns of ``evaluation_hu.csv``; empty unless tissues were compared.
    notes : dict of str to tuple of str
        Notes on cases, such as a reference that was resampled.
    skipped : dict of str to str
        Files that are the reference of no case, such as ``mask 3``, with the reason.
    errors : dict of str to Exception
        The errors behind `failed`, for debugging.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    by_hu: list[Row] = field(default_factory=list)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return a few lines: numbers of cases, medians by region, failures with reasons."""
        lines = [f"<EvaluationResult: {len(self.done)} done, {len(self.failed)} failed>"]
        lines += [f"  {line}" for line in self.statistics()]
        lines += [f"  failed: {name}: {reason}" for name, reason in list(self.failed.items())[:_SHOWN]]
        if len(self.failed) > _SHOWN:
            lines.append(f"  failed: {len(self.failed) - _SHOWN} more, see `failed`")
        return "\n".join(lines)

    def statistics(self) -> list[str]:
        """Return a line per region with the medians of its cases."""
        lines = []
        for region in dict.fromkeys(str(row["region"]) for row in self.rows):
            rows = [row for row in self.rows if row["region"] == region]
            texts = []
            for key, title, digits in _SUMMARIZED:
                values = [value for row in rows if not isnan(value := float(row[key]))]
                texts.append(f"{title} {median(values):.{digits}f}" if values else f"{title} none")
            lines.append(f"{region}, median of {len(rows)} case{'s' * (len(rows) != 1)}: {', '.join(texts)}")
        return lines

    def skip(self, name: str, reason: str) -> None:
        """Record a file that is the reference of no case."""
        self.skipped[name], self.messages[name] = redact(reason), reveal(reason)

    def fail(self, name: str, reason: str, error: Exception | None = None) -> None:
        """Record a case that was not compared; names of files in the reason are marked."""
        self.failed[name], self.messages[name] = redact(reason), reveal(reason)
        if error is not None:
            self.errors[name] = error


def evaluate(
    store: str | Path | Cohort,
    reference: str | Path,
    what: str = "lungs",
    *,
    client: Client | None = None,
    workers: int | None = None,
    memory_limit: str | int | None = None,
    callback: Callback | None = None,
    wait: bool = False,
) -> EvaluationResult:
    """Compare what a store holds with masks of others, and write ``evaluation.csv`` and its Parquet twin.

    Parameters
    ----------
    store : str, Path or Cohort
        Folder or ``s3://`` URL of the store, or the store itself, opened for writing.
    reference : str or Path
        Folder with masks, file, or table with a column ``mask`` and one of ``case`` and ``series_uid``.
    what : str
        ``"lungs"`` compares both lungs and each lung, ``"tissues"`` the tissues that the reference names. Pairs such as
        ``"right=1,left=2"`` name segments of the store, and a label or a known name of the reference for each.
    client : distributed.Client, optional
        A cluster. By default workers are started on this machine and stopped at the end.
    workers : int, optional
        Processes to start where no `client` is given.
    memory_limit : str or int, optional
        Memory of each process, such as ``"2GB"``.
    callback : Callback, optional
        Receives progress and warnings; by default warnings go to the logger ``lungmix``.
    wait : bool
        Wait for another run on this store to end, instead of raising `LockedError`.

    Returns
    -------
    EvaluationResult
        Measures by case and region, and the reasons of cases that were not compared.

    Raises
    ------
    LungmixError
        If nothing can be compared at all; a missing or bad reference ends its own case alone.

    Examples
    --------
    >>> result = lungmix.evaluate("cohort.zarr", "contours", workers=1)  # doctest: +SKIP
    >>> [row["dice"] for row in result.rows if row["region"] == "lungs"]  # doctest: +SKIP
    [0.967]
    """
    parse_what(what)
    callback = callback or LogWarnings()
    cohort = store if isinstance(store, Cohort) else open_cohort(store, "r+")
    with ExitStack() as stack:
        if client is None:
            client = stack.enter_context(connect(workers=workers, memory_limit=memory_limit, warn=callback.on_warning))
        stack.enter_context(cohort.locked(wait=wait, warn=callback.on_warning))
        return _evaluate_all(client, cohort, reference, what, callback)


@dataclass(frozen=True)
class _Evaluated:
    """Rows of a case by table, notes on its reference, and the worst slice of the first comparison."""

    rows: dict[str, list[Row]]
    notes: tuple[str, ...]
    worst: WorstSlice | None


def _evaluate_all(
    client: Client, cohort: Cohort, reference: str | Path, what: str, callback: Callback
) -> EvaluationResult:
    result = EvaluationResult()
    names = list(cohort)
    for name, reason in cohort.damaged.items():
        result.fail(name, reason)
    references = match_masks(reference, cohort, names, regions=LUNG_REGIONS if what == "lungs" else REGIONS)
    for name, reason in references.missing.items():
        result.fail(name, reason)
    for name, reason in references.unused.items():
        result.skip(name, reason)
    compared = list(references.masks)
    slices: list[WorstSlice] = []

    def work(name: str) -> _Evaluated:
        return _evaluate_case(client, cohort, name, references.masks[name], what, callback)

    with stage_events(callback, TITLE, compared):
        for outcome in map_bounded(compared, work, _cases_in_flight(client)):
            failure = None
            if outcome.error is not None:
                failure = _reason(client, outcome.item, outcome.error, result)
            elif outcome.result is not None:
                result.rows += outcome.result.rows[EVALUATION_FILE]
                result.by_hu += outcome.result.rows[EVALUATION_HU_FILE]
                result.done.append(outcome.item)
                slices += [] if outcome.result.worst is None else [outcome.result.worst]
                if outcome.result.notes:
                    result.notes[outcome.item] = outcome.result.notes
            callback.on_case_end(outcome.item, failure)
    for rows in (result.rows, result.by_hu):
        rows.sort(key=lambda row: str(row["case"]))
    result.done.sort()
    store_evaluations(cohort, result.rows, EVALUATION_FILE)
    # A region may have no voxel of the reference now, and so no rows.
    regions = {(str(row["case"]), str(row["region"])) for row in result.rows}
    store_evaluations(cohort, result.by_hu, EVALUATION_HU_FILE, regions)
    if result.done:
        store_slices(cohort, slices)
    return result


def _evaluate_case(
    client: Client, cohort: Cohort, name: str, mask: MaskFile, what: str, callback: Callback
) -> _Evaluated:
    case = CaseWriter(cohort[name])
    plans = plans_for(what, mask.segments, may_overlap=mask.may_overlap)
    planned = [comparison for plan in plans for comparison in plan.comparisons]
    check_segments(case, planned)
    worker_memory_of(client).check(name, case.geometry, case.layout.slab)
    notes: list[str] = []
    agreements: list[Agreement] = []
    empty: list[EmptyMaskError] = []
    try:
        grid = grid_of(mask, case.geometry)
        for number, plan in enumerate(plans):
            comparisons = plan.comparisons
            try:
                voxels = import_labels(client, cohort, name, mask, plan.values)["voxels"]
                if not comparisons:
                    comparisons = comparisons_of_labels(what, [label for label, count in voxels.items() if count])
                    check_segments(case, comparisons)
            except EmptyMaskError as error:
                empty.append(error)
                # A scan without disease has a reference without voxels; one without any lung is not that of the scan.
                is_of_tissues = bool(planned) and all(comparison.image == "tissue" for comparison in planned)
                if not is_of_tissues and len(empty) == len(plans):
                    raise

            def progress(done: int, total: int, before: int = number) -> None:
                callback.on_progress(name, TITLE, before * total + done, len(plans) * total)

            agreements += compare(
                client,
                CaseRef.of(cohort, name),
                comparisons,
                by_hu=any(comparison.image == "tissue" for comparison in (*planned, *comparisons)),
                progress=progress,
            )
            if not number:
                worst = _worst_slice(case, agreements[0], comparisons[0])
        if not planned and len(comparisons) > 1:
            notes.append("the reference does not name its labels: 1 was taken as right, 2 as left")
    finally:
        for array in (REFERENCE, IMPORTED):
            case.delete_array(array)
    if len(empty) == len(plans):
        notes.append("the reference has no voxel of the tissues")
    if grid != "same":
        notes.append("the reference has another grid than the scan: its nearest voxels were compared")
    return _Evaluated(rows_of_agreement(case, agreements, grid), tuple(notes), worst)


def _worst_slice(case: CaseWriter, agreement: Agreement, comparison: Comparison) -> WorstSlice | None:
    position = agreement.worst_slice
    if position < 0:
        return None
    plane = case.read_temporary(REFERENCE, (slice(position, position + 1), slice(None), slice(None)))[0]
    return WorstSlice(case.name, agreement.region, position, selected(plane, comparison.reference))


def _reason(client: Client, name: str, error: Exception, result: EvaluationResult) -> str:
    """Record the error of a case and return its reason; raise one that no case is to blame for."""
    if isinstance(error, LockedError):
        raise error
    error = explained(client, error)
    if is_connection_lost(error):
        raise ClusterError(CONNECTION_LOST) from error
    if isinstance(error, LungmixError):
        error.case = error.case or name
    reason = reason_of(error)
    result.fail(name, reason, error)
    return reason


def _cases_in_flight(client: Client) -> int:
    # One case more than workers: while one ends, the next has begun.
    return max(2, len(client.scheduler_info(n_workers=-1)["workers"]) + 1)
