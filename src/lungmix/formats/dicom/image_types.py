"""Words of headers: those that tell images in HU from what else a CT's console computes, and times of the day."""

from __future__ import annotations

import re
from functools import lru_cache

# Words of image types whose pixels were computed from many others, along a line or from several scans.
_COMPUTED = re.compile(
    r"(?<![A-Z])(?:MIP|MINIP|VRT|SSD|CPR|PROJECTION IMAGE|MAXIMUM|MINIMUM|SUBTRACTION|STD_DEVIATION)(?![A-Z])"
)
# Rescale types (PS3.3, C.11.1.1.2) of maps of materials and other quantities, and as makers write them.
_NOT_HU = re.compile(r"OD|MGML|Z_?EFF|EDW?|PCT|\d*\s*[MU]G\s*/\s*(?:ML|CC|CM3)", re.IGNORECASE)


@lru_cache(256)
def is_computed(image_type: tuple[str, ...]) -> bool:
    """Whether pixels are projections or differences, by the parts of the image type in capitals."""
    return any(_COMPUTED.search(part) for part in image_type)


def is_other_quantity(rescale_type: str) -> bool:
    """Whether pixels are certainly something else than HU after slope and intercept."""
    return _NOT_HU.fullmatch(rescale_type) is not None


def seconds_of(time: str) -> float | None:
    """Return a time of DICOM, with or without its date, in seconds from midnight; None if it is none."""
    found = re.fullmatch(r"(?:\d{8})?(\d{2})(\d{2})(\d{2})(\.\d{1,6})?(?:[+-]\d{4})?", time)
    if found is None:
        return None
    hours, minutes, seconds, fraction = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(fraction or 0)
