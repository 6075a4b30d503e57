"""Dilation by structuring elements of any size, by way of distances.

An element has a cost for each offset along z, y and x, see `lungmix.kernels.structuring_elements`. A voxel belongs to
the dilation if the costs of its offset from some set voxel add up to at most the limit of the element.

In each plane, the lowest cost to a set voxel is computed first along x: on either side of a run of set voxels it rises
like a ramp. Then rows at increasing distance along y are considered, for 64 voxels at a time, until a further row
cannot lower the cost. What the cost leaves of the limit determines how many planes up and down a voxel reaches, a small
integer. Two scans along z, one upwards and one downwards, spread this integer. Blocks that no set voxel reaches are
skipped.
"""

from __future__ import annotations

import numpy as np

from lungmix.kernels.jit import kernel
from lungmix.kernels.packed_masks import WORD, Bits, lowest_bit
from lungmix.kernels.structuring_elements import Element

# Process rows in bands, so that memory does not grow with the image and mostly stays in the cache.
BAND_BYTES = 16 << 20

_ROWS_PER_CHECK = 4


def dilate_by_distance(window: Bits, inverted: bool, element: Element, planes: tuple[int, int], skip: int = 0) -> Bits:
    """Dilate a packed mask, or its complement if `inverted`.

    The result covers planes ``planes[0]`` to ``planes[1] - 1`` of the window, without the first and the last `skip`
    rows. Planes outside the window count as unset, in the complement as well.
    """
    extent_z, extent_y, _ = element.extent
    ny, wide = window.shape[1], window.shape[2] * WORD
    depth = planes[1] - planes[0]
    out = np.empty((depth, ny - 2 * skip, window.shape[2]), np.uint64)
    limit = element.costs[0].dtype.type(element.limit)
    rows = min(ny - 2 * skip, max(BAND_BYTES // ((depth + extent_z) * wide), extent_y, 16))
    volume = np.empty((depth + extent_z) * rows * wide, np.uint8)
    for begin in range(skip, ny - skip, rows):
        end = min(begin + rows, ny - skip)
        low, high = max(0, begin - extent_y), min(ny, end + extent_y)
        # Whole arrays: views of some of their rows would have other types, for which numba would compile again.
        part = volume[: (depth + extent_z) * (end - begin) * wide].reshape(depth + extent_z, end - begin, wide)
        spans = planes[0], low, high, begin
        _spread(window, inverted, spans, *element.costs, limit, element.planes_left(), part, out, begin - skip)
    return out


@kernel()
def _spread(window, inverted, spans, cost_z, cost_y, cost_x, limit, planes_left, volume, out, first_out):  # type: ignore[no-untyped-def]
    # volume[p, y, x] becomes the number of planes, plane p and those above it, that set voxels in planes up to p reach
    # at y, x. The second scan does the same downwards. Row y of the volume is row begin + y of the window and row
    # first_out + y of the result; voxels of rows low to high - 1 of the window reach it.
    first, low, high, begin = spans
    nz, _, words = window.shape
    ny, skip = high - low, begin - low
    wide = words * WORD
    extent_z = len(cost_z) - 1
    rows = volume.shape[1]
    ramps = np.empty((ny, wide), cost_x.dtype)
    lowest = np.empty((ny, words), cost_x.dtype)
    gaps = np.empty((ny, words), np.int64)
    best = np.empty(WORD, cost_x.dtype)
    far = cost_x.dtype.type(limit + 1)
    before = np.zeros((rows, wide), np.uint8)
    plane = np.empty((rows, wide), np.uint8)
    for z in range(min(first, max(0, first - extent_z)), first + len(volume)):
        target = volume[z - first] if z >= first else plane
        if 0 <= z < nz:
            for y in range(ny):
                _ramp(window[z, low + y], inverted, cost_x, far, ramps[y], lowest[y])
            _gaps(lowest, far, gaps)
            for y in range(rows):
                _spread_along_y(ramps, lowest, gaps, skip + y, cost_z, cost_y, limit, far, planes_left, best, target[y])
        else:
            target[:] = 0
        for y in range(rows):
            _fade(before[y], target[y])
        before[:] = target
    before[:] = 0
    for p in range(len(volume) - 1, -1, -1):
        target = volume[p]
        for y in range(rows):
            _fade(before[y], target[y])
            if p < len(out):
                _pack_row(target[y], out[p, first_out + y])
        before = target


@kernel()
def _ramp(row, inverted, cost_x, far, ramp, lowest):  # type: ignore[no-untyped-def]
    """Write the cost along x from each voxel of a row to the nearest set voxel, and the lowest cost in each word."""
    flip = np.uint64(0xFFFFFFFFFFFFFFFF) if inverted else np.uint64(0)
    wide = len(ramp)
    extent = len(cost_x) - 1
    ramp[:] = far
    end = -1  # 0 inside a run
    carry = np.uint64(0)
    for w in range(len(row)):
        word = row[w] ^ flip
        turns = word ^ ((word << np.uint64(1)) | carry)
        carry = word >> np.uint64(63)
        while turns:
            x = w * WORD + lowest_bit(turns)
            turns &= turns - np.uint64(1)
            if end < 0:
                # Descend to the start of this run, from where the ramp of the previous run is no longer cheaper.
                begin = x
                for k in range(1, min(extent, x) + 1):
                    if cost_x[k] >= ramp[x - k]:
                        break
                    ramp[x - k] = cost_x[k]
                end = 0
            else:
                ramp[begin:x] = 0
                for k in range(0, min(extent, wide - x)):
                    ramp[x + k] = cost_x[k + 1]
                end = -1
    if end == 0:
        ramp[begin:] = 0
    for w in range(len(row)):
        smallest = far
        for x in range(w * WORD, w * WORD + WORD):
            smallest = min(smallest, ramp[x])
        lowest[w] = smallest


@kernel()
def _gaps(lowest, far, gaps):  # type: ignore[no-untyped-def]
    """Write, for each row and word, the distance in rows to the nearest row with a finite cost."""
    ny, words = lowest.shape
    for w in range(words):
        gap = ny
        for y in range(ny):
            gap = 0 if lowest[y, w] < far else gap + 1
            gaps[y, w] = gap
        gap = ny
        for y in range(ny - 1, -1, -1):
            gap = 0 if lowest[y, w] < far else gap + 1
            gaps[y, w] = min(gaps[y, w], gap)


@kernel()
def _spread_along_y(ramps, lowest, gaps, y, cost_z, cost_y, limit, far, planes_left, best, out):  # type: ignore[no-untyped-def]
    ny, words = lowest.shape
    extent_y = len(cost_y) - 1
    for w in range(words):
        first = w * WORD
        target = out[first : first + WORD]
        if gaps[y, w] > extent_y:
            target[:] = 0
            continue
        best[:] = far
        worst = far
        lowered = 0
        for d in range(gaps[y, w], min(extent_y, max(y, ny - 1 - y)) + 1):
            cost = cost_y[d]
            if cost >= worst:
                break
            up = y >= d and lowest[y - d, w] + cost < worst
            down = y + d < ny and lowest[y + d, w] + cost < worst
            if up and down:
                _lower_by_two(ramps[y - d, first : first + WORD], ramps[y + d, first : first + WORD], cost, best)
            elif up:
                _lower(ramps[y - d, first : first + WORD], cost, best)
            elif down:
                _lower(ramps[y + d, first : first + WORD], cost, best)
            else:
                continue
            # Updating the highest cost every time would take longer than it saves.
            if lowered % _ROWS_PER_CHECK == 0:
                worst = _highest(best)
            lowered += 1
        if worst == 0:
            target[:] = len(cost_z)
        elif len(planes_left):
            for x in range(WORD):
                target[x] = planes_left[np.int64(best[x])]
        else:
            for x in range(WORD):
                left = 0
                while left < len(cost_z) and cost_z[left] + best[x] <= limit:
                    left += 1
                target[x] = left


@kernel()
def _highest(best):  # type: ignore[no-untyped-def]
    worst = best[0]
    for x in range(1, WORD):
        worst = max(worst, best[x])
    return worst


@kernel()
def _lower(ramp, cost, best):  # type: ignore[no-untyped-def]
    for x in range(WORD):
        candidate = best.dtype.type(ramp[x] + cost)
        best[x] = min(best[x], candidate)


@kernel()
def _lower_by_two(ramp_a, ramp_b, cost, best):  # type: ignore[no-untyped-def]
    for x in range(WORD):
        candidate = best.dtype.type(min(ramp_a[x], ramp_b[x]) + cost)
        best[x] = min(best[x], candidate)


@kernel()
def _fade(before, line):  # type: ignore[no-untyped-def]
    for x in range(len(line)):
        left = np.uint8(max(before[x], np.uint8(1)) - np.uint8(1))
        line[x] = max(line[x], left)


@kernel()
def _pack_row(line, words):  # type: ignore[no-untyped-def]
    eights = line.view(np.uint64)
    low = np.uint64(0x7F7F7F7F7F7F7F7F)
    ones = np.uint64(0x0101010101010101)
    for w in range(len(words)):
        word = np.uint64(0)
        for k in range(8):
            eight = eights[8 * w + k]
            # 1 in each byte that is not 0, gathered into the top byte.
            present = ((((eight & low) + low) | eight) >> np.uint64(7)) & ones
            word |= ((present * np.uint64(0x0102040810204080)) >> np.uint64(56)) << np.uint64(8 * k)
        words[w] = word
