"""DICOM files without pixels, from the metadata of instances as DICOM JSON (DICOM PS3.18, annex F)."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.header_reader import HEADER_TAGS

_TAGS = {f"{int(tag):08X}" for tag in HEADER_TAGS}
_PIXELS = b"\xe0\x7f\x10\x00OW\x00\x00"
_MAX_PIXEL_BYTES = 0xFFFFFFFE


def write_metadata_file(path: Path, metadata: Mapping[str, Any]) -> bytes:
    """Write the attributes of an instance that headers are read from, and return the written bytes.

    After these bytes, the file has pixels of the declared size, all zero, which take no space on the disk. An
    attribute with an invalid value is omitted.

    Parameters
    ----------
    path : Path
        File to write.
    metadata : mapping
        Attributes of the instance as DICOM JSON.

    Raises
    ------
    SourceError
        If the pixels would be larger than an uncompressed file can hold.
    """
    dataset = Dataset()
    with config.disable_value_validation():
        for key, element in metadata.items():
            if key.upper() in _TAGS:
                with suppress(Exception):  # pydicom raises any exception on corrupt values
                    dataset.update(Dataset.from_json({key: element}, bulk_data_uri_handler=_no_bulk_data))
        # JSON is UTF-8, whatever the character set of the instance is.
        dataset.SpecificCharacterSet = "ISO_IR 192"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = str(dataset.get("SOPClassUID", ""))
        meta.MediaStorageSOPInstanceUID = str(dataset.get("SOPInstanceUID", ""))
        dataset.file_meta = meta
        stream = io.BytesIO()
        try:
            dataset.save_as(stream, enforce_file_format=True)
        except Exception:  # a value that pydicom reads and cannot write
            raise SourceError(f"{mark_path(path)} has invalid metadata on its server: check them there") from None
    content = stream.getvalue()
    pixel_bytes = _pixel_bytes(dataset)
    if pixel_bytes > _MAX_PIXEL_BYTES:
        raise SourceError(f"{mark_path(path)} declares pixels of {pixel_bytes / 1e9:.1f} GB: check it on its server")
    with path.open("xb") as out:
        out.write(content)
        if pixel_bytes:
            out.write(_PIXELS + struct.pack("<I", pixel_bytes))
            out.truncate(out.tell() + pixel_bytes)
    return content


def _no_bulk_data(tag: str, vr: str, uri: str) -> bytes:
    return b""


def _pixel_bytes(dataset: Dataset) -> int:
    """Return the size of the pixels that a dataset describes, an even number; 0 without pixels."""
    size = 1
    for name, default in (
        ("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1), ("NumberOfFrames", 1), ("BitsAllocated", 16),
    ):  # fmt: skip
        value = dataset.get(name)
        size *= value if isinstance(value, int) and value > 0 else default
    return (size // 8 + 1) // 2 * 2
