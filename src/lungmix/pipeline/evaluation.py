"""Evaluation of a cohort: compare its masks or labels with references, which are mask files by people or programs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from statistics import median

from distributed import Client

from lungmix.callbacks import Callback, LogWarnings
from lungmix.cluster import connect
from lungmix.errors import count_of
from lungmix.formats.masks import REGIONS
from lungmix.formats.masks.words import LUNG_REGIONS
from lungmix.intake.mask_matching import match_masks
from lungmix.pipeline.result import CaseResult, raise_without_memory
from lungmix.pipeline.runner import CaseRunner
from lungmix.stages.comparisons import normalize_what
from lungmix.stages.evaluate import STAGE, EvaluationStage, recorded_evaluation
from lungmix.stages.evaluation_rows import store_evaluations
from lungmix.stages.worst_slices import store_slices
from lungmix.store import Cohort, open_cohort
from lungmix.store.schema import EVALUATION_FILE, EVALUATION_HU_FILE
from lungmix.store.tables import Row

_SUMMARIZED = (("dice", "Dice", 3), ("asd_mm", "ASD mm", 2), ("hd95_mm", "HD95 mm", 1))


@dataclass(repr=False)
class EvaluationResult(CaseResult):
    """Result of an evaluation.

    Attributes
    ----------
    done : list of str
        Compared cases.
    kept : list of str
        Cases of `done` that an earlier call compared with the same reference; their rows were taken from the store.
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
    spent : dict of str to ResourceUsage
        Time and memory.
    """

    kept: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    by_hu: list[Row] = field(default_factory=list)

    def statistics(self) -> list[str]:
        """Return one line per region with the medians of its measures over all cases."""
        lines = []
        for region in dict.fromkeys(str(row["region"]) for row in self.rows):
            rows = [row for row in self.rows if row["region"] == region]
            texts = []
            for key, title, digits in _SUMMARIZED:
                values = [value for row in rows if not isnan(value := float(row[key]))]
                texts.append(f"{title} {median(values):.{digits}f}" if values else f"{title} none")
            lines.append(f"{region}, median of {count_of(len(rows), 'case')}: {', '.join(texts)}")
        return lines


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
    """Compare masks or labels of a store with references, and write ``evaluation.csv`` and the same table as Parquet.

    Parameters
    ----------
    store : str, Path or Cohort
        Folder or ``s3://`` URL of the store, or the store itself, opened for writing.
    reference : str or Path
        Masks to compare with: a folder, one file, or a table with the column ``mask`` and the column ``case`` or
        ``series_uid``.
    what : str
        ``"lungs"`` compares both lungs together and each lung, ``"tissues"`` the tissues that the reference names.
        Pairs such as ``"right=1,left=2"`` compare the segment of the store before the equals sign with the label, or
        known name, of the reference after it.
    client : distributed.Client, optional
        A cluster. By default workers are started on this machine and stopped at the end.
    workers : int, optional
        Worker processes to start if no `client` is given; by default as many as cores and memory allow.
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
        If no case can be compared. A missing or unreadable reference fails its own case alone.

    Examples
    --------
    >>> result = lungmix.evaluate("cohort.zarr", "contours", workers=1)  # doctest: +SKIP
    >>> [row["dice"] for row in result.rows if row["region"] == "lungs"]  # doctest: +SKIP
    [0.967]
    """
    what = normalize_what(what)
    callback = callback or LogWarnings()
    cohort = store if isinstance(store, Cohort) else open_cohort(store, "r+")
    with ExitStack() as stack:
        if client is None:
            client = stack.enter_context(connect(workers=workers, memory_limit=memory_limit, warn=callback.on_warning))
        stack.enter_context(cohort.locked(wait=wait, warn=callback.on_warning))
        return _evaluate_all(client, cohort, reference, what, callback)


def _evaluate_all(
    client: Client, cohort: Cohort, reference: str | Path, what: str, callback: Callback
) -> EvaluationResult:
    result = EvaluationResult()
    cases = dict(cohort.items())
    for name, reason in cohort.damaged.items():
        result.fail(name, reason)
    regions = LUNG_REGIONS if what == "lungs" else REGIONS
    references = match_masks(reference, cohort, list(cases), regions=regions)
    for name, reason in references.missing.items():
        result.fail(name, reason)
    for name, reason in references.unused.items():
        result.skip(name, reason)
    compared = list(references.masks)
    stage = EvaluationStage(references.masks, what)
    held = {name for name in compared if stage.is_held(cases[name])}
    runner = CaseRunner(client, cohort, callback)
    runner.set_case_sizes({name: case.geometry for name, case in cases.items()})
    runner.run_cases(STAGE, compared, [stage], result, record_failures=False)
    result.done.sort()
    for name, case in cohort.items():
        evaluation = recorded_evaluation(case, what) if name in result.done else None
        if evaluation is not None:
            result.rows += evaluation.rows
            result.by_hu += evaluation.by_hu
            result.note(name, evaluation.notes)
    result.kept = [name for name in result.done if name in held]
    store_evaluations(cohort, result.rows, EVALUATION_FILE)
    # The reference may have no voxel in a region now. The region then has no new rows, and its old ones must go too.
    replaced = {(str(row["case"]), str(row["region"])) for row in result.rows}
    store_evaluations(cohort, result.by_hu, EVALUATION_HU_FILE, replaced)
    if result.done:
        store_slices(cohort)
    raise_without_memory(result)
    return result
