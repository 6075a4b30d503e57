"""Dilation, closing and opening of small boolean volumes by spheres whose radius is in millimetres.

A radius that is too small for the grid is increased, so that a sphere reaches the next voxel on every axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels import morphology
from lungmix.kernels.packed_masks import pack, unpack
from lungmix.kernels.structuring_elements import Element, ellipsoid

Mask = npt.NDArray[np.bool_]

_WIDEST_STEP = 1.01
"""Smallest radius as a multiple of the largest voxel spacing; a little more than 1, so that rounding has no effect."""


def dilated(mask: Mask, radius_mm: float, spacing: Sequence[float]) -> Mask:
    """Return the dilation of a mask by a sphere."""
    bits = morphology.dilate(_packed(mask), mask.shape[2], _sphere(radius_mm, spacing))
    return _unpacked(bits, mask.shape[2])


def closed(mask: Mask, radius_mm: float, spacing: Sequence[float]) -> Mask:
    """Return the closing of a mask by a sphere, with background outside the volume."""
    bits = morphology.closing(_packed(mask), mask.shape[2], _sphere(radius_mm, spacing))
    return _unpacked(bits, mask.shape[2])


def opened(mask: Mask, radius_mm: float, spacing: Sequence[float]) -> Mask:
    """Return the opening of a mask by a sphere, with the voxels at the border of the volume repeated outside it."""
    sphere = _sphere(radius_mm, spacing)
    padded = np.pad(mask, [(extent, extent) for extent in sphere.extent], mode="edge")
    bits = morphology.opening(_packed(padded), padded.shape[2], sphere)
    inner = tuple(slice(extent, extent + n) for extent, n in zip(sphere.extent, mask.shape, strict=True))
    return np.ascontiguousarray(_unpacked(bits, padded.shape[2])[inner])


def _sphere(radius_mm: float, spacing: Sequence[float]) -> Element:
    return ellipsoid(max(radius_mm, _WIDEST_STEP * max(spacing)), spacing)


def _packed(mask: Mask) -> npt.NDArray[np.uint64]:
    return pack(np.ascontiguousarray(mask).view(np.uint8))


def _unpacked(bits: npt.NDArray[np.uint64], nx: int) -> Mask:
    return unpack(bits, nx).view(np.bool_)
