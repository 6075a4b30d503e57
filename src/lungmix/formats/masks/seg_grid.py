"""Grid of a segmentation, derived from the positions of its frames in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.checks import is_rotation
from lungmix.formats.limits import MAX_SLICES, check_geometry
from lungmix.geometry import Geometry

_TOLERANCE = 0.01
"""Greatest distance of a frame from its position on the grid, as a fraction of the smallest spacing."""

_ROUNDING = 1e-4


@dataclass(frozen=True)
class FramePosition:
    """Position of a frame as its functional groups declare it.

    Attributes
    ----------
    origin, axes, spacing : tuple of float or None
        Position of the first pixel in LPS, mm; directions of the row and the column; distances between rows and
        between columns, mm.
    steps : tuple of float
        Declared distances between slices, mm, the more reliable distance first.
    """

    origin: tuple[float, ...] | None
    axes: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    steps: tuple[float, ...]


def grid_of_frames(
    path: Path, positions: Sequence[FramePosition], shape: tuple[int, int]
) -> tuple[Geometry, list[int]]:
    """Return the grid that reaches from the lowest to the highest frame, and the index of the slice of each frame.

    Parameters
    ----------
    path : Path
        File, for messages.
    positions : sequence of FramePosition
        Position of each frame, in any order.
    shape : tuple of int
        Rows and columns of a frame.

    Raises
    ------
    SourceError
        If the frames differ in orientation or spacing, or are shifted against each other.
    """
    first = positions[0]
    assert first.axes is not None
    assert first.spacing is not None
    planes = np.array([(*position.axes, *position.spacing) for position in positions])  # type: ignore[misc]
    if np.abs(planes - planes[0]).max() > _ROUNDING:
        raise SourceError(f"{mark_path(path)} has frames of several orientations or spacings: export one grid")
    if not is_rotation(first.axes):
        raise SourceError(f"{mark_path(path)} has axes that are not at right angles: export it again")
    row, column = np.array(first.axes[:3]), np.array(first.axes[3:])
    normal = np.cross(row, column)
    origins = np.array([position.origin for position in positions])
    heights = origins @ normal
    lowest = int(heights.argmin())
    step, slices = _slices(path, heights - heights[lowest], first.steps)
    expected = origins[lowest] + np.outer(slices * step, normal)
    if np.linalg.norm(origins - expected, axis=1).max() > _TOLERANCE * max(min(*first.spacing, step), 1e-9):
        raise SourceError(
            f"{mark_path(path)} has frames that are shifted against each other, as with a tilted gantry: resample it "
            "to the scan first"
        )
    direction = np.column_stack([row, column, normal]).ravel()
    size = (shape[1], shape[0], int(slices.max()) + 1)
    geometry = Geometry(size, (first.spacing[1], first.spacing[0], step), tuple(origins[lowest]), tuple(direction))
    check_geometry(path, geometry)
    return geometry, slices.tolist()


def _slices(
    path: Path, heights: npt.NDArray[np.float64], declared: Sequence[float]
) -> tuple[float, npt.NDArray[np.int64]]:
    """Return the distance between slices, mm, and the index of the slice of each frame.

    The distance is the first declared one of which all frames lie at multiples: frames may be farther apart than
    slices, since slices without a segment have no frame. Without such a distance, it is the smallest between two
    frames.
    """
    steps = np.diff(np.unique(heights))
    smallest = steps[steps > _ROUNDING].min(initial=np.inf)
    for step in (*declared, smallest):
        if not np.isfinite(step) or heights.max() / step >= MAX_SLICES:
            continue
        slices = np.rint(heights / step).astype(np.int64)
        last = int(slices.max())
        fitted = float(heights.max() / last) if last else step
        is_even = np.abs(heights - slices * fitted).max() <= _TOLERANCE * fitted
        if is_even and abs(fitted - step) <= _TOLERANCE * step and (last or len(declared)):
            return fitted, slices
    raise SourceError(f"{mark_path(path)} has frames without an even spacing of slices: resample it to the scan first")
