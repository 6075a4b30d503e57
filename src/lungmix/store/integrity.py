"""Compare the objects of a case with the receipts of its stages; what differs is redone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from lungmix.errors import DamageError
from lungmix.store.case import LABELS_FILE, Case
from lungmix.store.objects import Receipts, is_partial

_PLACES = {
    "0": "convert", "1": "convert", "2": "convert", "labels/lung": "mask", "hu_counts": "mask", "air": "air",
    "labels/side": "side", "side_counts": "side", "labels/tissue": "label", "labels/tissue_median": "label",
}  # fmt: skip
OME = "ome"
"""The attribute that describes an image to other programs."""

PASSING = "opened"
"""An array that lives only while a mask is made."""


def stage_of(key: str) -> str | None:
    """The stage that writes an object or an array of a case; ``air`` for the packed air."""
    parts = key.strip("/").split("/")
    return _PLACES.get("/".join(parts[: 2 if parts[0] == "labels" else 1]))


def invalidate_corrupt_stages(case: Case) -> dict[str, str]:
    """Withdraw the stages of a case whose objects are missing, cut short or not theirs, and clear up after the killed.

    One listing of the case and its two tables of counts; voxels are not read. Flipped bytes show when they are read.

    Returns
    -------
    dict of str to str
        Reasons by stage, or by `LABELS_FILE` or `OME`, which are written again; empty if all is well.
    """
    sizes = case.sizes()
    for key in [key for key in sizes if is_partial(key)]:
        case.delete_object(key)
        del sizes[key]
    if any(key.startswith(f"{PASSING}/") for key in sizes):
        case.discard(PASSING)
    found: dict[str, str] = {}
    for stage, record in case.stages.items():
        if "files" not in record:
            continue
        reason = difference(record["files"], {key: size for key, size in sizes.items() if stage_of(key) == stage})
        reason = reason or _unreadable(_TABLES.get(stage), case)
        if reason:
            found[stage] = reason
    if case.packed_threshold is not None:
        reason = difference(case.packed_files, {k: size for k, size in sizes.items() if stage_of(k) == "air"})
        if reason:
            # The mask packs it anew.
            case.record_packed(None)
            found.setdefault("mask", reason)
    for stage, reason in found.items():
        case.mark_damaged(stage, reason)
    if wrong_list(case, sizes):
        case.write_object(LABELS_FILE, case.list_of_labels(_label_maps(sizes)))
        found[LABELS_FILE] = "it is not what was written"
    if "convert" in case.stages and not case.is_described:
        case.describe_image()
        found[OME] = "its OME-Zarr metadata are not what its geometry gives"
    return found


def invalidate_stage(case: Case, stage: str, reason: str) -> str:
    """Withdraw what a stage wrote; gives the stage that makes it again, for the packed air (``air``) the mask."""
    if stage == "air":
        # The mask packs it anew.
        case.record_packed(None)
        stage = "mask"
    case.mark_damaged(stage, reason)
    return stage


def wrong_list(case: Case, keys: Collection[str]) -> bool:
    """Whether the list of label maps does not fit the maps of which there are objects."""
    maps = _label_maps(keys)
    return bool(maps) and case.read_object(LABELS_FILE) != case.list_of_labels(maps)


def _label_maps(keys: Collection[str]) -> set[str]:
    return {key.split("/")[1] for key in keys if key.startswith("labels/") and key != LABELS_FILE}


def difference(receipts: Receipts, sizes: Mapping[str, int]) -> str | None:
    """The first object whose size is not what its receipt says; None if there is none."""
    for key, (size, _) in receipts.items():
        if key not in sizes:
            return f"{key} is missing"
        if sizes[key] != size:
            return f"{key} has {sizes[key]} bytes in place of {size}"
    strange = sorted(sizes.keys() - receipts.keys())
    return f"{strange[0]} was not written by its stage" if strange else None


_TABLES: dict[str, Callable[[Case], object]] = {
    "mask": lambda case: case.hu_counts,
    "side": lambda case: case.side_counts,
}


def _unreadable(table: Callable[[Case], object] | None, case: Case) -> str | None:
    if table is None:
        return None
    try:
        table(case)
    except DamageError as error:
        return f"{error.array} is damaged"
    return None
