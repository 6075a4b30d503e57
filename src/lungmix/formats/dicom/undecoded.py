"""Slices that GDCM does not decode: those that are read in another way, and why the others are not."""

from __future__ import annotations

from pathlib import Path

import pydicom

from lungmix.formats.dicom.stack import Frame

_BITMAP = 0x3000
# Compressed pixels end with this; little may follow.
_DELIMITER = b"\xfe\xff\xdd\xe0"
_TAIL = 1 << 16


def frame_for_pydicom(file: str) -> Frame | None:
    """Return the one frame of a file that ITK refuses for what is no part of its pixels; None if it has none.

    GDCM knows some attributes of an overlay with a bitmap and none of the others, such as comments or an activation
    layer (DICOM PS3.3, C.9.2). ITK refuses a SpacingBetweenSlices of 0. pydicom decodes both.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        overlay = any(tag.group & 0xFF01 == 0x6000 and tag.element == _BITMAP for tag in list(header.keys()))
        between = header.get("SpacingBetweenSlices")
        if not overlay and (between is None or float(between) != 0):
            return None
        slope, intercept = (header.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
        return Frame(0, 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    except Exception:  # pydicom raises whatever broken bytes lead to
        return None


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
