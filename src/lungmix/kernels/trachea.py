"""Part of the trachea that is measured at full size: its HU are those of air."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TRACHEA_MM = 20.0
"""Length of the part, mm; it lies in one or two stored slabs."""

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]
Box = tuple[slice, slice, slice]


def part_of_trachea(core: Mask, reduced_index: Sequence[Indices], slice_mm: float) -> tuple[Box, Mask]:
    """Return a box of the axial array around a part of the trachea, and a mask of the voxels in it inside the trachea.

    Parameters
    ----------
    core : ndarray of bool, shape (z, y, x)
        Trachea on the reduced copy, without its wall; at least one voxel is True.
    reduced_index : sequence of ndarray of int64
        Along z, y and x, index of the reduced voxel that contains each voxel of the axial array.
    slice_mm : float
        Distance of the slices of the reduced copy, mm.
    """
    slices = np.flatnonzero(core.any(axis=(1, 2)))
    # Take a part above the middle, because the lower end of the tube can be a main bronchus.
    middle, length = int(slices[int(0.6 * (len(slices) - 1))]), TRACHEA_MM / slice_mm
    first = max(middle - int(length / 2), int(slices[0]))
    part = core[first : first + max(1, int(length))]
    rows, columns = (np.flatnonzero(part.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    bounds = ((first, first + len(part)), (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1))
    inside = [
        np.flatnonzero((index >= low) & (index < high))
        for index, (low, high) in zip(reduced_index, bounds, strict=True)
    ]
    z, y, x = (slice(int(voxels[0]), int(voxels[-1]) + 1) for voxels in inside)
    indices = (index[span] for index, span in zip(reduced_index, (z, y, x), strict=True))
    return (z, y, x), core[np.ix_(*indices)]
