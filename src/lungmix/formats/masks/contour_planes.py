"""Contours of a structure, assigned to the slices of a grid and filled there.

The axial array of a grid has axes that run to the head, to the back and to the left of the patient; see
`lungmix.geometry.AxisOrder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.geometry import Geometry
from lungmix.kernels.contours import fill_contours

Points = npt.NDArray[np.float64]

_MAX_DISTANCE = 1 / 3
"""Greatest distance of a contour from its slice, in slice spacings."""

_MAX_SPREAD = 0.1
"""Greatest distance between the planes of two contours of the same slice, in slice spacings."""

_DECIMALS = 6
"""Decimals to which points in voxels are rounded, so that a voxel centre on a contour is inside, or outside, for every
storage order of the scan."""


@dataclass(frozen=True)
class PlanarContours:
    """Contours of a structure by the slice that they lie in.

    Attributes
    ----------
    geometry : Geometry
        Grid on which the contours are filled.
    axis : int
        Axis of the axial array that is normal to the contours: 0 for axial contours.
    contours : mapping of int to list of ndarray, shape (points, 2)
        Row and column of each point in the axial array, by the index of the slice.
    """

    geometry: Geometry
    axis: int
    contours: Mapping[int, list[Points]]

    def paint(self, slab: npt.NDArray[np.uint8], start: int, label: int) -> None:
        """Write a label to the voxels of a slab whose centres are inside the contours.

        Parameters
        ----------
        slab : ndarray of uint8, shape (slices, y, x)
            Slab of the grid in its own storage order, which is changed.
        start : int
            Index of the first slice of the slab in the grid.
        label : int
            Value to write.
        """
        order = self.geometry.axis_order
        block = order.to_axial(slab)
        ranges = [(0, n) for n in block.shape]
        stop, slices = start + len(slab), self.geometry.shape[0]
        ranges[order.axes.index(0)] = (slices - stop, slices - start) if order.flipped[0] else (start, stop)
        across = ranges.pop(self.axis)
        for index, contours in self.contours.items():
            if across[0] <= index < across[1]:
                inside = fill_contours(contours, ranges[0], ranges[1])
                np.moveaxis(block, self.axis, 0)[index - across[0]][inside] = label


def place_contours(path: Path, number: int, contours: Sequence[Points], geometry: Geometry) -> PlanarContours:
    """Return the contours of a structure in the slices of a grid.

    Parameters
    ----------
    path : Path
        File, for messages.
    number : int
        Number of the structure, for messages.
    contours : sequence of ndarray, shape (points, 3)
        Positions in the patient, mm.
    geometry : Geometry
        Grid of the scan.

    Raises
    ------
    SourceError
        If a contour lies in no slice of the scan, or if the contours of one slice lie in different planes.
    """
    axial = geometry.axial
    matrix = np.linalg.inv(np.reshape(axial.direction, (3, 3)) * axial.spacing)
    # Indices in the order of the axes of the axial array.
    indices = [np.round((points - axial.origin) @ matrix.T, _DECIMALS)[:, ::-1] for points in contours]
    axis = int(np.argmin(np.median([np.ptp(points, axis=0) for points in indices], axis=0)))
    planes: dict[int, list[Points]] = {}
    heights: dict[int, list[float]] = {}
    off = 0
    for points in indices:
        low, high = float(points[:, axis].min()), float(points[:, axis].max())
        index = round((low + high) / 2)
        if not 0 <= index < axial.shape[axis] or max(index - low, high - index) > _MAX_DISTANCE:
            off += 1
            continue
        planes.setdefault(index, []).append(np.delete(points, axis, axis=1))
        heights.setdefault(index, []).append((low + high) / 2)
    if off:
        raise SourceError(
            f"{mark_path(path)} has {off} of {len(contours)} contours of structure {number} off the slices of the "
            "scan: give the CT series on which they were drawn"
        )
    if any(max(values) - min(values) > _MAX_SPREAD for values in heights.values()):
        raise SourceError(
            f"{mark_path(path)} has contours of structure {number} in several planes of one slice: give the CT series "
            "on which they were drawn"
        )
    return PlanarContours(geometry, axis, planes)
