"""Pixels outside the field of view, where scanners write a value that is no HU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.resample import AIR

_TISSUE_FROM = -1000


def padding_of(header: Header) -> tuple[float, float] | None:
    """HU that stand for padding and would pass for tissue; None where there are none.

    Padding below -1000 HU counts as air everywhere in the method, and stays as it is.
    """
    if header.padding is None:
        return None
    slope, intercept = header.rescale
    low, high = sorted(slope * value + intercept for value in header.padding)
    return (low, high) if high > _TISSUE_FROM else None


def without_padding(values: npt.NDArray[Any], padding: tuple[float, float] | None) -> npt.NDArray[Any]:
    """A slice with its padding as air.

    Some headers name a value that tissue has too, such as 0. Padding surrounds the field of view, so it is taken where
    such pixels reach the edge of the image, one beside the other.

    Parameters
    ----------
    values : ndarray, shape (y, x)
        HU.
    padding : tuple of float or None
        See `padding_of`.
    """
    if padding is None:
        return values
    there = (values >= padding[0]) & (values <= padding[1])
    if not there.any():
        return values
    islands, _ = ndimage.label(there)
    at_edge = np.unique(np.concatenate([islands[0], islands[-1], islands[:, 0], islands[:, -1]]))
    outside = np.isin(islands, at_edge[at_edge > 0])
    kept = values.astype(np.int32 if values.dtype.kind == "u" else values.dtype)
    kept[outside] = AIR
    return kept
