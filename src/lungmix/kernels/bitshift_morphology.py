"""Dilation and erosion of packed masks by small structuring elements, by shifts of words.

A packed mask holds 64 voxels of a row in one word, so that one shift moves 64 voxels. An element is a set of rows along
x, each with a half width. An erosion first erodes the mask along x by each of these half widths. Then it takes, for
each row of the mask, the logical AND of the neighbouring rows that the element covers, each eroded by its half width. A
dilation does the same with OR.
"""

from __future__ import annotations

import numpy as np

from lungmix.kernels.jit import kernel


@kernel()
def _shifted(row, k, w):  # type: ignore[no-untyped-def]
    """Return word `w` of a row shifted by `k` voxels, 0 < abs(k) < 64."""
    if k > 0:
        low = row[w - 1] >> np.uint64(64 - k) if w > 0 else np.uint64(0)
        return (row[w] << np.uint64(k)) | low
    high = row[w + 1] << np.uint64(64 + k) if w + 1 < len(row) else np.uint64(0)
    return (row[w] >> np.uint64(-k)) | high


@kernel()
def erode_by_shifts(bits, extents, first, out):  # type: ignore[no-untyped-def]
    """Write the erosion of the planes from `first` on to `out`.

    ``extents[i, j]`` is the half width along x of row (i, j) of the element, whose axes are z and y; -1 if the element
    has no voxel in this row.
    """
    nz, ny, words = bits.shape
    ez, ey = len(extents) // 2, len(extents[0]) // 2
    along_x = _along_x(bits, extents.max(), True)
    for p in range(len(out)):
        z = first + p
        for y in range(ny):
            target = out[p, y]
            if not bits[z, y].any() or z < ez or z + ez >= nz or y < ey or y + ey >= ny:
                continue
            target[:] = bits[z, y]
            for i in range(len(extents)):
                for j in range(len(extents[0])):
                    if extents[i, j] >= 0:
                        other = along_x[extents[i, j], z + i - ez, y + j - ey]
                        for w in range(words):
                            target[w] &= other[w]


@kernel()
def dilate_by_shifts(bits, extents, first, out):  # type: ignore[no-untyped-def]
    """Write the dilation of the planes from `first` on to `out`; for `extents` see `erode_by_shifts`."""
    nz, ny, words = bits.shape
    ez, ey = len(extents) // 2, len(extents[0]) // 2
    along_x = _along_x(bits, extents.max(), False)
    for p in range(len(out)):
        z = first + p
        for y in range(ny):
            target = out[p, y]
            for i in range(max(0, ez - z), min(len(extents), nz - z + ez)):
                for j in range(max(0, ey - y), min(len(extents[0]), ny - y + ey)):
                    if extents[i, j] >= 0:
                        other = along_x[extents[i, j], z + i - ez, y + j - ey]
                        for w in range(words):
                            target[w] |= other[w]


@kernel()
def _along_x(bits, extent, eroded):  # type: ignore[no-untyped-def]
    """Return copies of a mask, of which copy ``k`` is eroded, or dilated, along x by ``k`` voxels, 0 to `extent`."""
    nz, ny, words = bits.shape
    out = np.empty((extent + 1, nz, ny, words), np.uint64)
    out[0] = bits
    for k in range(1, extent + 1):
        for z in range(nz):
            for y in range(ny):
                row, target = bits[z, y], out[k, z, y]
                for w in range(words):
                    left, right = _shifted(row, k, w), _shifted(row, -k, w)
                    if eroded:
                        target[w] = out[k - 1, z, y, w] & left & right
                    else:
                        target[w] = out[k - 1, z, y, w] | left | right
    return out
