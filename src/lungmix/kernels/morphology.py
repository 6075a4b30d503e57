"""Dilation, erosion, opening and closing of packed masks by an `Element`, exact.

Small elements shift words: an erosion is the conjunction of the rows that the element covers, each eroded along x
by as much as the element reaches there.

Large elements measure distances. In each plane the cost of reaching the nearest set voxel is found along x by ramps
beside the runs, then along y in blocks of 64 voxels by the rows around, nearest first, until none can be cheaper.
What the cost leaves of the element's limit is how many planes up and down the voxel is reached from this plane, a
small integer, and two running scans along z spread it. Blocks far from any surface are settled at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from lungmix.kernels.bits import WORD, Bits, bounding_box, lowest_bit, pack, tail_mask, words_for
from lungmix.kernels.element import Element

Span = tuple[int, int]
Planes = Span

# Elements up to this extent along x are cheaper by shifts than by distances.
_LARGEST_SHIFT = 12

# Rows are worked on in bands, so that memory does not grow with the image and mostly stays in the cache.
BAND_BYTES = 16 << 20

_ROWS_A_LOOK = 4


def dilate(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Dilation of a mask; nothing outside the volume is set.

    Parameters
    ----------
    bits : ndarray of uint64, shape (z, y, words)
        Packed mask.
    nx : int
        Voxels in a row.
    element : Element
        The structuring element.
    planes : tuple of int, optional
        First and one past the last plane to answer for; all of them by default. The others are a halo.

    Returns
    -------
    ndarray of uint64, shape (planes, y, words)
        Packed mask.
    """
    first, stop = planes or (0, len(bits))
    out = np.zeros((stop - first, *bits.shape[1:]), np.uint64)
    if element.extent[2] <= _LARGEST_SHIFT:
        _dilate_by_shifts(bits, element.rows(), first, out)
        out[..., -1] &= tail_mask(nx)
        return out
    frame = _frame_of(bits, element)
    if frame is None:
        return out
    begin, end = max(first, frame.z[0] - element.extent[0]), min(stop, frame.z[1] + element.extent[0])
    if begin < end:
        found = _reached(frame.cut(bits), False, element, (begin - frame.z[0], end - frame.z[0]))
        y, words = _overlap(frame.y, bits.shape[1]), _overlap(frame.words, bits.shape[2])
        out[begin - first : end - first, slice(*y), slice(*words)] = found[:, _within(y, frame.y), _within(words, frame.words)]
        out[..., -1] &= tail_mask(nx)
    return out


def erode(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Erosion of a mask; everything outside the volume counts as background.

    Parameters and result are those of `dilate`.
    """
    first, stop = planes or (0, len(bits))
    out = np.zeros((stop - first, *bits.shape[1:]), np.uint64)
    if element.extent[2] <= _LARGEST_SHIFT:
        _erode_by_shifts(bits, element.rows(), first, out)
        return out
    frame = _frame_of(bits, element)
    if frame is None:
        return out
    # Planes of background above and below are seen as the others are.
    reach = element.extent[0]
    begin, end = max(first, frame.z[0]), min(stop, frame.z[1])
    if begin < end:
        window = np.pad(frame.cut(bits), ((reach, reach), (0, 0), (0, 0)))
        frame.put(_eroded(window, element, (begin - frame.z[0] + reach, end - frame.z[0] + reach)), begin - first, out)
    return out


def opening(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Erosion, then dilation; see `dilate` for parameters and result.

    A halo must be twice the extent of the element along z, or end with the volume.
    """
    if element.is_point:
        return bits[slice(*planes)] if planes else bits
    return dilate(erode(bits, nx, element), nx, element, planes)


def closing(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Dilation, then erosion, as if the volume went on with background for ever.

    Parameters and result are those of `dilate`. A halo must be twice the extent of the element along z, or end with
    the volume. Nothing outside the bounding box of the mask is ever set, so nothing else is looked at.
    """
    first, stop = planes or (0, len(bits))
    if element.is_point:
        return bits[first:stop]
    out = np.zeros((stop - first, *bits.shape[1:]), np.uint64)
    frame = _frame_of(bits, element)
    if frame is None:
        return out
    reach = element.extent[0]
    begin, end = max(first, frame.z[0]), min(stop, frame.z[1])
    if begin < end:
        spread = _reached(frame.cut(bits), False, element, (begin - reach - frame.z[0], end + reach - frame.z[0]))
        frame.put(_eroded(spread, element, (reach, reach + end - begin)), begin - first, out)
    return out


class _Frame(NamedTuple):
    """The bounding box of a mask, grown along y and x by what an element reaches; it may leave the volume."""

    z: Span
    y: Span
    words: Span
    inner_y: Span
    inner_words: Span
    columns: Bits
    """The bits of a row of inner words that lie in the bounding box."""

    def cut(self, bits: Bits) -> Bits:
        window = np.zeros((self.z[1] - self.z[0], self.y[1] - self.y[0], self.words[1] - self.words[0]), np.uint64)
        inside = bits[slice(*self.z), slice(*self.inner_y), slice(*self.inner_words)]
        window[:, _within(self.inner_y, self.y), _within(self.inner_words, self.words)] = inside
        return window

    def put(self, rows: Bits, plane: int, out: Bits) -> None:
        # An erosion or a closing stays in the box; beside it the frame may end within the reach of the element.
        inside = rows[..., _within(self.inner_words, self.words)] & self.columns
        out[plane : plane + len(rows), slice(*self.inner_y), slice(*self.inner_words)] = inside


def _frame_of(bits: Bits, element: Element) -> _Frame | None:
    box = bounding_box(bits)
    if box is None:
        return None
    z, y, x = box
    _, reach_y, reach_x = element.extent
    inner = (x[0] // WORD, words_for(x[1]))
    columns = np.zeros((1, 1, (inner[1] - inner[0]) * WORD), np.uint8)
    columns[..., x[0] - inner[0] * WORD : x[1] - inner[0] * WORD] = 1
    return _Frame(
        z=z,
        y=(y[0] - reach_y, y[1] + reach_y),
        words=((x[0] - reach_x) // WORD, words_for(x[1] + reach_x)),
        inner_y=y,
        inner_words=inner,
        columns=pack(columns),
    )


def _overlap(span: Span, size: int) -> Span:
    return max(0, span[0]), min(size, span[1])


def _within(span: Span, outer: Span) -> slice:
    return slice(span[0] - outer[0], span[1] - outer[0])


def _eroded(window: Bits, element: Element, planes: Span) -> Bits:
    """Erosion of a frame, for its planes `planes` and for the rows that lie the reach of the element inside."""
    found = _reached(window, True, element, planes, element.extent[1])
    return np.invert(found, out=found)


def _reached(window: Bits, inverted: bool, element: Element, planes: Span, skip: int = 0) -> Bits:
    """Which voxels the element reaches from the mask, or from its complement.

    Answers for planes `planes` and for all rows but the first and last `skip`. Planes that are not in the window are
    not set in either.
    """
    reach_z, reach_y, _ = element.extent
    ny, wide = window.shape[1], window.shape[2] * WORD
    depth = planes[1] - planes[0]
    out = np.empty((depth, ny - 2 * skip, window.shape[2]), np.uint64)
    limit = element.costs[0].dtype.type(element.limit)
    rows = min(ny - 2 * skip, max(BAND_BYTES // ((depth + reach_z) * wide), reach_y, 16))
    volume = np.empty((depth + reach_z, rows, wide), np.uint8)
    for begin in range(skip, ny - skip, rows):
        end = min(begin + rows, ny - skip)
        low, high = max(0, begin - reach_y), min(ny, end + reach_y)
        band, target = window[:, low:high], out[:, begin - skip : end - skip]
        part = volume[:, : end - begin]
        _spread(band, inverted, planes[0], begin - low, *element.costs, limit, element.planes_left(), part, target)
    return out


@numba.njit(nogil=True, cache=True)
def _spread(window, inverted, first, skip, cost_z, cost_y, cost_x, limit, planes_left, volume, out):  # type: ignore[no-untyped-def]
    # volume[p, y, x] becomes one more than the number of planes, from plane p on upwards, that are reached from
    # planes up to p; downwards likewise on the way back. Row y of the volume is row skip + y of the window.
    nz, ny, words = window.shape
    wide = words * WORD
    reach_z = len(cost_z) - 1
    rows = volume.shape[1]
    ramps = np.empty((ny, wide), cost_x.dtype)
    lowest = np.empty((ny, words), cost_x.dtype)
    gaps = np.empty((ny, words), np.int64)
    best = np.empty(WORD, cost_x.dtype)
    far = cost_x.dtype.type(limit + 1)
    before = np.zeros((rows, wide), np.uint8)
    plane = np.empty((rows, wide), np.uint8)
    for z in range(min(first, max(0, first - reach_z)), first + len(volume)):
        target = volume[z - first] if z >= first else plane
        if 0 <= z < nz:
            for y in range(ny):
                _ramp(window[z, y], inverted, cost_x, far, ramps[y], lowest[y])
            _gaps(lowest, far, gaps)
            for y in range(rows):
                _reach_along_y(
                    ramps, lowest, gaps, skip + y, cost_z, cost_y, limit, far, planes_left, best, target[y]
                )
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
                _pack_row(target[y], out[p, y])
        before = target


@numba.njit(nogil=True, cache=True)
def _ramp(row, inverted, cost_x, far, ramp, lowest):  # type: ignore[no-untyped-def]
    """Cost of the nearest set voxel along x, and the lowest in each word."""
    flip = np.uint64(0xFFFFFFFFFFFFFFFF) if inverted else np.uint64(0)
    wide = len(ramp)
    reach = len(cost_x) - 1
    ramp[:] = far
    end = -1  # where the last run ended
    carry = np.uint64(0)
    for w in range(len(row)):
        word = row[w] ^ flip
        turns = word ^ ((word << np.uint64(1)) | carry)
        carry = word >> np.uint64(63)
        while turns:
            x = w * WORD + lowest_bit(turns)
            turns &= turns - np.uint64(1)
            if end < 0:
                # A run begins: the ramp down to it meets the ramp up from the last one.
                begin = x
                for k in range(1, min(reach, x) + 1):
                    if cost_x[k] >= ramp[x - k]:
                        break
                    ramp[x - k] = cost_x[k]
                end = 0
            else:
                ramp[begin:x] = 0
                for k in range(0, min(reach, wide - x)):
                    ramp[x + k] = cost_x[k + 1]
                end = -1
    if end == 0:
        ramp[begin:] = 0
    for w in range(len(row)):
        least = far
        for x in range(w * WORD, w * WORD + WORD):
            least = min(least, ramp[x])
        lowest[w] = least


@numba.njit(nogil=True, cache=True)
def _gaps(lowest, far, gaps):  # type: ignore[no-untyped-def]
    """Rows to the nearest one that reaches anything, for each row and word."""
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


@numba.njit(nogil=True, cache=True)
def _reach_along_y(ramps, lowest, gaps, y, cost_z, cost_y, limit, far, planes_left, best, out):  # type: ignore[no-untyped-def]
    ny, words = lowest.shape
    reach_y = len(cost_y) - 1
    for w in range(words):
        first = w * WORD
        target = out[first : first + WORD]
        if gaps[y, w] > reach_y:
            target[:] = 0
            continue
        best[:] = far
        worst = far
        lowered = 0
        for d in range(gaps[y, w], min(reach_y, max(y, ny - 1 - y)) + 1):
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
            # To look for the worst each time would cost more than it spares.
            if lowered % _ROWS_A_LOOK == 0:
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


@numba.njit(nogil=True, cache=True)
def _highest(best):  # type: ignore[no-untyped-def]
    worst = best[0]
    for x in range(1, WORD):
        worst = max(worst, best[x])
    return worst


@numba.njit(nogil=True, cache=True)
def _lower(ramp, cost, best):  # type: ignore[no-untyped-def]
    for x in range(WORD):
        reached = best.dtype.type(ramp[x] + cost)
        best[x] = min(best[x], reached)


@numba.njit(nogil=True, cache=True)
def _lower_by_two(one, two, cost, best):  # type: ignore[no-untyped-def]
    for x in range(WORD):
        reached = best.dtype.type(min(one[x], two[x]) + cost)
        best[x] = min(best[x], reached)


@numba.njit(nogil=True, cache=True)
def _fade(before, line):  # type: ignore[no-untyped-def]
    for x in range(len(line)):
        left = np.uint8(max(before[x], np.uint8(1)) - np.uint8(1))
        line[x] = max(line[x], left)


@numba.njit(nogil=True, cache=True)
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


@numba.njit(nogil=True, cache=True)
def _shifted(row, k, w):  # type: ignore[no-untyped-def]
    """Word `w` of a row moved by `k` voxels, 0 < abs(k) < 64."""
    if k > 0:
        low = row[w - 1] >> np.uint64(64 - k) if w > 0 else np.uint64(0)
        return (row[w] << np.uint64(k)) | low
    high = row[w + 1] << np.uint64(64 + k) if w + 1 < len(row) else np.uint64(0)
    return (row[w] >> np.uint64(-k)) | high


@numba.njit(nogil=True, cache=True)
def _erode_by_shifts(bits, reaches, first, out):  # type: ignore[no-untyped-def]
    nz, ny, words = bits.shape
    ez, ey = len(reaches) // 2, len(reaches[0]) // 2
    along_x = _along_x(bits, reaches.max(), True)
    for p in range(len(out)):
        z = first + p
        for y in range(ny):
            target = out[p, y]
            if not bits[z, y].any() or z < ez or z + ez >= nz or y < ey or y + ey >= ny:
                continue
            target[:] = bits[z, y]
            for i in range(len(reaches)):
                for j in range(len(reaches[0])):
                    if reaches[i, j] >= 0:
                        other = along_x[reaches[i, j], z + i - ez, y + j - ey]
                        for w in range(words):
                            target[w] &= other[w]


@numba.njit(nogil=True, cache=True)
def _dilate_by_shifts(bits, reaches, first, out):  # type: ignore[no-untyped-def]
    nz, ny, words = bits.shape
    ez, ey = len(reaches) // 2, len(reaches[0]) // 2
    along_x = _along_x(bits, reaches.max(), False)
    for p in range(len(out)):
        z = first + p
        for y in range(ny):
            target = out[p, y]
            for i in range(max(0, ez - z), min(len(reaches), nz - z + ez)):
                for j in range(max(0, ey - y), min(len(reaches[0]), ny - y + ey)):
                    if reaches[i, j] >= 0:
                        other = along_x[reaches[i, j], z + i - ez, y + j - ey]
                        for w in range(words):
                            target[w] |= other[w]


@numba.njit(nogil=True, cache=True)
def _along_x(bits, reach, eroded):  # type: ignore[no-untyped-def]
    """The mask eroded or dilated along x by 0, 1 ... `reach` voxels."""
    nz, ny, words = bits.shape
    out = np.empty((reach + 1, nz, ny, words), np.uint64)
    out[0] = bits
    for k in range(1, reach + 1):
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
