"""Limits on the size and geometry of untrusted volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungmix.errors import SourceError, mark_path
from lungmix.geometry import Geometry

MAX_SLICE_PIXELS = 1 << 24
"""Greatest number of pixels of a slice, 4,096 x 4,096. A scan has 512 x 512, rarely 2,048 x 2,048."""

MAX_SLICES = 1 << 16
"""Greatest number of slices of a volume."""

MAX_VOXELS = 1 << 35
"""Greatest number of voxels of a volume: 64 GiB of HU."""

MAX_EXPANSION = 200
"""Greatest ratio of unpacked to compressed size; CT compresses two- to fivefold. Archives may exceed it by
`MIN_UNPACKED_BYTES`, images by `MIN_STREAM_BYTES`."""

MIN_UNPACKED_BYTES = 1 << 28
"""Bytes that an archive may unpack to on top of `MAX_EXPANSION` times its size."""

MIN_STREAM_BYTES = 16 << 30
"""Bytes of voxels that a compressed image may have on top of `MAX_EXPANSION` times its size; they are read slab by
slab."""

_MAX_ORIGIN_MM = 1e6
_RIGHT_ANGLE = 0.01


def check_geometry(path: Path, geometry: Geometry) -> None:
    """Check that a geometry is plausible for a CT volume, before any memory is allocated.

    Raises
    ------
    SourceError
        If the size exceeds the limits, a number is not finite, a spacing is implausible or the axes are not orthogonal.
    """
    nz, ny, nx = geometry.shape
    if min(geometry.shape) < 1 or nx * ny > MAX_SLICE_PIXELS or nz > MAX_SLICES or nx * ny * nz > MAX_VOXELS:
        raise SourceError(
            f"{mark_path(path)} declares {nx} x {ny} x {nz} voxels, which no CT has: "
            "its header is corrupt; export it again"
        )
    if not np.isfinite([*geometry.spacing, *geometry.origin, *geometry.direction]).all():
        raise SourceError(f"{mark_path(path)} has no usable geometry (a number that is not finite): export it again")
    if not all(1e-4 <= step < 1000 for step in geometry.spacing):
        steps = " x ".join(f"{step:g}" for step in geometry.spacing)
        raise SourceError(f"{mark_path(path)} has an implausible spacing of {steps} mm: export it again")
    if max(map(abs, geometry.origin)) > _MAX_ORIGIN_MM:
        raise SourceError(f"{mark_path(path)} has no usable geometry (its origin is over 1 km away): export it again")
    axes = np.reshape(geometry.direction, (3, 3))
    if np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLE:
        raise SourceError(
            f"{mark_path(path)} has axes that are not at right angles, so its voxels are no boxes: resample it first"
        )
