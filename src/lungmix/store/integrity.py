"""Comparison of the objects of a case with the receipts of its stages; stages with other objects are invalidated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from lungmix.errors import DamageError
from lungmix.store.case import Case
from lungmix.store.case_files import OME, CaseFiles
from lungmix.store.case_writer import CaseWriter
from lungmix.store.objects import Receipts, is_partial
from lungmix.store.schema import CONVERT, LABELS_FILE, MASK, PACKED, SIDE, STAGES, TEMPORARY, ZONE, stage_of


def invalidate_corrupt_stages(case: Case) -> dict[str, str]:
    """Invalidate stages whose objects are missing, truncated or unexpected, and delete files of killed writers.

    Only a listing of the case and its histograms are read, no voxels: changed bytes in images are detected when they
    are read.

    Returns
    -------
    dict of str to str
        Reason for each corrupt stage, and for `LABELS_FILE` or `OME` if these metadata had to be rewritten. Empty if
        nothing is corrupt.
    """
    case = CaseWriter(case)
    sizes = case.sizes()
    for key in [key for key in sizes if is_partial(key)]:
        case.delete_object(key)
        del sizes[key]
    for array in TEMPORARY:
        if any(key.startswith(f"{array}/") for key in sizes):
            case.delete_array(array)
    if case.under_way is not None and case.under_way not in STAGES:
        case.release()
    reasons: dict[str, str] = {}
    for stage, record in case.stages.items():
        if "files" not in record:
            continue
        reason = difference(record["files"], {key: size for key, size in sizes.items() if stage_of(key) == stage})
        reason = reason or _check_readable(_HISTOGRAMS.get(stage), case)
        if reason:
            reasons[stage] = reason
    if case.packed_threshold is not None:
        reason = difference(case.packed_files, {key: size for key, size in sizes.items() if stage_of(key) == PACKED})
        if reason:
            # The mask stage packs the air again.
            case.record_packed(None)
            reasons.setdefault(MASK, reason)
    for stage, reason in reasons.items():
        case.mark_damaged(stage, reason)
    if has_wrong_label_list(case, sizes):
        case.write_object(LABELS_FILE, case.label_list_content(_label_maps(sizes)))
        reasons[LABELS_FILE] = "its content is not what was written"
    if CONVERT in case.stages and not case.is_described:
        case.describe_image()
        reasons[OME] = "its OME-Zarr metadata do not match its geometry"
    return reasons


def invalidate_stage(case: Case, stage: str, reason: str) -> str:
    """Invalidate a stage or the packed air (``air``); return the stage to run again, ``mask`` for the packed air."""
    case = CaseWriter(case)
    if stage == PACKED:
        # The mask stage packs the air again.
        case.record_packed(None)
        stage = MASK
    case.mark_damaged(stage, reason)
    return stage


def has_wrong_label_list(case: CaseFiles, keys: Collection[str]) -> bool:
    """Return True if the list of label maps in `LABELS_FILE` differs from the label maps among the object keys."""
    maps = _label_maps(keys)
    return bool(maps) and case.read_object(LABELS_FILE) != CaseWriter.label_list_content(maps)


def _label_maps(keys: Collection[str]) -> set[str]:
    return {key.split("/")[1] for key in keys if key.startswith("labels/") and key != LABELS_FILE}


def difference(receipts: Receipts, sizes: Mapping[str, int]) -> str | None:
    """Return a description of the first object that does not match its receipt; None if all match."""
    for key, (size, _) in receipts.items():
        if key not in sizes:
            return f"{key} is missing"
        if sizes[key] != size:
            return f"{key} has {sizes[key]} bytes in place of {size}"
    unexpected = sorted(sizes.keys() - receipts.keys())
    return f"{unexpected[0]} was not written by its stage" if unexpected else None


_HISTOGRAMS: dict[str, Callable[[Case], object]] = {
    MASK: lambda case: case.hu_counts,
    SIDE: lambda case: case.side_counts,
    ZONE: lambda case: case.zone_counts,
}


def _check_readable(read: Callable[[Case], object] | None, case: Case) -> str | None:
    if read is None:
        return None
    try:
        read(case)
    except DamageError as error:
        return f"{error.array} is damaged"
    return None
