"""Slices that ITK (with GDCM) does not decode: those that pydicom decodes, and reasons why no decoder does."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR

from lungmix.formats.dicom.elements import RawHeader, tags_for
from lungmix.formats.dicom.stack import Frame

_BITMAP = 0x3000
_BETWEEN = 0x00180088
_GEOMETRY = (0x0018, 0x0020, 0x0028)
"""Group numbers of DICOM attributes of the acquisition, the position and the pixels."""

_RESCALE = ("RescaleSlope", "RescaleIntercept")
# Compressed pixels end with this delimiter; few elements may follow it.
_DELIMITER = b"\xfe\xff\xdd\xe0"
_TAIL = 1 << 16


def frame_for_pydicom(file: str) -> Frame | None:
    """Return the frame that pydicom is to decode, of a file that ITK rejects for other attributes than its pixels.

    None is returned for other files.

    GDCM supports some attributes of an overlay with a bitmap and not others, such as comments or an activation layer
    (DICOM PS3.3, C.9.2). ITK also rejects a SpacingBetweenSlices of 0, and attributes whose value representation (VR)
    is not that of the standard. pydicom decodes all of these files.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if not (_has_overlay(header) or _has_other_vr(header) or _has_spacing_of_zero(header)):
            return None
        with Path(file).open("rb") as stream:
            elements = RawHeader.read(stream, tags_for(iter(_RESCALE)))
        slope, intercept = map(elements.number, _RESCALE)
        return Frame(0, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
    except Exception:  # pydicom raises any exception on corrupt files
        return None


def _has_overlay(header: pydicom.Dataset) -> bool:
    return any(tag.group & 0xFF01 == 0x6000 and tag.element == _BITMAP for tag in list(header.keys()))


def _has_spacing_of_zero(header: pydicom.Dataset) -> bool:
    spacing = header.get(_BETWEEN)
    return spacing is not None and float(spacing.value) == 0


def _has_other_vr(header: pydicom.Dataset) -> bool:
    """Return True if an attribute has another value representation (VR) than in the standard, except UN (unknown)."""
    tags = [tag for tag in list(header.keys()) if tag.group in _GEOMETRY and dictionary_has_tag(tag)]
    return any((header.get_item(tag).VR or "UN") not in ("UN", *dictionary_VR(tag).split(" or ")) for tag in tags)


def explain_decoding_failure(file: str) -> str:
    """Return why a file with a valid header cannot be decoded, with a remedy, as a phrase that follows "the file"."""
    try:
        with Path(file).open("rb") as stream:
            stream.read(1)
    except OSError as error:
        return f"cannot be read ({error.strerror}): check it"
    if _ends_early(file):
        return "is cut short: get the file again"
    return (
        "has pixels that its decoder rejects, though the file is complete: get the file again, or "
        "convert it to explicit little endian, as `dcmdjpeg` and `gdcmconv --raw` do, and give the converted file"
    )


def _ends_early(file: str) -> bool:
    try:
        dataset = pydicom.dcmread(file)
        if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            bits = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated
            return bool(len(dataset.PixelData) < bits * int(dataset.get("NumberOfFrames", None) or 1) // 8)
        # pydicom only warns where the end of the pixels is missing.
        with Path(file).open("rb") as stream:
            stream.seek(max(Path(file).stat().st_size - _TAIL, 0))
            return _DELIMITER not in stream.read()
    except Exception as error:  # pydicom raises any exception on corrupt files
        return isinstance(error, EOFError)
