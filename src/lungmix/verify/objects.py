"""Compare the objects of a case with the receipts (sizes and checksums) that its stages recorded."""

from __future__ import annotations

from lungmix.store import STAGES, CaseFiles, stage_of
from lungmix.store.integrity import has_wrong_label_list
from lungmix.store.objects import receipt_of
from lungmix.store.schema import IMPORTED, LABELS_FILE, MASK, OPENED, TEMPORARY


def corrupt_objects(case: CaseFiles) -> list[str]:
    """Read all objects of a case, and return the keys of those that do not match their receipts."""
    records = [record.get("files", {}) for record in case.stages.values()]
    corrupt = [LABELS_FILE] if has_wrong_label_list(case, case.sizes()) else []
    return corrupt + [
        key
        for files in [*records, case.packed_files]
        for key, receipt in files.items()
        if receipt_of(case.read_object(key) or b"") != receipt
    ]


def unexpected_objects(case: CaseFiles) -> dict[str, str]:
    """Return a message for each object that no stage recorded, by its key.

    All objects of an interrupted stage share one message, by the name of the stage. There is no message about temporary
    arrays that a killed command left, because the next command deletes them.
    """
    records = [*case.stages.values(), *(damage["record"] for damage in case.damage.values())]
    stage_files = (key for record in records for key in record.get("files", {}))
    expected = {"zarr.json", LABELS_FILE, *case.packed_files, *stage_files}
    messages: dict[str, str] = {}
    for key in sorted(case.sizes().keys() - expected):
        stage = MASK if key.startswith((f"{OPENED}/", f"{IMPORTED}/")) else stage_of(key)
        if stage in STAGES and stage not in case.stages:
            if stage not in case.damage:
                messages.setdefault(stage, f"the stage {stage} was interrupted")
        elif key.split("/")[0] not in TEMPORARY:
            messages[key] = f"{key} was not written by its stage"
    return messages
