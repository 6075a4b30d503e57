"""Verification of a cohort: check its cases, models and tables, and invalidate corrupt stages."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distributed import Client

from lungmix import store
from lungmix.analysis.followup import cases_with_other_values, fresh_rows, stored_followup
from lungmix.callbacks import Callback, stage_events
from lungmix.errors import DamageError, LungmixError, mark_path
from lungmix.formats import RejectedSource, Scan, SeriesFilter
from lungmix.intake.case_names import assign_names
from lungmix.intake.discovery import discover_scans
from lungmix.mixture import ANCHORED, TissueModel
from lungmix.pipeline.staleness import fault_of_labels
from lungmix.stages import fit, label, mask
from lungmix.store import FIT_FILES, MODEL_FILE, CaseFiles, Cohort, parquet_name, stage_of
from lungmix.store.models import stored_model
from lungmix.store.schema import CASE_TABLES, EVALUATIONS, FITS_RECORD, FOLLOWUP_FILE, PATIENTS_SETTING
from lungmix.store.tables import is_parquet_of, lines_of
from lungmix.tissue import TISSUES
from lungmix.verify.case import Comparison
from lungmix.verify.problems import Verification

VERIFY = "verify"


def sample_of(names: Sequence[str], size: int, seed: int | None = None) -> list[str]:
    """Return a random sample of names, sorted."""
    return sorted(random.Random(seed).sample(list(names), min(size, len(names))))


def scans_of_cases(
    cohort: Cohort, sources: Sequence[str | Path], rules: SeriesFilter, callback: Callback
) -> tuple[dict[str, Scan], dict[str, str]]:
    """Return the scans in sources by case name, and a reason for each item that belongs to no case.

    Reasons are by source label, such as ``source 2, item 17``, which stands for the name of an item.
    """
    scans: list[Scan] = []
    labels: list[str] = []
    reasons: dict[str, str] = {}
    for item in discover_scans(sources, rules, callback):
        if isinstance(item.result, RejectedSource):
            reasons[item.source_label] = item.result.reason
        elif isinstance(item.result, Scan):
            scans.append(item.result)
            labels.append(item.source_label)
    scans_by_case = assign_names(cohort, scans) if scans else {}
    present = {*cohort, *cohort.damaged, *cohort.failed}
    for (name, scan), source_label in zip(scans_by_case.items(), labels, strict=True):
        if name not in present:
            reasons[source_label] = f"{mark_path(scan.path)} is not in the store: run `Pipeline.run(sources)` with it"
    return scans_by_case, reasons


def verify_cases(
    client: Client,
    cohort: Cohort,
    names: Sequence[str],
    scans: Mapping[str, Scan],
    callback: Callback | None = None,
) -> Verification:
    """Compare cases with their recorded checksums and with recomputed results; check models and tables of the store.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster that recomputes cases.
    cohort : Cohort
        The store, which is only read. Cases are recomputed in a temporary store next to it.
    names : sequence of str
        Cases to verify.
    scans : mapping of str to Scan
        Available sources by case. The image of a case without a source is compared with the digest of its voxels.
    callback : Callback, optional
        Receives the progress.

    Returns
    -------
    Verification
        Problems and notes. Cases with unreadable metadata, and scans whose conversion failed, are always included, even
        if they are not in `names`.
    """
    callback = callback or Callback()
    verification = Verification()
    model = _check_models(cohort, verification)
    _check_tables(cohort, verification)
    with stage_events(callback, VERIFY, names):
        for name in names:
            verification.wrong[name] = []
            Comparison(client, cohort, CaseFiles(cohort.case(name)), scans.get(name), model, verification).compare()
            callback.on_case_end(name, "; ".join(verification.wrong[name][:3]) or None)
    _check_followup(cohort, model, verification)
    for name, reason in cohort.damaged.items():
        verification.add_problem(name, reason)
    for name, failure in cohort.failed.items():
        verification.add_problem(name, f"{failure['stage']} failed: {failure['reason']}")
    return verification


def invalidate(cohort: Cohort, verification: Verification) -> dict[str, dict[str, str]]:
    """Invalidate corrupt stages, so that the next run recomputes them.

    Parameters
    ----------
    cohort : Cohort
        The store, opened for writing. It must have been locked before the verification began.
    verification : Verification
        Result of `verify_cases` for this store.

    Returns
    -------
    dict of str to dict
        For each case and each of its invalidated stages, the reason.
    """
    invalidated: dict[str, dict[str, str]] = {}
    for name, stages in verification.damaged.items():
        case = cohort[name]
        for stage, reason in stages.items():
            owner = store.invalidate_stage(case, stage, reason)
            invalidated.setdefault(name, {}).setdefault(owner, reason)
    return invalidated


def _check_models(cohort: Cohort, verification: Verification) -> TissueModel | None:
    """Check the fits and the model of the store, and return the model; None if it is missing or corrupt."""
    record: dict[str, Any] = cohort.settings.get(FITS_RECORD) or {}
    if record and fit.stored_fits(cohort) is None:
        files = ", ".join(file for name, file in FIT_FILES.items() if name != ANCHORED or record.get(ANCHORED))
        verification.add_problem("fits", f"{files} do not match their digest: run `Pipeline.fit()`")
    labelled = any(label.STAGE in case.stages for case in cohort.values())
    if cohort.read_text(MODEL_FILE) is None and not cohort.settings.get(fit.STAGE) and not labelled:
        return None
    try:
        return stored_model(cohort)
    except LungmixError as error:
        verification.add_problem(MODEL_FILE, error.raw_message)
        return None


def _check_followup(cohort: Cohort, model: TissueModel | None, verification: Verification) -> None:
    """Compare the rows of patients with rows that are computed from the histograms; not if one of these is corrupt.

    A corrupt histogram of a case that was not checked is a problem of this case.
    """
    stored = stored_followup(cohort)
    if not stored or model is None or verification.damaged or PATIENTS_SETTING not in cohort.settings:
        return
    try:
        names = [name for name, case in cohort.items() if fault_of_labels(case, model) is None]
        expected = fresh_rows(cohort, names, model) if model.n_components == len(TISSUES) else []
    except DamageError as error:
        verification.add_problem(error.case, error.fault, stage_of(error.array))
        return
    for name in cases_with_other_values(stored, expected):
        verification.add_problem(
            FOLLOWUP_FILE, f"its row of {name} does not match the histograms: run `Pipeline.followup()`"
        )


def _check_tables(cohort: Cohort, verification: Verification) -> None:
    """Add problems for rows of missing or unlabelled cases, and for Parquet files that differ from their CSV file.

    A row of an evaluation needs a case with a mask only. It cannot be recomputed, as the store has no references.
    """
    cases, damaged = dict(cohort.items()), cohort.damaged
    for file in CASE_TABLES:
        needed, remedy = label.STAGE, "`Pipeline.measure()`"
        if file in EVALUATIONS:
            needed, remedy = mask.STAGE, "`lungmix.evaluate(store, reference)`"
        text = cohort.read_text(file)
        if text is None:
            continue
        for name in sorted(lines_of(text)[1].keys() - damaged.keys()):
            if name not in cases:
                problem = "which is no case of the store"
            elif needed in {*cases[name].stages, *cases[name].damage}:
                continue
            else:
                problem = "which has no labels" if needed == label.STAGE else "which has no mask"
            verification.add_problem(file, f"it has a row of {json.dumps(name)}, {problem}: run {remedy}")
        if not is_parquet_of(cohort.read_bytes(parquet_name(file)), text):
            verification.add_problem(parquet_name(file), f"its content differs from {file}: run {remedy}")
