"""Spacing of slices along the normal: even, nearly even, or several interleaved grids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EVEN_TOLERANCE_MM, EVEN_TOLERANCE = 0.06, 0.05
"""Tolerated difference from an even spacing, in mm and as a fraction of the spacing; the larger one counts. Files round
positions, to 0.1 mm at worst."""

SAME_POSITION_MM = 0.01
"""Slices closer than this, or than a hundredth of the median spacing, have the same position."""

MAX_GRID_DEVIATION = 0.25
"""Fraction of the spacing by which a slice may deviate from its position on the even grid."""

_NEAR_FRACTION = 0.25
_MIN_EVEN_FRACTION = 2 / 3
_MIN_POSITIONS = 3
_MAX_GRIDS = 4
_MIN_PERIODS = 3

Positions = npt.NDArray[np.float64]


def estimate_spacing(steps: Positions) -> float:
    """Return the mean of the distances within 25 % of their lower median; 1 without distances.

    It is robust to gaps and to rounded positions.
    """
    if not len(steps):
        return 1.0
    middle = np.sort(steps)[(len(steps) - 1) // 2]
    return float(steps[np.abs(steps - middle) <= _NEAR_FRACTION * abs(middle)].mean())


def spacing_tolerance(step: float) -> float:
    """Return the tolerated difference from a spacing, in mm."""
    return max(EVEN_TOLERANCE_MM, EVEN_TOLERANCE * step)


def find_uneven_steps(along: Positions, median_spacing: float) -> npt.NDArray[np.intp]:
    """Return the indices of distances that differ from the median spacing by more than the tolerance.

    There are none if all positions are within the tolerance of an even grid.
    """
    index = np.arange(len(along))
    straight = np.polyval(np.polyfit(index, along, 1), index)
    if np.abs(along - straight).max() <= spacing_tolerance(median_spacing):
        return np.array([], np.intp)
    return np.flatnonzero(np.abs(np.diff(along) - median_spacing) > spacing_tolerance(median_spacing))


def grid_deviation(along: Positions) -> Positions:
    """Return the deviation of each slice from the even grid between first and last slice, in mm."""
    return np.asarray(np.abs(along - np.linspace(along[0], along[-1], len(along))))


def find_duplicate_positions(along: Positions) -> npt.NDArray[np.bool_]:
    """Return True for each slice after the first that has the position of the slice before it.

    Parameters
    ----------
    along : ndarray
        Positions in ascending order, mm.
    """
    steps = np.diff(along)
    median_spacing = float(np.median(steps)) if len(steps) else 0.0
    return np.asarray(steps < max(SAME_POSITION_MM, 0.01 * median_spacing))


def is_even(positions: Positions) -> bool:
    """Return True if positions, in any order, are those of an even grid without duplicates."""
    along = np.sort(positions)
    if len(along) < 2:
        return True
    if find_duplicate_positions(along).any():
        return False
    median_spacing = estimate_spacing(np.diff(along))
    if find_uneven_steps(along, median_spacing).size:
        return False
    return bool(grid_deviation(along).max() <= max(2 * EVEN_TOLERANCE_MM, MAX_GRID_DEVIATION * median_spacing))


def distinct_positions(positions: Positions) -> Positions:
    """Return the distinct positions in ascending order."""
    along = np.sort(positions)
    return along[np.concatenate([[True], np.diff(along) >= SAME_POSITION_MM])] if len(along) else along


def is_mostly_even(positions: Positions) -> bool:
    """Return True for three or more distinct positions of which at least two thirds of the distances are equal."""
    along = distinct_positions(positions)
    if len(along) < _MIN_POSITIONS:
        return False
    steps = np.diff(along)
    median_spacing = estimate_spacing(steps)
    return bool((np.abs(steps - median_spacing) <= spacing_tolerance(median_spacing)).mean() >= _MIN_EVEN_FRACTION)


def count_interleaved_grids(along: Positions) -> int:
    """Return the number of interleaved even grids; 1 if distances do not alternate.

    Parameters
    ----------
    along : ndarray
        Positions in ascending order.
    """
    steps = np.diff(along)
    for count in range(2, _MAX_GRIDS + 1):
        if len(along) < _MIN_PERIODS * count:
            break
        periods = along[count:] - along[:-count]
        period = estimate_spacing(periods)
        step = period / count
        is_constant = np.abs(periods - period) <= spacing_tolerance(step)
        is_different = np.abs(steps - step) > spacing_tolerance(step)
        if is_constant.mean() >= _MIN_EVEN_FRACTION and is_different.mean() >= _MIN_EVEN_FRACTION:
            return count
    return 1


def overlaps_by_half(first: Positions, second: Positions) -> bool:
    """Return True if the ranges of two stacks overlap by half of the shorter one or more."""
    overlap = min(first.max(), second.max()) - max(first.min(), second.min())
    return bool(overlap >= 0.5 * min(np.ptp(first), np.ptp(second)))
