"""Distances of slices that lie one behind the other: even, nearly even, or two grids between each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EVEN_MM, EVEN = 0.06, 0.05
"""Positions are rounded in many files, to a tenth of a millimetre at worst: smaller differences are even."""
SAME_PLACE_MM = 0.01
"""Slices nearer than this lie at one position, or nearer than a hundredth of the usual distance."""

MOST_DRIFT = 0.25
"""Share of a distance by which a slice may lie beside its place on the even grid."""

_NEAR = 0.25
_MOSTLY = 2 / 3
_FEWEST = 3
_MOST_GRIDS = 4
_FEWEST_PERIODS = 3

Positions = npt.NDArray[np.float64]


def usual_step(steps: Positions) -> float:
    """Return the mean of the distances near the lower median: gaps are larger, and positions may be rounded."""
    if not len(steps):
        return 1.0
    middle = np.sort(steps)[(len(steps) - 1) // 2]
    return float(steps[np.abs(steps - middle) <= _NEAR * abs(middle)].mean())


def tolerance_of(step: float) -> float:
    """Return the difference from a distance, in mm, that is even."""
    return max(EVEN_MM, EVEN * step)


def uneven_steps(along: Positions, usual: float) -> npt.NDArray[np.intp]:
    """Return the indices of the distances that are not the usual one; none if a straight line fits all positions."""
    index = np.arange(len(along))
    straight = np.polyval(np.polyfit(index, along, 1), index)
    if np.abs(along - straight).max() <= tolerance_of(usual):
        return np.array([], np.intp)
    return np.flatnonzero(np.abs(np.diff(along) - usual) > tolerance_of(usual))


def drift_of(along: Positions) -> Positions:
    """Return how far each slice lies beside its place on the even grid from the first to the last, mm."""
    return np.asarray(np.abs(along - np.linspace(along[0], along[-1], len(along))))


def doubled(along: Positions) -> npt.NDArray[np.bool_]:
    """Return for each slice but the first, in the order of positions, if it lies where the one before it does."""
    steps = np.diff(along)
    usual = float(np.median(steps)) if len(steps) else 0.0
    return np.asarray(steps < max(SAME_PLACE_MM, 0.01 * usual))


def is_even(positions: Positions) -> bool:
    """Return True if one slice lies at each place of an even grid, in whatever order they are given."""
    along = np.sort(positions)
    if len(along) < 2:
        return True
    if doubled(along).any():
        return False
    usual = usual_step(np.diff(along))
    if uneven_steps(along, usual).size:
        return False
    return bool(drift_of(along).max() <= max(2 * EVEN_MM, MOST_DRIFT * usual))


def places(positions: Positions) -> Positions:
    """Return the different positions in ascending order."""
    along = np.sort(positions)
    return along[np.concatenate([[True], np.diff(along) >= SAME_PLACE_MM])] if len(along) else along


def is_mostly_even(positions: Positions) -> bool:
    """Return True if there are three places or more, and two thirds of their distances are the usual one."""
    along = places(positions)
    if len(along) < _FEWEST:
        return False
    steps = np.diff(along)
    usual = usual_step(steps)
    return bool((np.abs(steps - usual) <= tolerance_of(usual)).mean() >= _MOSTLY)


def grids_between(along: Positions) -> int:
    """Return how many even grids lie between each other; 1 if distances do not alternate.

    Parameters
    ----------
    along : ndarray
        Positions in ascending order.
    """
    steps = np.diff(along)
    for count in range(2, _MOST_GRIDS + 1):
        if len(along) < _FEWEST_PERIODS * count:
            break
        periods = along[count:] - along[:-count]
        period = usual_step(periods)
        step = period / count
        constant = np.abs(periods - period) <= tolerance_of(step)
        unlike = np.abs(steps - step) > tolerance_of(step)
        if constant.mean() >= _MOSTLY and unlike.mean() >= _MOSTLY:
            return count
    return 1


def overlap_by_half(one: Positions, two: Positions) -> bool:
    """Return True if the ranges of two stacks have half of the shorter one in common."""
    shared = min(one.max(), two.max()) - max(one.min(), two.min())
    return bool(shared >= 0.5 * min(np.ptp(one), np.ptp(two)))
