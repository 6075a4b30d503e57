"""Nearest neighbours of the voxels of one grid in another, box by box: labels are resampled, never averaged."""

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
"""Decimals to which indices are rounded before the nearest voxel is chosen, so that rounding of geometries in files
never decides where a voxel lies halfway between two others."""


@dataclass(frozen=True, eq=False)
class GridMap:
    """Affine map from the indices of a grid to those of another one, in array order.

    Attributes
    ----------
    matrix : ndarray of float64, shape (3, 3)
        Column ``j`` is the step in the other grid, in voxels, of one step along axis ``j``.
    offset : ndarray of float64, shape (3,)
        Index in the other grid of the first voxel.
    shape, other : tuple of int
        Shapes of both grids, ``(z, y, x)``.
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
        """False where no voxel of the grid can lie in the other one."""
        return self._box_of(tuple(slice(0, n) for n in self.shape)) is not None  # type: ignore[arg-type]

    def resample(self, start: int, stop: int, read: Callable[[Box], Labels], largest: int | None = None) -> Labels:
        """Return the labels of slices ``start`` to ``stop`` of the grid; voxels outside the other one are 0.

        A voxel gets the label of the voxel of the other grid whose index is nearest; halfway, the higher index counts.

        Parameters
        ----------
        start, stop : int
            Slices of the grid.
        read : callable
            Returns a box of labels of the other grid.
        largest : int, optional
            Most voxels of a box that is read at once; by default any number.
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
        """Yield parts of a box that need at most `largest` voxels of the other grid each, or are single voxels."""
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
        """True where each axis of the grid runs along one axis of the other, up to rounding."""
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
        """Return the box of the other grid that the voxels of a box can need; None where it is empty."""
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
    """Return the displacements in space, mm, of steps along z, y, x: the columns of a 3 x 3 matrix."""
    return (np.reshape(geometry.direction, (3, 3)) * geometry.spacing)[:, ::-1]
