"""Access to the elements of DICOM files with masks: segmentations and structure sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage

from lungmix.errors import LungmixError, SourceError, mark_path
from lungmix.formats.dicom.elements import RawHeader, tags_for
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from lungmix.formats.dicom.raw_reader import is_file_system_error
from lungmix.formats.masks.words import Coded

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP class of segmentations that are label maps, which older releases of pydicom do not list."""

KIND_BY_CLASS = {
    str(SegmentationStorage): "seg",
    LABEL_MAP_STORAGE: "seg",
    str(RTStructureSetStorage): "rtstruct",
}
"""Kind of mask (`MaskFile.kind`) by SOP class."""

_MAX_UID_LENGTH = 64


def is_dicom(path: Path) -> bool:
    """Return True if a file has the DICM prefix after its preamble of 128 bytes."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def kind_of(path: Path) -> str | None:
    """Return the kind of mask in a DICOM file, ``seg`` or ``rtstruct``; None for other SOP classes.

    Raises
    ------
    SourceError
        If the file is corrupt.
    """
    with corrupt_errors(path):
        meta = read_file_meta_info(path)
        return KIND_BY_CLASS.get(text_of(meta, "MediaStorageSOPClassUID"))


@contextmanager
def corrupt_errors(path: Path | str) -> Iterator[None]:
    """Raise `SourceError` in place of any error that pydicom raises on corrupt files."""
    try:
        with hide_warnings_of("pydicom"):
            yield
    except (LungmixError, MemoryError):
        raise
    except Exception as error:
        if is_file_system_error(error):
            raise
        raise SourceError(
            f"{mark_path(path)} is cut short or corrupt: its elements cannot be read; get the file again"
        ) from None


def read_elements(path: Path, keywords: Sequence[str], max_bytes: int) -> RawHeader:
    """Return the elements of a DICOM file before its pixels; call it within `corrupt_errors`.

    Raises
    ------
    SourceError
        If the file is deflated, or its elements need more than `max_bytes`.
    """
    size = path.stat().st_size
    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise SourceError(f"{mark_path(path)} is deflated, which is not supported for masks: export it uncompressed")
    with path.open("rb") as stream:
        elements = RawHeader.read(stream, tags_for(iter(("SOPClassUID", *keywords))))
    if (elements.pixel_offset or size) > max_bytes:
        raise SourceError(
            f"{mark_path(path)} describes its segments in more than {max_bytes >> 20} MiB: export fewer of them"
        )
    return elements


def items_of(dataset: Any, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where it is missing."""
    return list(dataset.get(keyword) or ())


def first_item(dataset: Any, keyword: str) -> Dataset:
    """Return the first item of a sequence; an empty one where it is missing."""
    return next(iter(items_of(dataset, keyword)), Dataset())


def text_of(dataset: Any, keyword: str) -> str:
    """Return the text of an element; empty where it is missing or has several values."""
    value = dataset.get(keyword)
    return "" if value is None or isinstance(value, (list, Dataset)) else str(value).strip(" \0")


def number_of(dataset: Any, keyword: str) -> int | None:
    """Return the integer in an element; None where the element is missing or empty."""
    value = dataset.get(keyword)
    return None if value is None or value == "" else int(value)


def uid_of(dataset: Any, keyword: str) -> str | None:
    """Return the unique identifier in an element; None where it is missing or invalid."""
    uid = text_of(dataset, keyword)
    is_valid = 0 < len(uid) <= _MAX_UID_LENGTH and uid.isascii() and uid.replace(".", "").isdigit()
    return uid if is_valid else None


def code_of(item: Any) -> Coded | None:
    """Return coding scheme and code value of an item of a code sequence; None where either is missing."""
    scheme, value = text_of(item, "CodingSchemeDesignator"), text_of(item, "CodeValue")
    return (scheme, value) if scheme and value else None


def codes_of(dataset: Any, keyword: str) -> list[Coded]:
    """Return the codes of a code sequence."""
    return [code for item in items_of(dataset, keyword) if (code := code_of(item)) is not None]
