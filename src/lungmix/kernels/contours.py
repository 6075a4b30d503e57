"""Filling of polygons by the even-odd rule, and detection of polygons that cross themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

_MAX_CROSSINGS = 1 << 20
_TOLERANCE_MM = 0.5
"""Smallest width of a part that counts as enclosed twice, or in the opposite sense. Drawn outlines touch themselves and
are rounded to 0.01 mm, which encloses narrower parts."""

_MIN_STEP_MM = 0.25
_MAX_LINES = 1000


def fill_contours(contours: Sequence[Points], rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return a mask of the pixels of a window whose centres lie inside an odd number of contours.

    Columns increase to the right, rows downwards. A pixel centre that lies exactly on an edge belongs to the contour to
    the right of the edge or, if the edge runs along a row, to the contour below. So contours that share an edge share
    no pixel and leave no gap.

    Parameters
    ----------
    contours : sequence of ndarray, shape (points, 2)
        Closed polygons: row and column of each point, with pixel centres at integers.
    rows, columns : tuple of int
        First row of the window and the row after its last one; likewise for columns.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True for pixels inside.
    """
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    toggles = np.zeros(height * (width + 1), np.uint8)
    for points in contours:
        for lines, positions, _ in crossings(points, rows):
            first = np.clip(np.ceil(positions), columns[0], columns[1]).astype(np.int64) - columns[0]
            np.add.at(toggles, (lines - rows[0]) * (width + 1) + first, 1)
    parity = np.bitwise_xor.accumulate(toggles.reshape(height, width + 1) & 1, axis=1)
    return parity[:, :-1].astype(bool)


def crosses_itself(points: Points) -> bool:
    """Return True if a closed polygon crosses itself, so that its inside is ambiguous.

    A polygon crosses itself if it encloses an area twice, or one area clockwise and another one anticlockwise. The
    polygon is examined along parallel lines at a distance of 0.25 mm, or a thousandth of its height if that is more.
    Areas narrower than 0.5 mm along these lines do not count.

    Parameters
    ----------
    points : ndarray, shape (points, 2)
        Positions in mm.
    """
    low, high = points[:, 0].min(), points[:, 0].max()
    climb = np.abs(np.diff(points[:, 0])).sum()
    step = max(_MIN_STEP_MM, (high - low) / _MAX_LINES, climb / _MAX_CROSSINGS)
    scaled = np.column_stack([(points[:, 0] - low) / step - 0.5, points[:, 1]])
    lines, positions, senses = (
        np.concatenate(parts) for parts in zip(*crossings(scaled, (0, _MAX_LINES + 1)), strict=True)
    )
    order = np.lexsort((positions, lines))
    winding = np.cumsum(senses[order])[:-1]
    widths = np.diff(positions[order])
    senses_inside = set(winding[(winding != 0) & (widths > _TOLERANCE_MM)].tolist())
    return not (senses_inside <= {1} or senses_inside <= {-1})


def crossings(
    points: Points, lines: tuple[int, int]
) -> Iterator[tuple[npt.NDArray[np.int64], Points, npt.NDArray[np.int64]]]:
    """Yield the points at which the edges of a closed polygon cross parallel lines, in groups of bounded size.

    Each group is three arrays: the number of the line, the position along the line, and the sense of the edge, 1 if it
    runs to higher lines and -1 if it runs to lower ones. An edge that begins or ends on a line crosses this line only
    if that is the lower end of the edge.

    Parameters
    ----------
    points : ndarray, shape (points, 2)
        Position of each corner across the lines, in units of their distance, and along the lines.
    lines : tuple of int
        First line, and the line after the last one.
    """
    following = np.roll(points, -1, axis=0)
    is_upward = following[:, 0] > points[:, 0]
    # Sort the two ends of each edge, so that two polygons that share an edge get exactly the same positions.
    lower, upper = np.where(is_upward[:, None], points, following), np.where(is_upward[:, None], following, points)
    first = np.clip(np.ceil(lower[:, 0]), lines[0], lines[1]).astype(np.int64)
    count = np.clip(np.ceil(upper[:, 0]), lines[0], lines[1]).astype(np.int64) - first
    # Process edges in groups with about _MAX_CROSSINGS crossings each, to bound the memory.
    groups = np.cumsum(count) // _MAX_CROSSINGS
    for edges in np.split(np.arange(len(points)), np.flatnonzero(np.diff(groups)) + 1):
        edge = np.repeat(edges, count[edges])
        before = np.repeat(np.cumsum(count[edges]) - count[edges], count[edges])
        line = first[edge] + np.arange(len(edge)) - before
        (bottom, start), (top, end) = lower[edge].T, upper[edge].T
        position = start + (line - bottom) * (end - start) / (top - bottom)
        yield line, position, np.where(is_upward[edge], 1, -1)
