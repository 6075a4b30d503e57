"""Images that a medium's index of files (DICOMDIR) lists, which tell where some were not copied."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from lungmix.errors import mark_path
from lungmix.formats.dicom.elements import ITEM
from lungmix.formats.dicom.header import Damaged, Header
from lungmix.formats.dicom.slice_groups import Group

_LARGEST, _MOST_ITEMS = 64 << 20, 100_000


@dataclass(frozen=True)
class Listed:
    """One image of an index.

    Attributes
    ----------
    series_uid, sop_uid : str
        Identifiers of its series and of itself.
    file : str
        Where it should lie, below the folder of the index.
    """

    series_uid: str
    sop_uid: str
    file: str


def images_of(index: str) -> list[Listed]:
    """All images that an index lists; none where it cannot be read or is too large, for files are found without it."""
    try:
        if Path(index).stat().st_size > _LARGEST:
            return []
        content = Path(index).read_bytes()
        if content.count(ITEM) > _MOST_ITEMS:
            return []
        return list(_images(pydicom.dcmread(io.BytesIO(content), force=True)))
    except Exception:  # pydicom raises whatever broken bytes lead to
        return []


def _images(index: Any) -> Iterator[Listed]:
    """Records name the next one beside them and the first one below by places in the file (PS3.3, F.3)."""
    records: dict[int, Dataset] = {record.seq_item_tell: record for record in index.DirectoryRecordSequence}
    waiting = [(index.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity, "")]
    while waiting:
        place, series = waiting.pop()
        # Each is taken once, so that no circle is followed.
        record = records.pop(place, None)
        if record is None:
            continue
        kind = record.get("DirectoryRecordType")
        below = str(record.get("SeriesInstanceUID") or "") if kind == "SERIES" else series
        if kind == "IMAGE" and series and record.get("ReferencedFileID"):
            parts = record.ReferencedFileID
            file = parts if isinstance(parts, str) else "/".join(parts)
            yield Listed(series, str(record.get("ReferencedSOPInstanceUIDInFile") or ""), file)
        waiting.append((record.get("OffsetOfTheNextDirectoryRecord", 0), series))
        waiting.append((record.get("OffsetOfReferencedLowerLevelDirectoryEntity", 0), below))


def not_there(
    indices: Iterable[str], groups: Sequence[Group], damaged: Iterable[Damaged] = ()
) -> dict[int, list[Damaged]]:
    """Slices that an index lists of a series which is there otherwise, by the largest group of that series.

    Series of which nothing was copied are not missed.
    """
    there = {one.sop_uid for group in groups for one in group.slices} | {one.header.sop_uid for one in damaged}
    files = {one.file for group in groups for one in group.slices} | {one.header.file for one in damaged}
    largest: dict[str, int] = {}
    for i, group in enumerate(groups):
        uid = group.first.series_uid
        if group.first.unused is None and (uid not in largest or len(group.slices) > len(groups[largest[uid]].slices)):
            largest[uid] = i
    found: dict[int, list[Damaged]] = {}
    for index in indices:
        missing: dict[str, list[Listed]] = defaultdict(list)
        for one in images_of(index):
            place = str(Path(index).parent / one.file)
            if one.sop_uid and one.sop_uid not in there and place not in files:
                missing[one.series_uid].append(one)
        for uid, listed in missing.items():
            if uid in largest:
                more = f", nor {'are' if len(listed) > 2 else 'is'} {len(listed) - 1} more" if len(listed) > 1 else ""
                header = Header(listed[0].file, series_uid=uid)
                fault = f"is listed in {mark_path(index)} but is not there{more}"
                found.setdefault(largest[uid], []).append(Damaged(header, fault, read=False))
    return found
