"""A cohort: some of its cases, its models and its tables; and what is withdrawn of what was found."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distributed import Client

from lungmix import store
from lungmix.callbacks import Callback
from lungmix.errors import LungmixError, mark_path
from lungmix.formats import RejectedSource, Scan, SeriesFilter
from lungmix.intake.case_names import assign_names
from lungmix.intake.discovery import discover_scans
from lungmix.mixture import TissueModel
from lungmix.stages import fit, label, measure
from lungmix.store import FIT_FILES, MODEL_FILE, Cohort, parquet_name
from lungmix.store.models import stored_model
from lungmix.store.tables import is_parquet_of, lines_of
from lungmix.verify.case import Comparison
from lungmix.verify.problems import Verification

VERIFY = "verify"


def sample_of(names: Sequence[str], size: int, seed: int | None = None) -> list[str]:
    """Some names, drawn by chance, in their order."""
    return sorted(random.Random(seed).sample(list(names), min(size, len(names))))


def scans_of_cases(
    cohort: Cohort, sources: Sequence[str | Path], rules: SeriesFilter, callback: Callback
) -> tuple[dict[str, Scan], dict[str, str]]:
    """Scans of sources by the case that they are, and the reasons of what is none, by place."""
    scans: list[Scan] = []
    places: list[str] = []
    strange: dict[str, str] = {}
    for one in discover_scans(sources, rules, callback):
        if isinstance(one.result, RejectedSource):
            strange[one.source_label] = one.result.reason
        elif isinstance(one.result, Scan):
            scans.append(one.result)
            places.append(one.source_label)
    known = assign_names(cohort, scans) if scans else {}
    present = {*cohort, *cohort.damaged, *cohort.failed}
    for (name, scan), place in zip(known.items(), places, strict=True):
        if name not in present:
            strange[place] = f"{mark_path(scan.path)} is not in the store: run `lungmix run` with it"
    return known, strange


def verify_cases(
    client: Client,
    cohort: Cohort,
    names: Sequence[str],
    scans: Mapping[str, Scan],
    callback: Callback | None = None,
) -> Verification:
    """Compare cases with what their receipts say and with what is made again, and the store's models and tables too.

    Parameters
    ----------
    client : distributed.Client
        Does the work.
    cohort : Cohort
        The store; it is only read. What is made again lies beside it for a while.
    names : sequence of str
        Cases.
    scans : mapping of str to Scan
        Sources by case, where they are at hand; images of others are compared with the digest of their voxels.
    callback : Callback, optional
        Hears of progress.

    Returns
    -------
    Verification
        What differs. Cases whose metadata cannot be read, and scans that never became a case, are told too, whichever
        are asked for.
    """
    callback = callback or Callback()
    found = Verification()
    model = _check_models(cohort, found)
    _check_tables(cohort, found)
    callback.on_begin(VERIFY, names)
    try:
        for name in names:
            found.wrong[name] = []
            Comparison(client, cohort, cohort.case(name), scans.get(name), model, found).compare()
            callback.on_case_end(name, "; ".join(found.wrong[name][:3]) or None)
    finally:
        callback.on_end()
    for name, reason in cohort.damaged.items():
        found.add_problem(name, reason)
    for name, one in cohort.failed.items():
        found.add_problem(name, f"{one['stage']} failed: {one['reason']}")
    return found


def invalidate(cohort: Cohort, found: Verification) -> dict[str, dict[str, str]]:
    """Withdraw the stages of what is damaged, so that the next run makes them again.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing, and locked since before `found` was looked for.
    found : Verification
        Of the same store.

    Returns
    -------
    dict of str to dict
        Reasons by case and stage.
    """
    done: dict[str, dict[str, str]] = {}
    for name, stages in found.damaged.items():
        case = cohort[name]
        for stage, reason in stages.items():
            owner = store.invalidate_stage(case, stage, reason)
            done.setdefault(name, {}).setdefault(owner, reason)
    return done


def _check_models(cohort: Cohort, found: Verification) -> TissueModel | None:
    """The model of the store, if it is whole; its fits are looked at too."""
    record: dict[str, Any] = cohort.settings.get("fits") or {}
    if record and fit.stored_fits(cohort) is None:
        files = ", ".join(FIT_FILES.values())
        found.add_problem("fits", f"{files} are not what was written: run `lungmix fit`")
    labelled = any(label.STAGE in case.stages for case in cohort.values())
    if cohort.read_text(MODEL_FILE) is None and not cohort.settings.get(fit.STAGE) and not labelled:
        return None
    try:
        return stored_model(cohort)
    except LungmixError as error:
        found.add_problem(MODEL_FILE, error.raw_message)
        return None


def _check_tables(cohort: Cohort, found: Verification) -> None:
    """Look for rows of cases that are not there or not labelled, and for Parquet files that hold something else."""
    cases, damaged = dict(cohort.items()), cohort.damaged
    for file in measure.TABLES:
        text = cohort.read_text(file)
        if text is None:
            continue
        for name in sorted(lines_of(text)[1].keys() - damaged.keys()):
            if name not in cases:
                fault = "which is no case of the store"
            elif label.STAGE in {*cases[name].stages, *cases[name].damage}:
                continue
            else:
                fault = "which has no labels"
            found.add_problem(file, f"it has a row of {json.dumps(name)}, {fault}: run `lungmix measure`")
        if not is_parquet_of(cohort.read_bytes(parquet_name(file)), text):
            found.add_problem(parquet_name(file), f"it does not hold what {file} does: run `lungmix measure`")
