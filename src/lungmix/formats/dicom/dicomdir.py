"""Images listed in the DICOMDIR of a medium, to detect images that were not copied from the medium."""

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
from lungmix.formats.dicom.header import DamagedFile, Header
from lungmix.formats.dicom.slice_groups import Group

_MAX_BYTES, _MAX_ITEMS = 64 << 20, 100_000


@dataclass(frozen=True)
class ListedImage:
    """An image listed in a DICOMDIR.

    Attributes
    ----------
    series_uid, sop_uid : str
        SeriesInstanceUID and SOPInstanceUID of the image.
    file : str
        Path of the image, relative to the folder of the DICOMDIR.
    """

    series_uid: str
    sop_uid: str
    file: str


def read_dicomdir(file: str) -> list[ListedImage]:
    """Return all images listed in a DICOMDIR; none if it is unreadable or too large, since it is not needed."""
    try:
        if Path(file).stat().st_size > _MAX_BYTES:
            return []
        content = Path(file).read_bytes()
        if content.count(ITEM) > _MAX_ITEMS:
            return []
        return list(_images(pydicom.dcmread(io.BytesIO(content), force=True)))
    except Exception:  # pydicom raises any exception on corrupt files
        return []


def _images(dicomdir: Any) -> Iterator[ListedImage]:
    """Yield the images of a DICOMDIR, whose records refer to sibling and child by byte offset (PS3.3, F.3)."""
    records: dict[int, Dataset] = {record.seq_item_tell: record for record in dicomdir.DirectoryRecordSequence}
    pending = [(dicomdir.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity, "")]
    while pending:
        offset, series = pending.pop()
        # Each record is visited once, so that cyclic references end.
        record = records.pop(offset, None)
        if record is None:
            continue
        kind = record.get("DirectoryRecordType")
        child_series = str(record.get("SeriesInstanceUID") or "") if kind == "SERIES" else series
        if kind == "IMAGE" and series and record.get("ReferencedFileID"):
            components = record.ReferencedFileID
            file = components if isinstance(components, str) else "/".join(components)
            yield ListedImage(series, str(record.get("ReferencedSOPInstanceUIDInFile") or ""), file)
        pending.append((record.get("OffsetOfTheNextDirectoryRecord", 0), series))
        pending.append((record.get("OffsetOfReferencedLowerLevelDirectoryEntity", 0), child_series))


def find_missing_images(
    dicomdirs: Iterable[str], groups: Sequence[Group], damaged: Iterable[DamagedFile] = ()
) -> dict[int, list[DamagedFile]]:
    """Return the slices that a DICOMDIR lists and that do not exist, by the index of the largest group of their series.

    Series without any slice are not reported.
    """
    sop_uids = {image.sop_uid for group in groups for image in group.slices} | {
        image.header.sop_uid for image in damaged
    }
    files = {image.file for group in groups for image in group.slices} | {image.header.file for image in damaged}
    largest: dict[str, int] = {}
    for i, group in enumerate(groups):
        uid = group.first.series_uid
        if group.first.exclusion_reason is None and (
            uid not in largest or len(group.slices) > len(groups[largest[uid]].slices)
        ):
            largest[uid] = i
    missing_by_group: dict[int, list[DamagedFile]] = {}
    for dicomdir in dicomdirs:
        missing: dict[str, list[ListedImage]] = defaultdict(list)
        for image in read_dicomdir(dicomdir):
            path = str(Path(dicomdir).parent / image.file)
            if image.sop_uid and image.sop_uid not in sop_uids and path not in files:
                missing[image.series_uid].append(image)
        for uid, images in missing.items():
            if uid in largest:
                more = f", nor {'are' if len(images) > 2 else 'is'} {len(images) - 1} more" if len(images) > 1 else ""
                header = Header(images[0].file, series_uid=uid)
                problem = f"is listed in {mark_path(dicomdir)} but is missing{more}"
                missing_by_group.setdefault(largest[uid], []).append(DamagedFile(header, problem, is_readable=False))
    return missing_by_group
