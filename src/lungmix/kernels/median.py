"""Median filter of ordinal labels, computed with one bit per voxel.

The median of a window is at least ``k`` if at least half of its voxels are at least ``k``. So for each label ``k`` that
occurs, the voxels of at least ``k`` in each window are counted. These voxels are packed to one bit each, 64 in a word.
The counts are binary numbers with one packed plane per digit, so that the logic of a ripple-carry adder adds 64 counts
at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError
from lungmix.kernels.jit import kernel
from lungmix.kernels.packed_masks import WORD, words_for

Labels = npt.NDArray[np.uint8]


NOT_FLIPPED = (False, False, False)


def median_labels(labels: Labels, size: int = 4, flipped: tuple[bool, bool, bool] = NOT_FLIPPED) -> Labels:
    """Return the median filter of ordinal labels, equal to ``scipy.ndimage.median_filter(labels, size)``.

    On each axis, the window of a voxel begins ``size // 2`` voxels before it and ends ``(size - 1) // 2`` voxels after
    it. The volume is reflected at its border. If a window has an even number of voxels, the upper one of the two middle
    values is taken. On a flipped axis the window is mirrored, as if the volume were flipped, filtered and flipped back.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        Labels. The time grows with the number of distinct values, and only voxels near non-zero ones are processed.
    size : int
        Edge of the window in voxels, 1 to 15.
    flipped : tuple of bool
        True for each of the axes z, y, x that runs opposite to that of the axial array, whose axes run to the head, to
        the back and to the left.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)

    Raises
    ------
    UsageError
        If the size is out of range.
    """
    if not 1 <= size <= 15:
        raise UsageError(f"a median window of {size} voxels is not possible: give a size from 1 to 15")
    if size == 1:
        return labels.copy()
    out = np.zeros(labels.shape, np.uint8)
    box = _box_of(labels) if labels.size else np.zeros((3, 2), np.int64)
    if not box.any():
        return out
    window = window_of(size, flipped)
    spans = [
        (max(0, int(low) - after), min(n, int(high) + before))
        for (low, high), n, (before, after) in zip(box, labels.shape, window, strict=True)
    ]
    padded = _surroundings(labels, spans, window)
    levels = np.flatnonzero(_present(padded))
    levels = levels[levels > 0]
    _, ny, nx = (high - low for low, high in spans)
    ranks = _ranks(padded, levels.astype(np.uint8), size, ny)
    target = out[tuple(slice(*span) for span in spans)]
    _expand(ranks, np.concatenate([[0], levels]).astype(np.uint8), ny, nx, target)
    return out


def window_of(size: int, flipped: tuple[bool, bool, bool] = NOT_FLIPPED) -> tuple[tuple[int, int], ...]:
    """Return how many voxels the window of a voxel extends before and after it, for each of the axes z, y, x.

    Parameters are those of `median_labels`.
    """
    before, after = size // 2, (size - 1) // 2
    return tuple((after, before) if flip else (before, after) for flip in flipped)


def _surroundings(labels: Labels, spans: list[tuple[int, int]], window: tuple[tuple[int, int], ...]) -> Labels:
    """Return the part of a volume in `spans`, with the margin that windows of its voxels need.

    The margin is reflected at the border of the volume. Rows are padded to whole words.
    """
    part, pad = [], []
    for (low, high), n, (before, after) in zip(spans, labels.shape, window, strict=True):
        begin, end = low - before, high + after
        part.append(slice(max(0, begin), min(n, end)))
        pad.append((max(0, -begin), max(0, end - n)))
    wide = spans[2][1] - spans[2][0] + sum(window[2])
    padded = np.pad(labels[tuple(part)], pad, mode="symmetric")
    return np.pad(padded, [(0, 0), (0, 0), (0, words_for(wide) * WORD - wide)])


def _ranks(padded: Labels, levels: Labels, size: int, ny: int) -> npt.NDArray[np.uint64]:
    """Return, for each voxel, how many of the levels are at most its median.

    The shape is (digits, z, y * words): one packed plane per binary digit of the number.
    """
    depth, words = padded.shape[0] - size + 1, padded.shape[2] // WORD
    ranks = np.zeros((len(levels).bit_length(), depth, ny * words), np.uint64)
    _median(padded.view(np.uint64), levels, size, ranks)
    return ranks


@kernel()
def _box_of(labels):  # type: ignore[no-untyped-def]
    nz, ny, nx = labels.shape
    box = np.zeros((3, 2), np.int64)
    flat = np.zeros(nx, np.uint8)
    for z in range(nz):
        hit = False
        for y in range(ny):
            row = labels[z, y]
            any_set = np.uint8(0)
            for x in range(nx):
                any_set |= row[x]
            if any_set:
                if not box[1, 1] or y < box[1, 0]:
                    box[1, 0] = y
                box[1, 1] = max(box[1, 1], y + 1)
                hit = True
                for x in range(nx):
                    flat[x] |= row[x]
        if hit:
            if not box[0, 1]:
                box[0, 0] = z
            box[0, 1] = z + 1
    for x in range(nx):
        if flat[x]:
            if not box[2, 1]:
                box[2, 0] = x
            box[2, 1] = x + 1
    return box


@kernel()
def _present(padded):  # type: ignore[no-untyped-def]
    present = np.zeros(256, np.bool_)
    for z in range(padded.shape[0]):
        for y in range(padded.shape[1]):
            row = padded[z, y]
            for x in range(len(row)):
                present[row[x]] = True
    return present


@kernel()
def _digits_for(largest):  # type: ignore[no-untyped-def]
    digits = 0
    while largest >> digits:
        digits += 1
    return digits


@kernel()
def _median(eights, levels, size, ranks):  # type: ignore[no-untyped-def]
    # A word of eights holds 8 labels. Planes are flat, one row after the other. Where a window reads past the end of a
    # row, the result is past the end of that row too, in the padding, and is dropped.
    ny, words = eights.shape[1], eights.shape[2] // 8
    _, depth, n = ranks.shape
    # The upper median of size³ sorted values has rank size³ // 2. It is at least k if at least `need` values are.
    volume = size * size * size
    need = volume - volume // 2
    plane = np.zeros(ny * words + 1, np.uint64)
    shifted = np.empty((1, ny * words), np.uint64)
    along_x = np.empty((_digits_for(size), ny * words), np.uint64)
    slices = np.empty((size, _digits_for(size * size), n), np.uint64)
    count = np.empty((_digits_for(volume), n), np.uint64)
    reached = np.empty((1, n), np.uint64)
    carry = np.empty(ny * words, np.uint64)
    for level in levels:
        count[:] = 0
        for z in range(depth + size - 1):
            newest = slices[z % size]
            if z >= size:
                _subtract(count, newest, carry)
            _pack_at_least(eights[z], level, plane)
            along_x[:] = 0
            for k in range(size):
                _shift(plane, k, shifted[0])
                _add(along_x, shifted, 0, carry)
            newest[:] = 0
            for k in range(size):
                _add(newest, along_x, k * words, carry)
            _add(count, newest, 0, carry)
            if z >= size - 1:
                _at_least(count, need, reached[0])
                _add(ranks[:, z - size + 1], reached, 0, carry)


@kernel()
def _pack_at_least(eights, level, plane):  # type: ignore[no-untyped-def]
    high = np.uint64(0x8080808080808080)
    rest = np.uint64(level & 0x7F) * np.uint64(0x0101010101010101)
    words = eights.shape[1] // 8
    for y in range(eights.shape[0]):
        for w in range(words):
            word = np.uint64(0)
            for k in range(8):
                eight = eights[y, 8 * w + k]
                if eight:
                    # Set the top bit of each byte whose lower seven bits are at least those of the level.
                    lower = (eight | high) - rest
                    reached = (lower | eight) if level < 128 else (lower & eight)
                    gathered = (((reached & high) >> np.uint64(7)) * np.uint64(0x0102040810204080)) >> np.uint64(56)
                    word |= gathered << np.uint64(8 * k)
            plane[y * words + w] = word


@kernel()
def _shift(plane, k, out):  # type: ignore[no-untyped-def]
    if k == 0:
        out[:] = plane[: len(out)]
        return
    down, up = np.uint64(k), np.uint64(64 - k)
    for i in range(len(out)):
        out[i] = (plane[i] >> down) | (plane[i + 1] << up)


@kernel()
def _add(total, addend, first, carry):  # type: ignore[no-untyped-def]
    digits, n = total.shape
    for b in range(digits):
        digit = total[b]
        if b == 0:
            other = addend[0, first : first + n]
            for i in range(n):
                carry[i] = digit[i] & other[i]
                digit[i] ^= other[i]
        elif b < len(addend):
            other = addend[b, first : first + n]
            for i in range(n):
                either = digit[i] ^ other[i]
                both = digit[i] & other[i]
                digit[i] = either ^ carry[i]
                carry[i] = both | (either & carry[i])
        else:
            for i in range(n):
                both = digit[i] & carry[i]
                digit[i] ^= carry[i]
                carry[i] = both


@kernel()
def _subtract(total, less, carry):  # type: ignore[no-untyped-def]
    digits, n = total.shape
    carry[:n] = 0
    for b in range(digits):
        digit = total[b]
        if b < len(less):
            other = less[b]
            for i in range(n):
                either = digit[i] ^ other[i]
                borrow = (~digit[i] & other[i]) | (~either & carry[i])
                digit[i] = either ^ carry[i]
                carry[i] = borrow
        else:
            for i in range(n):
                borrow = ~digit[i] & carry[i]
                digit[i] ^= carry[i]
                carry[i] = borrow


@kernel()
def _at_least(count, need, out):  # type: ignore[no-untyped-def]
    # count is at least need if count + (2^digits - need) overflows: compute the carry out of this sum.
    digits, n = count.shape
    rest = (1 << digits) - need
    out[:] = 0
    for b in range(digits):
        digit = count[b]
        if (rest >> b) & 1:
            for i in range(n):
                out[i] |= digit[i]
        else:
            for i in range(n):
                out[i] &= digit[i]


@kernel()
def _expand(ranks, values, ny, nx, out):  # type: ignore[no-untyped-def]
    digits, depth, n = ranks.shape
    words = n // ny
    for z in range(depth):
        for y in range(ny):
            row = out[z, y]
            for w in range(words):
                at = y * words + w
                present = np.uint64(0)
                for b in range(digits):
                    present |= ranks[b, z, at]
                if not present:
                    continue
                for x in range(min(WORD, nx - w * WORD)):
                    rank = np.int64(0)
                    for b in range(digits):
                        rank |= np.int64((ranks[b, z, at] >> np.uint64(x)) & np.uint64(1)) << b
                    row[w * WORD + x] = values[rank]
