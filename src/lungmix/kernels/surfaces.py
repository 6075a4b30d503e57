"""Surfaces of masks and exact distances between them, computed slab by slab.

The surface of a mask consists of its voxels with a face neighbour outside the mask; everything beyond the volume is
outside. The distance of a voxel from another surface is the distance between its centre and the nearest centre of a
voxel of that surface. Squared distances are sums of squared steps in a fixed order, so that their minimum does not
depend on how a volume is cut into slabs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]
Points = npt.NDArray[np.int32]


def surface_of(window: Mask) -> Mask:
    """Return the surface of the inner slices of a window.

    Parameters
    ----------
    window : ndarray of bool, shape (slices + 2, y, x)
        Slices of a mask, with the slice before and the slice after them, which are all False beyond the volume. Rows
        and columns beyond the array count as outside the mask.

    Returns
    -------
    ndarray of bool, shape (slices, y, x)
        Voxels of the mask with a face neighbour outside the mask.
    """
    mask = window[1:-1]
    inner = mask & window[:-2]
    inner &= window[2:]
    for axis in (1, 2):
        remaining, neighbours = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        remaining[1:] &= neighbours[:-1]
        remaining[:-1] &= neighbours[1:]
        remaining[:1] = remaining[-1:] = False
    return mask & ~inner


def points_of(surface: Mask, start: int = 0) -> Points:
    """Return the indices z, y, x of the voxels of a surface, in ascending order; `start` is the number of slice 0."""
    points = np.argwhere(surface).astype(np.int32)
    points[:, 0] += start
    return points


def lower_distances(points: Points, squares: Distances, surface: Mask, start: int, spacing: Sequence[float]) -> None:
    """Lower the squared distances of points, in place, where slices of a surface are nearer than the surface so far.

    Parameters
    ----------
    points : ndarray of int32, shape (n, 3)
        Indices z, y, x.
    squares : ndarray of float64, shape (n,)
        Squared distances so far in mm²; infinite before the first call.
    surface : ndarray of bool, shape (slices, y, x)
        Consecutive slices of the surface.
    start : int
        Number of the first of these slices.
    spacing : sequence of float
        Distance of voxel centres along z, y, x, mm.
    """
    step_z, step_y, step_x = (float(step) for step in spacing)
    plane = np.empty(surface.shape[1:], np.float64)
    for z in _nearest_first(points, start, start + len(surface)):
        if surface[z - start].any() and is_needed(points, squares, (z, z + 1), step_z):
            _plane_squares(surface[z - start], step_y, step_x, plane)
            _lower(points, squares, plane, z, step_z)


def is_needed(points: Points, squares: Distances, slices: tuple[int, int], step: float) -> bool:
    """Return True if surface voxels in some slices could be nearer to any point than its distance so far.

    Parameters
    ----------
    points, squares : ndarray
        See `lower_distances`.
    slices : tuple of int
        First slice, and the slice after the last one.
    step : float
        Distance between neighbouring slices, mm.
    """
    gaps = np.maximum(np.maximum(slices[0] - points[:, 0], points[:, 0] - (slices[1] - 1)), 0) * step
    return bool((gaps * gaps < squares).any())


def nearest_squares(
    points: Points,
    spacing: Sequence[float],
    slabs: Sequence[tuple[int, int]],
    read_surface: Callable[[int, int], Mask],
) -> Distances:
    """Return the squared distance of each point from a surface that is read slab by slab, the nearest slab first.

    A slab is read only if it could be nearer to some point than the slabs that were read before.

    Parameters
    ----------
    points : ndarray of int32, shape (n, 3)
        Indices z, y, x, in ascending order of z.
    spacing : sequence of float
        Distance of voxel centres along z, y, x, mm.
    slabs : sequence of tuple of int
        For each slab with voxels of the surface: its first slice, and the slice after its last one.
    read_surface : callable
        Function of the first slice of a slab, and the slice after its last one, that returns the surface ``[z, y, x]``.

    Returns
    -------
    ndarray of float64, shape (n,)
        Squared distances in mm²; infinite if there is no surface.
    """
    squares = np.full(len(points), np.inf)
    if not len(points):
        return squares
    low, high = int(points[0, 0]), int(points[-1, 0])

    def gap(slab: tuple[int, int]) -> int:
        return max(slab[0] - high, low - (slab[1] - 1), 0)

    for start, stop in sorted(slabs, key=gap):
        if is_needed(points, squares, (start, stop), spacing[0]):
            lower_distances(points, squares, read_surface(start, stop), start, spacing)
    return squares


def _nearest_first(points: Points, start: int, stop: int) -> list[int]:
    """Return slices `start` to ``stop - 1`` in the order of their distance from the slices that contain points."""
    if not len(points):
        return []
    low, high = int(points[0, 0]), int(points[-1, 0])
    return sorted(range(start, stop), key=lambda z: (max(z - high, low - z, 0), z))


@kernel()
def _plane_squares(surface, step_y, step_x, squares):  # type: ignore[no-untyped-def]
    """Write the squared distance of each pixel of a plane from the nearest set pixel, of which there must be one."""
    ny, nx = surface.shape
    for y in range(ny):
        steps = -1
        for x in range(nx):
            steps = 0 if surface[y, x] else (steps + 1 if steps >= 0 else -1)
            squares[y, x] = np.inf if steps < 0 else (steps * step_x) ** 2
        steps = -1
        for x in range(nx - 1, -1, -1):
            steps = 0 if surface[y, x] else (steps + 1 if steps >= 0 else -1)
            if steps >= 0:
                squares[y, x] = min(squares[y, x], (steps * step_x) ** 2)
    # Compute the lower envelope of one parabola per row, by the algorithm of Felzenszwalb and Huttenlocher.
    rows = np.empty(ny, np.int64)
    borders = np.empty(ny, np.float64)
    column = np.empty(ny, np.float64)
    for x in range(nx):
        last = -1
        for y in range(ny):
            column[y] = squares[y, x]
            if column[y] == np.inf:
                continue
            border = -np.inf
            while last >= 0:
                other = rows[last]
                rise = (column[y] - column[other]) / (step_y * step_y)
                border = (rise / (y - other) + y + other) / 2
                if border > borders[last]:
                    break
                last -= 1
                border = -np.inf
            last += 1
            rows[last] = y
            borders[last] = border
        k = 0
        for y in range(ny):
            while k < last and borders[k + 1] < y:
                k += 1
            # Because of rounding, the parabola before or after may be the lowest.
            best = np.inf
            for n in range(max(k - 1, 0), min(k + 1, last) + 1):
                best = min(best, column[rows[n]] + ((y - rows[n]) * step_y) ** 2)
            squares[y, x] = best


@kernel()
def _lower(points, squares, plane, z, step_z):  # type: ignore[no-untyped-def]
    for i in range(len(points)):
        square = ((points[i, 0] - z) * step_z) ** 2
        if square < squares[i]:
            square = plane[points[i, 1], points[i, 2]] + square
            squares[i] = min(squares[i], square)
