"""Text that is burned into a slice: a line of shapes of one exact value with sharp edges.

A program that burns in text draws letters with one value. Strokes are then narrow runs of exactly equal pixels between
pixels that differ much. Noise and partial volume leave no such runs in a scan, so that four shapes of them with the
same value on one line are text. Letters with soft edges have few such runs. They are looked for in the margins of a
slice, outside the body, and on flat boxes: five shapes on one line, of which half have the same highest or lowest
value.

Text is missed if it has fewer letters that do not touch, is smaller than 10 pixels, or than 14 with soft edges, runs
along columns or in another plane, differs from its background by less than 150 HU, or was resampled or compressed with
loss, so that its values are no longer equal; with soft edges also over the body.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel

CONTRAST = 150
"""Smallest difference of a stroke from the pixels on its left and its right, HU."""
FEWEST_LETTERS = 4
"""Letters of a line of text that do not touch."""
FEWEST_SOFT_LETTERS = 5
"""The same for text with soft edges, in the margins of a slice or on a flat box."""
_LONGEST_STROKE, _HEIGHTS = 60, (4, 60)
"""Pixels."""
_MOST_SHAPES = 4096
_GAP = 3.0
"""Largest gap between letters, in heights of a letter."""
_BRIGHT, _DARK = 1, 2
_SHAPE, _SMALL, _LARGE = 1, 2, 3
_AIR = -500
"""Pixels above are no air, HU."""
_FLAT_RUN = 12
"""Pixels of a run of one value, as boxes have that are drawn under text."""

_LARGEST_BOX = 0.1
"""Largest share of a slice that is a flat box."""

Line = tuple[int, int, int, int]


def text_lines(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """Return the boxes of lines of text in a slice.

    Parameters
    ----------
    hu : ndarray of int16, shape (y, x)
        Slice, HU.

    Returns
    -------
    ndarray of int32, shape (n, 4)
        First row, row after the last, first column and column after the last of each line, without duplicates.
    """
    lines = _lines_of_strokes(hu) | _lines_of_shapes(hu, hu > _AIR, is_margin=True)
    if (flat := _flat_value(hu)) is not None:
        lines |= _lines_of_shapes(hu, hu != flat, is_margin=False)
    return np.array(sorted(lines), np.int32).reshape(-1, 4)


def _lines_of_strokes(hu: npt.NDArray[np.int16]) -> set[Line]:
    """Return lines of shapes in strokes of exactly one value, anywhere in the slice."""
    kinds = np.zeros(hu.shape, np.uint8)
    if _mark_strokes(hu, kinds) == 0:
        return set()
    values, boxes = np.empty(_MOST_SHAPES, np.int32), np.empty((_MOST_SHAPES, 4), np.int32)
    count = _shapes(hu, kinds, values, boxes, np.empty((hu.size, 2), np.int32))
    values, boxes = values[:count], boxes[:count]
    return {
        line
        for value in np.unique(values)
        if np.count_nonzero(values == value) >= FEWEST_LETTERS
        for line, _ in _lines_of(boxes[values == value], FEWEST_LETTERS)
    }


def _lines_of_shapes(hu: npt.NDArray[np.int16], is_shape: npt.NDArray[np.bool_], *, is_margin: bool) -> set[Line]:
    """Return lines of shapes with soft edges whose extreme values are often the same, in margins or on a flat box."""
    boxes, extremes = np.empty((_MOST_SHAPES, 4), np.int32), np.empty((_MOST_SHAPES, 2), np.int32)
    kinds = np.where(is_shape, _SHAPE, 0).astype(np.uint8)
    count = _soft_shapes(hu, kinds, is_margin, boxes, extremes, np.empty((hu.size, 2), np.int32))
    boxes, extremes = boxes[:count], extremes[:count]
    lines = set()
    for line, letters in _lines_of(boxes, FEWEST_SOFT_LETTERS):
        for column in range(2):
            equal = np.unique(extremes[letters, column], return_counts=True)[1].max()
            if equal >= max(3, len(letters) // 2):
                lines.add(line)
    return lines


def _flat_value(hu: npt.NDArray[np.int16]) -> int | None:
    """Return the value above air that most runs of equal pixels have, None if a box of it is unlikely."""
    is_run = (hu[:, _FLAT_RUN:] == hu[:, :-_FLAT_RUN]) & (hu[:, _FLAT_RUN:] > _AIR)
    for step in range(1, _FLAT_RUN):
        if not is_run.any():
            return None
        is_run &= hu[:, step : step - _FLAT_RUN] == hu[:, :-_FLAT_RUN]
    values, counts = np.unique(hu[:, :-_FLAT_RUN][is_run], return_counts=True)
    if not len(values):
        return None
    flat = int(values[counts.argmax()])
    # More of it is the background of a scan without noise.
    return flat if np.count_nonzero(hu == flat) <= _LARGEST_BOX * hu.size else None


def _lines_of(boxes: npt.NDArray[np.int32], fewest: int) -> list[tuple[Line, npt.NDArray[np.int64]]]:
    """Return boxes and shapes of lines of shapes that stand on one row, or hang from one in scans upside down."""
    lines = []
    heights = boxes[:, 1] - boxes[:, 0]
    for index, height in enumerate(heights):
        similar = (heights * 2 >= height) & (heights <= 2 * height)
        tolerance = max(1, round(0.15 * height))
        for edge in (0, 1):
            on_line = similar & (np.abs(boxes[:, edge] - boxes[index, edge]) <= tolerance)
            if np.count_nonzero(on_line) < fewest:
                continue
            indices = np.flatnonzero(on_line)
            indices = indices[np.argsort(boxes[indices, 2], kind="stable")]
            letters = boxes[indices]
            ends = np.maximum.accumulate(letters[:, 3])
            gaps = letters[1:, 2] - ends[:-1]
            for part in np.split(np.arange(len(letters)), np.flatnonzero(gaps > _GAP * height) + 1):
                word = letters[part]
                # Shapes above each other are parts of one letter.
                apart = 1 + np.count_nonzero(word[1:, 2] >= np.maximum.accumulate(word[:, 3])[:-1])
                if apart >= fewest:
                    top, left = word[:, (0, 2)].min(axis=0)
                    bottom, right = word[:, (1, 3)].max(axis=0)
                    lines.append(((int(top), int(bottom), int(left), int(right)), indices[part]))
    return lines


@kernel()
def _mark_strokes(hu, kinds):  # type: ignore[no-untyped-def]
    """Mark runs of equal pixels between two that are darker, or two that are brighter; return how many were marked."""
    ny, nx = hu.shape
    marked = 0
    for y in range(ny):
        x = 1
        while x < nx - 1:
            value = np.int32(hu[y, x])
            left = np.int32(hu[y, x - 1])
            kind = 0
            if value - left >= CONTRAST:
                kind = _BRIGHT
            elif left - value >= CONTRAST:
                kind = _DARK
            if kind == 0:
                x += 1
                continue
            end = x + 1
            while end < nx and hu[y, end] == value:
                end += 1
            if end < nx and end - x <= _LONGEST_STROKE:
                after = np.int32(hu[y, end])
                if (kind == _BRIGHT and value - after >= CONTRAST) or (kind == _DARK and after - value >= CONTRAST):
                    for i in range(x, end):
                        kinds[y, i] = kind
                    marked += 1
            x = end
    return marked


@kernel()
def _shapes(hu, kinds, values, boxes, queue):  # type: ignore[no-untyped-def]
    """Write value and box of connected strokes of one value that may be a letter, and return their number."""
    ny, nx = hu.shape
    count = 0
    for y in range(ny):
        for x in range(nx):
            kind = kinds[y, x]
            if kind == 0:
                continue
            value = hu[y, x]
            _, bottom, left, right = _grow(hu, kinds, y, x, 0, True, queue)
            height = bottom - y
            if height < _HEIGHTS[0] or height > _HEIGHTS[1] or right - left > _LONGEST_STROKE:
                continue
            if kind == _DARK and not _is_on_flat(hu, value, y, bottom, left, right):
                continue
            values[count] = value
            boxes[count, 0], boxes[count, 1], boxes[count, 2], boxes[count, 3] = y, bottom, left, right
            count += 1
            if count == len(values):
                return count
    return count


@kernel()
def _grow(hu, kinds, y, x, done, is_of_one_value, queue):  # type: ignore[no-untyped-def]
    """Give all pixels that are connected with one of the same kind another kind, and write them to a queue.

    The first pixel is in the first row of the shape. With `is_of_one_value`, only pixels of its value are of the shape.
    Returned are the number of pixels, the row after the last, the first column, and the column after the last.
    """
    ny, nx = hu.shape
    kind, value = kinds[y, x], hu[y, x]
    bottom, left, right = y + 1, x, x + 1
    queue[0, 0], queue[0, 1] = y, x
    kinds[y, x] = done
    filled, read = 1, 0
    while read < filled:
        row, column = queue[read, 0], queue[read, 1]
        read += 1
        bottom = max(bottom, row + 1)
        left, right = min(left, column), max(right, column + 1)
        for near_row in range(max(row - 1, 0), min(row + 2, ny)):
            for near in range(max(column - 1, 0), min(column + 2, nx)):
                if kinds[near_row, near] == kind and (hu[near_row, near] == value or not is_of_one_value):
                    kinds[near_row, near] = done
                    queue[filled, 0], queue[filled, 1] = near_row, near
                    filled += 1
    return filled, bottom, left, right


@kernel()
def _is_on_flat(hu, value, top, bottom, left, right):  # type: ignore[no-untyped-def]
    """Return True if half of the pixels around dark strokes have one value, as a box that was drawn for text has."""
    ny, nx = hu.shape
    background, votes = value, 0
    for y in range(max(top - 1, 0), min(bottom + 1, ny)):
        for x in range(max(left - 1, 0), min(right + 1, nx)):
            if hu[y, x] != value:
                if votes == 0:
                    background = hu[y, x]
                votes += 1 if hu[y, x] == background else -1
    others, equal = 0, 0
    for y in range(max(top - 1, 0), min(bottom + 1, ny)):
        for x in range(max(left - 1, 0), min(right + 1, nx)):
            if hu[y, x] != value:
                others += 1
                equal += hu[y, x] == background
    return 2 * equal >= others and others > 0


@kernel()
def _soft_shapes(hu, kinds, is_margin, boxes, extremes, queue):  # type: ignore[no-untyped-def]
    """Write box, lowest and highest value of connected shapes of the size of letters, and return their number.

    Pixels of the kind `_SHAPE` become `_SMALL` or `_LARGE`. With `is_margin`, only shapes count from which large shapes
    do not cover the view to all four edges of the slice, as the body does from its inside.
    """
    ny, nx = hu.shape
    count = 0
    for y in range(ny):
        for x in range(nx):
            if kinds[y, x] != _SHAPE:
                continue
            filled, bottom, left, right = _grow(hu, kinds, y, x, _SMALL, False, queue)
            height = bottom - y
            if height > _HEIGHTS[1] or right - left > _LONGEST_STROKE:
                for i in range(filled):
                    kinds[queue[i, 0], queue[i, 1]] = _LARGE
            elif height >= _HEIGHTS[0] and count < len(boxes):
                boxes[count, 0], boxes[count, 1], boxes[count, 2], boxes[count, 3] = y, bottom, left, right
                low = high = hu[y, x]
                for i in range(filled):
                    low, high = min(low, hu[queue[i, 0], queue[i, 1]]), max(high, hu[queue[i, 0], queue[i, 1]])
                extremes[count, 0], extremes[count, 1] = low, high
                count += 1
    if not is_margin:
        return count
    kept = 0
    for i in range(count):
        row, column = (boxes[i, 0] + boxes[i, 1]) // 2, (boxes[i, 2] + boxes[i, 3]) // 2
        if (
            (kinds[:row, column] < _LARGE).all()
            or (kinds[row:, column] < _LARGE).all()
            or (kinds[row, :column] < _LARGE).all()
            or (kinds[row, column:] < _LARGE).all()
        ):
            boxes[kept], extremes[kept] = boxes[i], extremes[i]
            kept += 1
    return kept
