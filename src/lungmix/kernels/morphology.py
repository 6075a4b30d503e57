"""Dilation, erosion, opening and closing of binary volumes by an `Element`, exact.

A dilation asks for each voxel whether a set voxel lies within the element. The cost of reaching the nearest set
voxel is found along x by two running scans, then lowered along y and along z by short windows of vectorised
minima. An erosion is the dilation of the complement.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from lungmix.kernels.element import Element

Mask = npt.NDArray[np.uint8]

# Above every sum of costs of an element, and still without overflow when three costs are added to it.
_FAR_WHOLE = np.uint16(40_000)


def dilate(mask: Mask, element: Element, planes: tuple[int, int] | None = None) -> Mask:
    """Dilation of a mask; nothing outside the volume is set.

    Parameters
    ----------
    mask : ndarray of uint8, shape (z, y, x)
        Voxels other than 0 are set.
    element : Element
        The structuring element.
    planes : tuple of int, optional
        First and one past the last plane to answer for; all of them by default. The others are a halo.

    Returns
    -------
    ndarray of uint8, shape (planes, y, x)
        0 or 1.
    """
    first, stop = planes or (0, len(mask))
    out = np.zeros((stop - first, *mask.shape[1:]), np.uint8)
    box = bounding_box(mask)
    if box is None:
        return out
    z, y, x = (
        (max(0, low - r), min(n, high + r)) for (low, high), r, n in zip(box, element.extent, mask.shape, strict=True)
    )
    begin, end = max(first, z[0]), min(stop, z[1])
    if begin < end:
        window = np.ascontiguousarray(mask[slice(*z), slice(*y), slice(*x)])
        found = _within_reach(window, element, begin - z[0], end - z[0])
        out[begin - first : end - first, slice(*y), slice(*x)] = found
    return out


def erode(mask: Mask, element: Element, planes: tuple[int, int] | None = None) -> Mask:
    """Erosion of a mask; everything outside the volume counts as background.

    Parameters and result are those of `dilate`.
    """
    first, stop = planes or (0, len(mask))
    out = np.zeros((stop - first, *mask.shape[1:]), np.uint8)
    box = bounding_box(mask)
    if box is None:
        return out
    z, y, x = box
    begin, end = max(first, z[0]), min(stop, z[1])
    if begin < end:
        # What surrounds the bounding box is background whether it lies inside the volume or not.
        background = np.pad(
            mask[slice(*z), slice(*y), slice(*x)] == 0, [(r, r) for r in element.extent], constant_values=True
        ).view(np.uint8)
        ez, ey, ex = element.extent
        found = _within_reach(background, element, begin - z[0] + ez, end - z[0] + ez)
        core = found[:, ey : ey + y[1] - y[0], ex : ex + x[1] - x[0]]
        out[begin - first : end - first, slice(*y), slice(*x)] = core ^ 1
    return out


def opening(mask: Mask, element: Element) -> Mask:
    """Erosion, then dilation; see `dilate` for parameters and result."""
    return mask if element.is_point else dilate(erode(mask, element), element)


def bounding_box(mask: npt.NDArray[Any]) -> tuple[tuple[int, int], ...] | None:
    """First and one past the last index of set voxels on each axis; None if there are none."""
    planes = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
    if not planes.size:
        return None
    flat = np.any(mask[planes[0] : planes[-1] + 1], axis=0)
    box = [(int(planes[0]), int(planes[-1]) + 1)]
    for line in (np.any(flat, axis=1), np.any(flat, axis=0)):
        hits = np.flatnonzero(line)
        box.append((int(hits[0]), int(hits[-1]) + 1))
    return tuple(box)


def _within_reach(mask: Mask, element: Element, first: int, stop: int) -> Mask:
    cost_z, cost_y, cost_x = element.costs
    dtype = cost_z.dtype
    far = _FAR_WHOLE if dtype == np.uint16 else dtype.type(np.inf)
    limit = dtype.type(element.limit)
    flat = np.empty(mask.shape, dtype)
    live = np.zeros(mask.shape[:2], np.bool_)
    _reach_in_planes(mask, cost_y, cost_x, far, flat, live)
    out = np.zeros((stop - first, *mask.shape[1:]), np.uint8)
    _reach_across_planes(flat, live, cost_z, far, limit, first, out)
    return out


@numba.njit(nogil=True, cache=True)
def _reach_in_planes(mask, cost_y, cost_x, far, flat, live):  # type: ignore[no-untyped-def]
    nz, ny, nx = mask.shape
    reach_y, reach_x = len(cost_y) - 1, len(cost_x) - 1
    rows = np.empty((ny, nx), flat.dtype)
    hit = np.empty(ny, np.bool_)
    for z in range(nz):
        for y in range(ny):
            hit[y] = _reach_in_row(mask[z, y], cost_x, reach_x, far, rows[y])
        for y in range(ny):
            line = flat[z, y]
            line[:] = far
            touched = False
            for other in range(max(0, y - reach_y), min(ny, y + reach_y + 1)):
                if hit[other]:
                    touched = True
                    _lower(line, rows[other], cost_y[abs(other - y)])
            live[z, y] = touched


@numba.njit(nogil=True, cache=True)
def _reach_in_row(row, cost_x, reach_x, far, out):  # type: ignore[no-untyped-def]
    nx = len(row)
    hit = False
    gap = reach_x + 1
    for x in range(nx):
        if row[x]:
            gap = 0
            hit = True
        elif gap <= reach_x:
            gap += 1
        out[x] = cost_x[gap] if gap <= reach_x else far
    if hit:
        gap = reach_x + 1
        for x in range(nx - 1, -1, -1):
            if row[x]:
                gap = 0
            elif gap <= reach_x:
                gap += 1
            if gap <= reach_x and cost_x[gap] < out[x]:
                out[x] = cost_x[gap]
    return hit


@numba.njit(nogil=True, cache=True)
def _lower(line, other, cost):  # type: ignore[no-untyped-def]
    for x in range(len(line)):
        reached = line.dtype.type(other[x] + cost)
        line[x] = min(line[x], reached)


@numba.njit(nogil=True, cache=True)
def _reach_across_planes(flat, live, cost_z, far, limit, first, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = flat.shape
    reach_z = len(cost_z) - 1
    line = np.empty(nx, flat.dtype)
    for y in range(ny):
        for plane in range(len(out)):
            z = first + plane
            touched = False
            for other in range(max(0, z - reach_z), min(nz, z + reach_z + 1)):
                if live[other, y]:
                    if not touched:
                        line[:] = far
                        touched = True
                    _lower(line, flat[other, y], cost_z[abs(other - z)])
            if touched:
                target = out[plane, y]
                for x in range(nx):
                    target[x] = line[x] <= limit
