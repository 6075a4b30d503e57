"""Label maps of a later scan in the space of the first scan, part by part, and the change of each voxel.

A voxel of the first scan gets the label of the voxel of the later scan that is nearest to its point there. The point is
that of the displacement field, between whose grid points the displacement is linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.kernels.jit import kernel
from lungmix.tissue import CHANGES, INVOLVED, TISSUES

Labels = npt.NDArray[np.uint8]
Span = tuple[int, int]

N_LABELS = len(TISSUES) + 1


def _change_codes() -> Labels:
    """Return the label of `lungmix.tissue.CHANGES` by the tissue labels of the first and of the later scan."""
    code = {change.key: change.label for change in CHANGES}
    involved = {tissue.label for tissue in TISSUES if tissue.key in INVOLVED}
    codes = np.zeros((N_LABELS, N_LABELS), np.uint8)
    for first in range(1, N_LABELS):
        for later in range(1, N_LABELS):
            if first in involved and later in involved:
                key = "persistent" if later == first else "denser" if later > first else "less_dense"
            else:
                key = "gone" if first in involved else "new" if later in involved else "normal"
            codes[first, later] = code[key]
    return codes


CHANGE_CODES = _change_codes()
"""Change of a voxel by its label in the first scan (row) and in the later one (column); 0 where one has no lung."""


@dataclass(frozen=True, eq=False)
class Warp:
    """Map from voxels of the first scan to indices of the later scan.

    Attributes
    ----------
    first : Geometry
        Geometry of the axial array of the first scan.
    later : Geometry
        Geometry of the stored array of the later scan.
    field : Geometry
        Grid of the displacements; its axes are parallel to those of the axial array of the first scan.
    displacement : ndarray of float32, shape (z, y, x, 3)
        Displacements (x, y, z) in mm and LPS.
    """

    first: Geometry
    later: Geometry
    field: Geometry
    displacement: npt.NDArray[np.float32]

    def covered(self) -> tuple[Span, Span, Span]:
        """Return the range of voxels of the first scan, along z, y and x, that lies at most a voxel outside the field.

        There the displacement is that at the border of the field.
        """
        spans = []
        for axis in range(3):
            scale, offset = self._coordinates(axis)
            last = self.displacement.shape[axis] - 1
            n = self.first.shape[axis]
            positions = scale * np.arange(n) + offset
            inside = np.flatnonzero((positions >= -1) & (positions <= last + 1))
            spans.append((int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0))
        return spans[0], spans[1], spans[2]

    def source_box(self, spans: Sequence[Span]) -> tuple[slice, slice, slice] | None:
        """Return the part of the later scan that holds all voxels that a part of the first scan can get labels from.

        Parameters
        ----------
        spans : sequence of (int, int)
            Range of voxels of the axial array of the first scan along z, y, x, within the field.

        Returns
        -------
        tuple of slice or None
            None if no voxel of the later scan is needed.
        """
        if any(start >= stop for start, stop in spans):
            return None
        start, steps = self._start_and_steps()
        corners = [start]
        nodes = []
        for axis, (first, stop) in enumerate(spans):
            corners = [corner + index * steps[axis] for corner in corners for index in (first, stop - 1)]
            low, high = self._positions(axis, (first, first + 1))[0], self._positions(axis, (stop - 1, stop))[0]
            nodes.append(np.arange(int(np.floor(low)), int(np.ceil(high)) + 1))
        # An index is linear in the position, plus a mean of displacements of grid points.
        moved = self._displacement_in_voxels()[np.ix_(*nodes)]
        lowest = np.min(corners, axis=0) + moved.min(axis=(0, 1, 2))
        highest = np.max(corners, axis=0) + moved.max(axis=(0, 1, 2))
        low, high = np.floor(lowest).astype(int) - 1, np.ceil(highest).astype(int) + 2
        box = [slice(max(int(a), 0), min(int(b), n)) for a, b, n in zip(low, high, self.later.shape, strict=True)]
        if any(part.start >= part.stop for part in box):
            return None
        return box[0], box[1], box[2]

    def warp(self, maps: Sequence[Labels], box: Sequence[slice], spans: Sequence[Span]) -> list[Labels]:
        """Return label maps of the later scan at voxels of the first scan; 0 outside the later scan.

        Parameters
        ----------
        maps : sequence of ndarray of uint8
            Parts of label maps of the later scan.
        box : sequence of slice
            Position of these parts in the later scan, along z, y, x; at least that of `source_box`.
        spans : sequence of (int, int)
            Range of voxels of the axial array of the first scan along z, y, x, within the field.
        """
        shape = tuple(stop - start for start, stop in spans)
        out = np.zeros((len(maps), *shape), np.uint8)
        start, steps = self._start_and_steps()
        origin = start + sum(span[0] * step for span, step in zip(spans, steps, strict=True))
        coordinates = [self._positions(axis, span) for axis, span in enumerate(spans)]
        corner = np.array([part.start for part in box], np.float64)
        _warp(
            np.stack(maps), np.ascontiguousarray(origin - corner), np.stack(steps), self._displacement_in_voxels(),
            *coordinates, out,
        )  # fmt: skip
        return list(out)

    def _coordinates(self, axis: int) -> tuple[float, float]:
        """Return scale and offset that map an index of the first scan along an axis (z, y, x) to one of the field."""
        column = np.array(self.first.direction[2 - axis :: 3])
        distance = np.subtract(self.first.origin, self.field.origin)
        spacing = self.field.spacing_zyx[axis]
        return self.first.spacing_zyx[axis] / spacing, float(column @ distance) / spacing

    def _positions(self, axis: int, span: Span) -> npt.NDArray[np.float64]:
        """Return the positions in the field of a range of voxels of the first scan along an axis (z, y, x)."""
        scale, offset = self._coordinates(axis)
        return np.clip(scale * np.arange(*span) + offset, 0, self.displacement.shape[axis] - 1)

    def _start_and_steps(self) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float64]]]:
        """Return the index (z, y, x) of the later scan at the first voxel of the first one, and its steps per voxel."""
        to_index = _to_index(self.later)
        start = to_index @ np.subtract(self.first.origin, self.later.origin)
        columns = np.reshape(self.first.direction, (3, 3)) * self.first.spacing
        steps = to_index @ columns
        return start[::-1].copy(), [np.ascontiguousarray(steps[::-1, 2 - axis]) for axis in range(3)]

    def _displacement_in_voxels(self) -> npt.NDArray[np.float64]:
        """Return the displacements in voxels (z, y, x) of the later scan."""
        return np.ascontiguousarray((self.displacement.astype(np.float64) @ _to_index(self.later).T)[..., ::-1])


def pair_counts(first: Labels, later: Labels) -> npt.NDArray[np.int64]:
    """Return how many voxels have each pair of tissue labels in the first scan (row) and in the later one (column)."""
    pairs = np.bincount((first * np.uint8(N_LABELS) + later).ravel(), minlength=N_LABELS**2)
    return np.asarray(pairs, np.int64).reshape(N_LABELS, N_LABELS)


def _to_index(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return the matrix that maps a vector in mm to one in voxels (x, y, z) of a volume."""
    return np.asarray(np.linalg.inv(np.reshape(geometry.direction, (3, 3)) * geometry.spacing), np.float64)


@kernel()
def _warp(maps: Any, origin: Any, steps: Any, field: Any, cz: Any, cy: Any, cx: Any, out: Any) -> None:
    count, nz, ny, nx = maps.shape
    lz, ly, lx = field.shape[0] - 1, field.shape[1] - 1, field.shape[2] - 1
    line = np.empty((field.shape[2], 3))
    for z in range(out.shape[1]):
        z0 = min(int(np.floor(cz[z])), max(lz - 1, 0))
        wz = cz[z] - z0
        z1 = min(z0 + 1, lz)
        for y in range(out.shape[2]):
            y0 = min(int(np.floor(cy[y])), max(ly - 1, 0))
            wy = cy[y] - y0
            y1 = min(y0 + 1, ly)
            # One line of the field at this z and y serves all voxels of the row.
            for k in range(lx + 1):
                for c in range(3):
                    near = field[z0, y0, k, c] * (1 - wy) + field[z0, y1, k, c] * wy
                    far = field[z1, y0, k, c] * (1 - wy) + field[z1, y1, k, c] * wy
                    line[k, c] = near * (1 - wz) + far * wz
            bz = origin[0] + z * steps[0, 0] + y * steps[1, 0]
            by = origin[1] + z * steps[0, 1] + y * steps[1, 1]
            bx = origin[2] + z * steps[0, 2] + y * steps[1, 2]
            for x in range(out.shape[3]):
                x0 = min(int(cx[x]), max(lx - 1, 0))
                wx = cx[x] - x0
                x1 = min(x0 + 1, lx)
                iz = int(np.floor(bz + x * steps[2, 0] + line[x0, 0] * (1 - wx) + line[x1, 0] * wx + 0.5))
                iy = int(np.floor(by + x * steps[2, 1] + line[x0, 1] * (1 - wx) + line[x1, 1] * wx + 0.5))
                ix = int(np.floor(bx + x * steps[2, 2] + line[x0, 2] * (1 - wx) + line[x1, 2] * wx + 0.5))
                if 0 <= iz < nz and 0 <= iy < ny and 0 <= ix < nx:
                    for m in range(count):
                        out[m, z, y, x] = maps[m, iz, iy, ix]
