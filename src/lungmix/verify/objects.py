"""The objects of a case against the receipts of its stages."""

from __future__ import annotations

from lungmix.stages import mask
from lungmix.store import STAGES, Case, stage_of
from lungmix.store.case import LABELS_FILE
from lungmix.store.integrity import has_wrong_label_list
from lungmix.store.objects import receipt_of


def corrupt_objects(case: Case) -> list[str]:
    """Keys of objects whose bytes are not those that their stage wrote; all of them are read."""
    records = [record.get("files", {}) for record in case.stages.values()]
    listed = [LABELS_FILE] if has_wrong_label_list(case, case.sizes()) else []
    return listed + [
        key
        for files in [*records, case.packed_files]
        for key, receipt in files.items()
        if receipt_of(case.read_object(key) or b"") != receipt
    ]


def unexpected_objects(case: Case) -> dict[str, str]:
    """Objects that no record knows, in words, by key; those of a stage that was not finished count as one."""
    records = [*case.stages.values(), *(one["record"] for one in case.damage.values())]
    known = {"zarr.json", LABELS_FILE, *case.packed_files, *(key for one in records for key in one.get("files", {}))}
    strays: dict[str, str] = {}
    for key in sorted(case.sizes().keys() - known):
        stage = mask.STAGE if key.startswith(f"{mask.OPENED}/") else stage_of(key)
        if stage in STAGES and stage not in case.stages:
            if stage not in case.damage:
                strays.setdefault(stage, f"the stage {stage} did not come to its end")
        else:
            strays[key] = f"{key} was not written by its stage"
    return strays
