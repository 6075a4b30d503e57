"""Morphology by spheres in millimetres, on boolean volumes with few voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels import morphology
from lungmix.kernels.packed_masks import pack, unpack
from lungmix.kernels.structuring_elements import Element, ellipsoid

Mask = npt.NDArray[np.bool_]

_WIDEST_STEP = 1.01
"""A sphere reaches at least the next voxel on every axis; the factor keeps rounding from deciding that."""


def dilated(mask: Mask, radius_mm: float, spacing: Sequence[float]) -> Mask:
    """Return the dilation of a mask by a sphere of at least one voxel."""
    bits = morphology.dilate(_packed(mask), mask.shape[2], _sphere(radius_mm, spacing))
    return _unpacked(bits, mask.shape[2])


def closed(mask: Mask, radius_mm: float, spacing: Sequence[float]) -> Mask:
    """Return the closing of a mask by a sphere of at least one voxel, as if surrounded by background."""
    bits = morphology.closing(_packed(mask), mask.shape[2], _sphere(radius_mm, spacing))
    return _unpacked(bits, mask.shape[2])


def opened(mask: Mask, radius_mm: float, spacing: Sequence[float]) -> Mask:
    """Return the opening of a mask by a sphere of at least one voxel, as if continued at the borders of the volume."""
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
