"""Slices that GDCM does not decode: those that are read in another way, and why the others are not."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR

from lungmix.formats.dicom.elements import RawHeader, tags_of
from lungmix.formats.dicom.stack import Frame

_BITMAP = 0x3000
_BETWEEN = 0x00180088
_GEOMETRY = (0x0018, 0x0020, 0x0028)
"""Groups of the attributes of acquisition, place and pixels."""

_RESCALE = ("RescaleSlope", "RescaleIntercept")
# Compressed pixels end with this; little may follow.
_DELIMITER = b"\xfe\xff\xdd\xe0"
_TAIL = 1 << 16


def frame_for_pydicom(file: str) -> Frame | None:
    """Return the one frame of a file that ITK refuses for what is no part of its pixels; None if it has none.

    GDCM knows some attributes of an overlay with a bitmap and none of the others, such as comments or an activation
    layer (DICOM PS3.3, C.9.2). ITK refuses a SpacingBetweenSlices of 0, and attributes of another VR than the standard
    gives them. pydicom decodes all of these.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if not (_has_overlay(header) or _has_other_vr(header) or _has_spacing_of_zero(header)):
            return None
        with Path(file).open("rb") as stream:
            elements = RawHeader.read(stream, tags_of(iter(_RESCALE)))
        slope, intercept = map(elements.number, _RESCALE)
        return Frame(0, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
    except Exception:  # pydicom raises whatever broken bytes lead to
        return None


def _has_overlay(header: pydicom.Dataset) -> bool:
    return any(tag.group & 0xFF01 == 0x6000 and tag.element == _BITMAP for tag in list(header.keys()))


def _has_spacing_of_zero(header: pydicom.Dataset) -> bool:
    between = header.get(_BETWEEN)
    return between is not None and float(between.value) == 0


def _has_other_vr(header: pydicom.Dataset) -> bool:
    """Return True where an attribute is written with a VR that the standard does not give it; UN may stand for any."""
    tags = [tag for tag in list(header.keys()) if tag.group in _GEOMETRY and dictionary_has_tag(tag)]
    return any((header.get_item(tag).VR or "UN") not in ("UN", *dictionary_VR(tag).split(" or ")) for tag in tags)


def why_undecoded(file: str) -> str:
    """Return what hinders decoding a file whose header is well, and what to do, after "the file"."""
    try:
        with Path(file).open("rb") as stream:
            stream.read(1)
    except OSError as error:
        return f"cannot be read ({error.strerror}): check it"
    if _ends_early(file):
        return "is cut short: get the file again"
    return (
        "has pixels that its decoder does not accept, though the file does not end early: get the file again, or "
        "convert it to explicit little endian, as dcmdjpeg and gdcmconv --raw do, and give that"
    )


def _ends_early(file: str) -> bool:
    try:
        dataset = pydicom.dcmread(file)
        if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            bits = dataset.Rows * dataset.Columns * dataset.get("SamplesPerPixel", 1) * dataset.BitsAllocated
            return bool(len(dataset.PixelData) < bits * int(dataset.get("NumberOfFrames", None) or 1) // 8)
        # pydicom warns of pixels without their end and gives what there is.
        with Path(file).open("rb") as stream:
            stream.seek(max(Path(file).stat().st_size - _TAIL, 0))
            return _DELIMITER not in stream.read()
    except Exception as error:  # pydicom raises whatever broken bytes lead to
        return isinstance(error, EOFError)
