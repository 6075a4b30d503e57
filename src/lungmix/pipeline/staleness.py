"""Staleness: which cases a command is about to recompute, so that their measurements no longer hold."""

from __future__ import annotations

from collections.abc import Iterable

from lungmix.mixture import TissueModel
from lungmix.stages import label, mask, regions
from lungmix.stages.base import Stage
from lungmix.stages.label import LabelStage
from lungmix.stages.plausibility import is_accepted, rejection_reason
from lungmix.store import Case
from lungmix.store.models import label_id, record_of
from lungmix.store.schema import DEPENDENTS


def stale_stages(case: Case, stages: Iterable[Stage]) -> set[str]:
    """Return the names of the stages that will recompute their results for a case.

    These are the stages among `stages` without a valid result in the store, and all stages that depend on them.
    """
    stale: set[str] = set()
    for stage in stages:
        # The record of a corrupt stage keeps its key: recomputing gives the same result, so measurements still hold.
        key = stage.cache_key(case)
        if key is None or record_of(case, stage.name).get("key") != key:
            stale |= {stage.name, *DEPENDENTS[stage.name]}
    if label.STAGE in stale and mask.STAGE in case.stages and not regions.is_valid(case):
        # The label stage computes missing regions too.
        stale.add(regions.STAGE)
    return stale


def will_recompute(case: Case, stages: Iterable[Stage]) -> bool:
    """Return True if one of the stages will recompute its result for a case; the store holds no valid one then."""
    return bool(stale_stages(case, stages))


def fault_of_labels(case: Case, model: TissueModel) -> str | None:
    """Return the reason why a case cannot be measured; None if it has valid labels by the model."""
    for stage in (mask.STAGE, label.STAGE):
        if stage in case.damage:
            return f"its {stage} is corrupt ({case.damage[stage]['reason']}): run `Pipeline.run(sources)`"
    if mask.STAGE not in case.stages:
        return "it has no lung mask: run `Pipeline.mask()`"
    if not is_accepted(case) and (reason := rejection_reason(case)) is not None:
        return reason
    if label.STAGE not in case.stages:
        return "it has no labels: run `Pipeline.label()`"
    if will_recompute(case, [LabelStage(model)]):
        model_id = label_id(case)
        other = "" if model_id is None else f", but by {model_id}"
        return f"its labels are not those of the store's model{other}: run `Pipeline.label()`"
    return None
