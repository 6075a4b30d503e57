"""Lateral displacement of slices by a tilted gantry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.slice_groups import pixel_axes

_MIN_SHEAR_MM = 0.5
_MIN_SHEAR_PIXELS = 0.05
# Positions are rounded to a tenth of a millimetre at worst.
_ROUNDED_MM = 0.11


@dataclass(frozen=True)
class GantryShear:
    """Lateral displacement of slices from the line through the first one along the normal.

    Attributes
    ----------
    degrees : float
        Angle of the shear.
    shifts : tuple of (float, float)
        Displacement of each slice in pixels along x and y; 0 for the first slice.
    """

    degrees: float
    shifts: tuple[tuple[float, float], ...]


def estimate_shear(slices: Sequence[Header], along: npt.NDArray[np.float64], title: str) -> GantryShear | None:
    """Return the shear of ordered slices; None if none is displaced by more than a pixel and more than 0.5 mm.

    Raises
    ------
    SourceError
        If the displacement is not linear along the normal.
    """
    if len(slices) < 2 or slices[0].spacing is None:
        return None
    between_rows, between_columns = slices[0].spacing
    sideways = _lateral_offsets(slices)
    limit = max(_MIN_SHEAR_MM, between_rows, between_columns)
    if np.abs(sideways).max() <= limit:
        return None
    depth = along - along[0]
    slope = depth @ sideways / (depth @ depth)
    residual = sideways - depth[:, None] * slope
    # A constant displacement of all slices but the first is not linear either.
    if np.abs(residual).max() > limit:
        median_slope = np.median(sideways[1:] / depth[1:, None], axis=0)
        steps = np.diff(sideways, axis=0)
        worst = int(np.abs(steps - np.diff(depth)[:, None] * median_slope).max(axis=1).argmax())
        pair = f"{mark_path(slices[worst].file)}, {mark_path(slices[worst + 1].file)}"
        raise SourceError(
            f"{title}: slices {worst + 1} and {worst + 2} ({pair}) are displaced sideways by "
            f"{float(np.linalg.norm(steps[worst])):.1f} mm: give slices of one acquisition"
        )
    pixels = sideways / np.array([between_columns, between_rows])
    pixels[:, np.abs(pixels).max(axis=0) < _MIN_SHEAR_PIXELS] = 0
    return GantryShear(
        float(np.degrees(np.arctan(np.linalg.norm(slope)))), tuple((float(x), float(y)) for x, y in pixels)
    )


def find_displaced_slices(slices: Sequence[Header], along: npt.NDArray[np.float64]) -> tuple[list[int], float]:
    """Return the slices of an aligned volume that are displaced from the others by more than rounding, and how far.

    Parameters
    ----------
    slices : sequence of Header
        Slices in the order of z.
    along : ndarray, shape (slices,)
        Positions along the normal, mm.

    Returns
    -------
    list of int, float
        Indices of the displaced slices, and the largest displacement, mm.
    """
    if len(slices) < 3:
        return [], 0.0
    sideways = _lateral_offsets(slices)
    depth = (along - along[0])[:, None]
    # A line through the medians of the first and of the last third is robust to a few displaced slices.
    third = max(len(slices) // 3, 1)
    ends = [
        (np.median(sideways[section], axis=0), np.median(depth[section]))
        for section in (slice(0, third), slice(len(slices) - third, None))
    ]
    slope = (ends[1][0] - ends[0][0]) / (ends[1][1] - ends[0][1])
    residual = sideways - depth * slope
    distance = np.linalg.norm(residual - np.median(residual, axis=0), axis=1)
    return [int(i) for i in np.flatnonzero(distance > _ROUNDED_MM)], float(distance.max())


def _lateral_offsets(slices: Sequence[Header]) -> npt.NDArray[np.float64]:
    """Return the offset of each first pixel from that of the first slice, along rows and columns, in mm."""
    positions = np.array([header.position for header in slices])
    return np.asarray((positions - positions[0]) @ np.stack(pixel_axes(slices[0]), axis=1))
