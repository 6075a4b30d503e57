"""Tests of header values: whether an image is a CT in HU or a computed image. Parser of times of day."""

from __future__ import annotations

import re
from functools import lru_cache

# Parts of ImageType that mark images computed from other images, by projection or from several scans.
_COMPUTED = re.compile(
    r"(?<![A-Z])(?:MIP|MINIP|VRT|SSD|CPR|PROJECTION IMAGE|MAXIMUM|MINIMUM|SUBTRACTION|STD_DEVIATION)(?![A-Z])"
)
# Rescale types (PS3.3, C.11.1.1.2) of material maps and other quantities, and spellings of manufacturers.
_NOT_HU = re.compile(r"OD|MGML|Z_?EFF|EDW?|PCT|\d*\s*[MU]G\s*/\s*(?:ML|CC|CM3)", re.IGNORECASE)


@lru_cache(256)
def is_computed(image_type: tuple[str, ...]) -> bool:
    """Return True if ImageType, in upper case, says that pixels are projections or differences of other images."""
    return any(_COMPUTED.search(part) for part in image_type)


def is_other_quantity(rescale_type: str) -> bool:
    """Return True if pixels after rescaling are certainly not in HU."""
    return _NOT_HU.fullmatch(rescale_type) is not None


def seconds_of(time: str) -> float | None:
    """Return a DICOM time, with or without a date, in seconds since midnight; None if it is invalid."""
    match = re.fullmatch(r"(?:\d{8})?(\d{2})(\d{2})(\d{2})(\.\d{1,6})?(?:[+-]\d{4})?", time)
    if match is None:
        return None
    hours, minutes, seconds, fraction = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(fraction or 0)
