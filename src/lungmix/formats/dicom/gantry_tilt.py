"""Slices that are displaced sideways, as a tilted gantry leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.slice_groups import axes_of

_LEAST_MM = 0.5
_LEAST_PIXELS = 0.05
# Positions are rounded to a tenth of a millimetre at worst.
_ROUNDED_MM = 0.11


@dataclass(frozen=True)
class GantryShear:
    """How far slices lie beside the line through the first one along the normal.

    Attributes
    ----------
    degrees : float
        Angle of the shear.
    shifts : tuple of (float, float)
        Of each slice, in pixels along x and y; the first one's is 0.
    """

    degrees: float
    shifts: tuple[tuple[float, float], ...]


def shear_of(slices: Sequence[Header], along: npt.NDArray[np.float64], title: str) -> GantryShear | None:
    """The shear of ordered slices; None if they stand straight, to less than a pixel.

    Raises
    ------
    SourceError
        If they are displaced in another way than along a line.
    """
    if len(slices) < 2 or slices[0].spacing is None:
        return None
    between_rows, between_columns = slices[0].spacing
    sideways = _sideways(slices)
    limit = max(_LEAST_MM, between_rows, between_columns)
    if np.abs(sideways).max() <= limit:
        return None
    depth = along - along[0]
    slope = depth @ sideways / (depth @ depth)
    rest = sideways - depth[:, None] * slope
    # A constant displacement of all but the first slice leaves the line too.
    if np.abs(rest).max() > limit:
        usual = np.median(sideways[1:] / depth[1:, None], axis=0)
        steps = np.diff(sideways, axis=0)
        at = int(np.abs(steps - np.diff(depth)[:, None] * usual).max(axis=1).argmax())
        pair = f"{mark_path(slices[at].file)}, {mark_path(slices[at + 1].file)}"
        raise SourceError(
            f"{title}: slices {at + 1} and {at + 2} ({pair}) are displaced sideways by "
            f"{float(np.linalg.norm(steps[at])):.1f} mm: give slices of one acquisition"
        )
    pixels = sideways / np.array([between_columns, between_rows])
    pixels[:, np.abs(pixels).max(axis=0) < _LEAST_PIXELS] = 0
    return GantryShear(
        float(np.degrees(np.arctan(np.linalg.norm(slope)))), tuple((float(x), float(y)) for x, y in pixels)
    )


def beside_the_others(slices: Sequence[Header], along: npt.NDArray[np.float64]) -> tuple[list[int], float]:
    """Slices of a straight volume that lie beside the line of the others by more than rounding, and how far.

    Parameters
    ----------
    slices : sequence of Header
        In the order of z.
    along : ndarray, shape (slices,)
        Their positions along the normal, mm.

    Returns
    -------
    list of int, float
        Their indices, and the largest distance, mm.
    """
    if len(slices) < 3:
        return [], 0.0
    sideways = _sideways(slices)
    depth = (along - along[0])[:, None]
    # A line through the middles of the first and of the last third: a few slices that are displaced do not move it.
    third = max(len(slices) // 3, 1)
    ends = [
        (np.median(sideways[part], axis=0), np.median(depth[part]))
        for part in (slice(0, third), slice(len(slices) - third, None))
    ]
    slope = (ends[1][0] - ends[0][0]) / (ends[1][1] - ends[0][1])
    rest = sideways - depth * slope
    distance = np.linalg.norm(rest - np.median(rest, axis=0), axis=1)
    return [int(i) for i in np.flatnonzero(distance > _ROUNDED_MM)], float(distance.max())


def _sideways(slices: Sequence[Header]) -> npt.NDArray[np.float64]:
    """Where first pixels lie beside that of the first slice, along rows and columns, mm."""
    places = np.array([one.position for one in slices])
    return np.asarray((places - places[0]) @ np.stack(axes_of(slices[0]), axis=1))
