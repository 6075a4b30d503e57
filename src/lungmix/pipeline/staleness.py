"""Staleness: which cases a command is about to recompute, so that their measurements no longer hold.

A case that lacks the input of a stage counts as one that will be recomputed.
"""

from __future__ import annotations

from lungmix.formats import Scan
from lungmix.mixture import TissueModel
from lungmix.parameters import MaskParameters
from lungmix.stages import convert, label, mask
from lungmix.stages.plausibility import is_accepted, refusal_of
from lungmix.store import Case, layout_of
from lungmix.store.models import label_id


def is_other_scan(case: Case, scan: Scan | None, chunk_slices: int | None) -> bool:
    """Return True if a case will be converted again; see `lungmix.stages.convert.convert_case`."""
    if scan is None:
        return False
    cut = chunk_slices is not None and layout_of(case.geometry, chunk_slices) != case.layout
    return cut or (case.origin or {}).get("key") != convert.key_for(scan)


def takes_other_mask(case: Case, parameters: MaskParameters) -> bool:
    """Return True if a case will get another mask."""
    return convert.STAGE not in case.stages or _made_from(case, mask.STAGE) != mask.key_for(case, parameters)


def takes_other_labels(case: Case, model: TissueModel) -> bool:
    """Return True if a case will get other labels."""
    return mask.STAGE not in case.stages or _made_from(case, label.STAGE) != label.key_for(case, model)


def fault_of_labels(case: Case, model: TissueModel) -> str | None:
    """Return why a case cannot be measured; None if it has labels by the model."""
    for stage in (mask.STAGE, label.STAGE):
        if stage in case.damage:
            return f"what the stage {stage} wrote is damaged ({case.damage[stage]['reason']}): run `lungmix run`"
    if mask.STAGE not in case.stages:
        return "it has no lung mask any more: run `lungmix mask`"
    if not is_accepted(case) and (refused := refusal_of(case)) is not None:
        return refused
    if label.STAGE not in case.stages:
        return "it has no labels: run `lungmix label`"
    if case.stages[label.STAGE]["key"] != label.key_for(case, model):
        model_id = label_id(case)
        other = "" if model_id is None else f", but by {model_id}"
        return f"its labels are not those of the store's model{other}: run `lungmix label`"
    return None


def _made_from(case: Case, stage: str) -> object:
    """Return the cache key of what is stored; a corrupt stage keeps its key."""
    return (case.stages.get(stage) or case.damage.get(stage, {}).get("record", {})).get("key")
