"""How large a volume from strangers may be, and what its geometry has to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungmix.errors import SourceError, mark_path
from lungmix.geometry import Geometry

LARGEST_SLICE = 1 << 24
"""Pixels of a slice: 4,096 x 4,096. A scan has 512 x 512, rarely 2,048 x 2,048."""

MOST_SLICES = 1 << 16
"""Slices of a volume."""

MOST_VOXELS = 1 << 35
"""Voxels of a volume: 64 GiB of HU."""

MOST_EXPANSION = 200
"""Times that a compressed file may grow, beyond what is free. CT shrinks two- to fivefold."""

FREE_ON_DISK = 1 << 28
"""Bytes that any archive may unpack to."""

FREE_IN_STREAM = 16 << 30
"""Bytes of voxels that any compressed image may hold; they pass by slab by slab."""

_FARTHEST_MM = 1e6
_RIGHT_ANGLE = 0.01


def check_geometry(path: Path, geometry: Geometry) -> None:
    """Refuse what is no volume of a patient, before any memory is asked for.

    Raises
    ------
    SourceError
        If the size is absurd, a number is not finite, a spacing makes no sense or the axes are not at right angles.
    """
    nz, ny, nx = geometry.shape
    if min(geometry.shape) < 1 or nx * ny > LARGEST_SLICE or nz > MOST_SLICES or nx * ny * nz > MOST_VOXELS:
        raise SourceError(
            f"{mark_path(path)} is to have {nx} x {ny} x {nz} voxels, which no CT has: "
            "its header is damaged; export it again"
        )
    if not np.isfinite([*geometry.spacing, *geometry.origin, *geometry.direction]).all():
        raise SourceError(f"{mark_path(path)} has no usable geometry (a number that is not finite): export it again")
    if not all(1e-4 <= step < 1000 for step in geometry.spacing):
        steps = " x ".join(f"{step:g}" for step in geometry.spacing)
        raise SourceError(f"{mark_path(path)} has a spacing of {steps} mm: a CT has millimetres; export it again")
    if max(map(abs, geometry.origin)) > _FARTHEST_MM:
        raise SourceError(f"{mark_path(path)} has no usable geometry (it lies kilometres away): export it again")
    axes = np.reshape(geometry.direction, (3, 3))
    if np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLE:
        raise SourceError(
            f"{mark_path(path)} has axes that are not at right angles, so its voxels are no boxes: resample it first"
        )
