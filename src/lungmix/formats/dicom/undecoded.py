"""Slices that GDCM does not decode: those that are read in another way, and why the others are not."""

from __future__ import annotations

from pathlib import Path

import pydicom

from lungmix.formats.dicom.stack import Frame

_BITMAP = 0x3000


def frame_under_overlay(file: str) -> Frame | None:
    """The one frame of a file that has an overlay, to be read without it; None if it has none.

    GDCM knows some attributes of an overlay with a bitmap and none of the others, such as comments or an activation
    layer (DICOM PS3.3, C.9.2). Overlays are no part of the pixels.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        tags = list(header.keys())
        if not any(tag.group & 0xFF01 == 0x6000 and tag.element == _BITMAP for tag in tags):
            return None
        slope, intercept = (header.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
        return Frame(0, 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    except Exception:  # pydicom raises whatever broken bytes lead to
        return None


def why_undecoded(file: str) -> str:
    """What hinders decoding a file whose header is well, and what to do, after "the file"."""
    try:
        with Path(file).open("rb") as stream:
            stream.read(1)
    except OSError as error:
        return f"cannot be read ({error.strerror}): check it"
    return "is cut short or damaged: get the file again"
