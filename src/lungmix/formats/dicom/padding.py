"""Padding: pixels outside the field of view, where scanners write a value that is not in HU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.resample import AIR

_TISSUE_FROM = -1000


def padding_range(header: Header) -> tuple[float, float] | None:
    """Return the lowest and highest HU of padding that could be mistaken for tissue; None if there is none.

    Padding of -1000 HU or less needs no replacement: all stages treat it as air.
    """
    if header.padding is None:
        return None
    slope, intercept = header.rescale
    low, high = sorted(slope * value + intercept for value in header.padding)
    return (low, high) if high > _TISSUE_FROM else None


def replace_padding(values: npt.NDArray[Any], padding: tuple[float, float] | None) -> npt.NDArray[Any]:
    """Return a slice with its padding replaced by air.

    Some headers declare a padding value that tissue has too, such as 0. Padding surrounds the field of view, so only
    connected components that touch the edge of the image are replaced.

    Parameters
    ----------
    values : ndarray, shape (y, x)
        Slice in HU.
    padding : tuple of float or None
        Result of `padding_range`.
    """
    if padding is None:
        return values
    is_padding = (values >= padding[0]) & (values <= padding[1])
    if not is_padding.any():
        return values
    components, _ = ndimage.label(is_padding)
    at_edge = np.unique(np.concatenate([components[0], components[-1], components[:, 0], components[:, -1]]))
    outside = np.isin(components, at_edge[at_edge > 0])
    result = values.astype(np.int32 if values.dtype.kind == "u" else values.dtype)
    result[outside] = AIR
    return result
