"""Label maps: look-up by HU, and the median of ordinal labels."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError

Labels = npt.NDArray[np.uint8]


def look_up(hu: npt.NDArray[np.int16], mask: Labels, table: Labels) -> Labels:
    """Label of each voxel of a mask from its HU; 0 elsewhere.

    Parameters
    ----------
    hu : ndarray of int16
        Any shape.
    mask : ndarray of uint8, same shape
        Voxels other than 0 are labelled.
    table : ndarray of uint8, shape (65536,)
        Entry ``i`` is the label of ``i - 32768`` HU.
    """
    out = np.zeros(hu.shape, np.uint8)
    _look_up(np.ascontiguousarray(hu).reshape(-1), np.ascontiguousarray(mask).reshape(-1), table, out.reshape(-1))
    return out


def median_labels(labels: Labels, size: int = 4) -> Labels:
    """Median filter of ordinal labels, equal to ``scipy.ndimage.median_filter(labels, size)``.

    The window of ``size`` voxels reaches from ``-size // 2`` to ``(size - 1) // 2`` on each axis, the border is
    reflected and of an even number of voxels the upper median is taken. The median is at least ``k`` where more
    than half of the window is, so it is one box count for each distinct label.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        Few distinct values: the time grows with their number.
    size : int
        Edge of the window in voxels, 1 to 15.
    """
    if not 1 <= size <= 15:
        raise UsageError(f"a median window of {size} voxels is not possible: give a size from 1 to 15")
    before, after = size // 2, (size - 1) // 2
    out = np.zeros(labels.shape, np.uint8)
    if size == 1 or not labels.any():
        return labels.copy()
    padded = np.pad(labels, [(before, after)] * 3, mode="symmetric")
    levels = np.flatnonzero(np.bincount(padded.reshape(-1)))
    _median(padded, levels.astype(np.uint8), size, out)
    return out


@numba.njit(nogil=True, cache=True)
def _look_up(hu, mask, table, out):  # type: ignore[no-untyped-def]
    for i in range(len(hu)):
        if mask[i]:
            out[i] = table[np.int64(hu[i]) + 32768]


@numba.njit(nogil=True, cache=True)
def _median(padded, levels, size, out):  # type: ignore[no-untyped-def]
    nz, ny, _ = out.shape
    wide = padded.shape[2]
    # Of n = size³ sorted values the upper median has rank n // 2: it is >= k where fewer than n // 2 + 1 are below.
    need = size * size * size - size * size * size // 2
    column = np.zeros((padded.shape[1], wide), np.uint16)
    rows = np.zeros(wide, np.uint16)
    for level in levels:
        if level == 0:
            continue
        column[:] = 0
        for z in range(size - 1):
            _add_plane(column, padded[z], level)
        for z in range(nz):
            _add_plane(column, padded[z + size - 1], level)
            rows[:] = 0
            for y in range(size - 1):
                _add_row(rows, column[y])
            for y in range(ny):
                _add_row(rows, column[y + size - 1])
                _settle(rows, size, need, level, out[z, y])
                _drop_row(rows, column[y])
            _drop_plane(column, padded[z], level)


@numba.njit(nogil=True, cache=True)
def _add_plane(column, plane, level):  # type: ignore[no-untyped-def]
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            column[y, x] += np.uint16(plane[y, x] >= level)


@numba.njit(nogil=True, cache=True)
def _drop_plane(column, plane, level):  # type: ignore[no-untyped-def]
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            column[y, x] -= np.uint16(plane[y, x] >= level)


@numba.njit(nogil=True, cache=True)
def _add_row(rows, line):  # type: ignore[no-untyped-def]
    for x in range(len(line)):
        rows[x] += line[x]


@numba.njit(nogil=True, cache=True)
def _drop_row(rows, line):  # type: ignore[no-untyped-def]
    for x in range(len(line)):
        rows[x] -= line[x]


@numba.njit(nogil=True, cache=True)
def _settle(rows, size, need, level, out):  # type: ignore[no-untyped-def]
    for x in range(len(out)):
        total = np.uint16(0)
        for k in range(size):
            total += rows[x + k]
        if total >= need:
            out[x] = level
