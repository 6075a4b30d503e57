"""Resampling of labels from one voxel grid to another: each voxel gets the label of the nearest voxel.

Labels are read box by box and never averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry

Labels = npt.NDArray[np.uint8]
Box = tuple[slice, slice, slice]
Start = tuple[int, int, int]

DECIMALS = 3
"""Number of decimals to which indices are rounded before the nearest voxel is chosen. So the rounding of geometries in
files has no effect on voxels that lie halfway between two others."""


@dataclass(frozen=True, eq=False)
class GridMap:
    """Affine map from voxel indices ``(z, y, x)`` of a grid to voxel indices of another grid.

    Attributes
    ----------
    matrix : ndarray of float64, shape (3, 3)
        Column ``j`` is one step along axis ``j`` of the grid, expressed in voxels of the other grid.
    offset : ndarray of float64, shape (3,)
        First voxel of the grid, as an index in the other grid.
    shape, other : tuple of int
        Shape of the grid, and shape of the other grid, ``(z, y, x)``.
    """

    matrix: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    shape: tuple[int, int, int]
    other: tuple[int, int, int]

    @classmethod
    def between(cls, grid: Geometry, other: Geometry) -> GridMap:
        """Return the map from the voxels of `grid` to those of `other`."""
        to_space, from_space = _steps(grid), np.linalg.inv(_steps(other))
        offset = from_space @ (np.asarray(grid.origin) - np.asarray(other.origin))
        return cls(from_space @ to_space, offset, grid.shape, other.shape)

    @property
    def overlaps(self) -> bool:
        """True if voxels of the grid can lie in the other grid; False if the grids are certainly apart."""
        return self._box_of(tuple(slice(0, n) for n in self.shape)) is not None  # type: ignore[arg-type]

    def resample(self, start: int, stop: int, read: Callable[[Box], Labels], largest: int | None = None) -> Labels:
        """Return the labels of slices ``start`` to ``stop - 1`` of the grid; voxels outside the other grid are 0.

        A voxel gets the label of the voxel of the other grid whose index is nearest. Halfway between two voxels, it
        gets that of the higher index.

        Parameters
        ----------
        start, stop : int
            First slice of the grid, and the slice after the last one.
        read : callable
            Function of a box, three slices along z, y, x, that returns the labels of the other grid in this box.
        largest : int, optional
            Largest number of voxels in a box that is read at once; by default there is no limit.
        """
        out = np.zeros((stop - start, *self.shape[1:]), np.uint8)
        gather = self._gather_axes if self._is_separable else self._gather_slices
        for z, y, x in self._parts((slice(start, stop), slice(0, self.shape[1]), slice(0, self.shape[2])), largest):
            box = self._box_of((z, y, x))
            if box is not None:
                target = out[z.start - start : z.stop - start, y, x]
                gather(target, read(box), np.array([part.start for part in box]), (z.start, y.start, x.start))
        return out

    def _parts(self, box: Box, largest: int | None) -> Iterator[Box]:
        """Yield parts of a box, each of which needs at most `largest` voxels of the other grid or is a single voxel."""
        other = self._box_of(box)
        if other is None:
            return
        lengths = [part.stop - part.start for part in box]
        if largest is None or prod(part.stop - part.start for part in other) <= largest or max(lengths) == 1:
            yield box
            return
        axis = lengths.index(max(lengths))
        first, last = box[axis].start, box[axis].stop
        middle = (first + last) // 2
        for half in (slice(first, middle), slice(middle, last)):
            parts = [half if n == axis else part for n, part in enumerate(box)]
            yield from self._parts((parts[0], parts[1], parts[2]), largest)

    @property
    def _is_separable(self) -> bool:
        """True if each axis of the grid is parallel to one axis of the other grid, up to rounding."""
        drift = np.abs(self.matrix) * self.shape
        drift[np.argmax(np.abs(self.matrix), axis=0), range(3)] = 0
        axes = set(np.argmax(np.abs(self.matrix), axis=0).tolist())
        return len(axes) == 3 and bool(drift.sum() < 0.5 * 10.0**-DECIMALS)

    def _gather_axes(self, out: Labels, labels: Labels, first: npt.NDArray[np.int64], start: Start) -> None:
        axes = np.argmax(np.abs(self.matrix), axis=0)
        inside: list[npt.NDArray[np.int64]] = []
        indices: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * 3
        for axis, other_axis in enumerate(axes.tolist()):
            index = np.arange(out.shape[axis]) + start[axis]
            nearest = _nearest(self.matrix[other_axis, axis] * index + self.offset[other_axis])
            valid = np.flatnonzero((nearest >= 0) & (nearest < self.other[other_axis]))
            inside.append(valid)
            indices[other_axis] = nearest[valid] - first[other_axis]
        out[np.ix_(*inside)] = labels[np.ix_(*indices)].transpose(axes)

    def _gather_slices(self, out: Labels, labels: Labels, first: npt.NDArray[np.int64], start: Start) -> None:
        y, x = np.arange(out.shape[1])[:, None] + start[1], np.arange(out.shape[2]) + start[2]
        for z, plane in enumerate(out, start[0]):
            nearest = [
                _nearest(row[0] * z + row[1] * y + row[2] * x + shift)
                for row, shift in zip(self.matrix, self.offset, strict=True)
            ]
            inside = np.logical_and.reduce([(i >= 0) & (i < n) for i, n in zip(nearest, self.other, strict=True)])
            plane[inside] = labels[tuple(i[inside] - low for i, low in zip(nearest, first, strict=True))]

    def _box_of(self, box: Box) -> Box | None:
        """Return the box of the other grid that holds the nearest voxels of a box of the grid; None if it is empty."""
        corners = np.array(list(itertools.product(*((part.start, part.stop - 1) for part in box))))
        indices = corners @ self.matrix.T + self.offset
        low = np.maximum(np.floor(indices.min(axis=0)).astype(np.int64), 0)
        high = np.minimum(np.ceil(indices.max(axis=0)).astype(np.int64) + 1, self.other)
        if (low >= high).any():
            return None
        z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return z, y, x


def _nearest(index: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.floor(np.round(index, DECIMALS) + 0.5).astype(np.int64)


def _steps(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return a 3 x 3 matrix whose columns are the steps along z, y, x of a grid, in mm in LPS."""
    return (np.reshape(geometry.direction, (3, 3)) * geometry.spacing)[:, ::-1]
