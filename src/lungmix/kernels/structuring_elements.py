"""Structuring elements whose membership is a sum of one cost per axis.

Balls, ellipsoids and diamonds all have the form ``cost_z[|i|] + cost_y[|j|] + cost_x[|k|] <= limit``. That makes a
dilation a minimum along each axis in turn instead of a search through every offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, lcm

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError

_LARGEST_EXACT_COST = 20_000


@dataclass(frozen=True, eq=False)
class Element:
    """A symmetric structuring element.

    Attributes
    ----------
    costs : tuple of ndarray
        Cost of an offset of 0, 1, 2 ... voxels along z, y, x; its length is the extent on that axis plus one. All
        three share one dtype, uint16 where whole numbers represent the element exactly, float64 otherwise.
    limit : int or float
        Offsets whose three costs add up to at most this belong to the element.
    """

    costs: tuple[npt.NDArray[np.generic], npt.NDArray[np.generic], npt.NDArray[np.generic]]
    limit: float

    @property
    def extent(self) -> tuple[int, int, int]:
        """Largest offset on the axes z, y, x, in voxels."""
        z, y, x = (len(cost) - 1 for cost in self.costs)
        return z, y, x

    @property
    def is_point(self) -> bool:
        """True where the element holds only the zero offset, so that it changes no mask."""
        return self.extent == (0, 0, 0)

    def offsets(self) -> npt.NDArray[np.bool_]:
        """Return the element as a boolean array of odd shape with its centre in the middle."""
        z, y, x = (np.concatenate([cost[:0:-1], cost]).astype(np.float64) for cost in self.costs)
        return np.asarray(z[:, None, None] + (y[:, None] + x) <= self.limit)

    def rows(self) -> npt.NDArray[np.int64]:
        """Return the largest offset along x for each offset along z and y, in ascending order; -1 if there is none."""
        inside = self.offsets()
        return inside.sum(axis=2, dtype=np.int64) // 2 - ~inside.any(axis=2)

    def planes_left(self) -> npt.NDArray[np.uint8]:
        """Return one more than the largest offset along z, by the cost along y and x; 0 above the limit.

        Empty unless costs are whole numbers.
        """
        if self.costs[0].dtype != np.uint16:
            return np.zeros(0, np.uint8)
        spent = np.arange(int(self.limit) + 2)
        left = np.searchsorted(self.costs[0].astype(np.int64), int(self.limit) - spent, side="right")
        return left.astype(np.uint8)


def ball(radius: int) -> Element:
    """Return the ball of ITK: the offsets with ``i² + j² + k² <= (radius + 0.5)²``.

    Parameters
    ----------
    radius : int
        In voxels, 0 to 140.

    Raises
    ------
    UsageError
        If the radius is out of range.
    """
    if not 0 <= radius <= 140:
        raise UsageError(f"a ball of radius {radius} voxels is not possible: give a radius from 0 to 140")
    cost = np.arange(radius + 1, dtype=np.uint16) ** np.uint16(2)
    return Element((cost, cost, cost), radius * radius + radius)


def diamond(extent: Sequence[int]) -> Element:
    """Return the diamond ``|i|/nz + |j|/ny + |k|/nx <= 1``, flat on every axis whose extent is 0.

    Parameters
    ----------
    extent : sequence of int
        ``nz, ny, nx`` in voxels. ``(3, 3, 3)`` is three iterations of the 6-connected cross.
    """
    limit = lcm(*(max(n, 1) for n in extent))
    if limit > _LARGEST_EXACT_COST or min(extent) < 0:
        raise UsageError(f"an opening of {tuple(extent)} voxels is not possible: give small whole numbers")
    z, y, x = (np.arange(n + 1, dtype=np.uint16) * np.uint16(limit // max(n, 1)) for n in extent)
    return Element((z, y, x), limit)


def ellipsoid(radius_mm: float, spacing_zyx: Sequence[float]) -> Element:
    """Return the ellipsoid of offsets whose length is at most ``radius_mm`` plus 1e-6 mm.

    Parameters
    ----------
    radius_mm : float
        Millimetres.
    spacing_zyx : sequence of float
        Voxel spacing along z, y, x in mm.
    """
    radius = radius_mm + 1e-6
    extent = [floor(radius / s) for s in spacing_zyx]
    if max(extent) > 140:
        raise UsageError(
            f"a radius of {radius_mm} mm is {max(extent)} voxels, more than 140: check the spacing of the "
            "scan, or give a smaller radius"
        )
    squares = [(np.arange(n + 1) * s) ** 2 for n, s in zip(extent, spacing_zyx, strict=True)]
    z, y, x = squares
    inside = np.sqrt(z[:, None, None] + y[:, None] + x) <= radius
    exact = _whole_costs(squares, inside, radius * radius)
    if exact is not None:
        return exact
    return Element((z, y, x), float((z[:, None, None] + (y[:, None] + x))[inside].max()))


def _whole_costs(
    squares: list[npt.NDArray[np.floating]], inside: npt.NDArray[np.bool_], limit: float
) -> Element | None:
    """Return the element with uint16 costs, four times as fast, if some scale represents every offset exactly."""
    for target in range(_LARGEST_EXACT_COST, 1_000, -251):
        z, y, x = (np.rint(s * (target / limit)).astype(np.uint16) for s in squares)
        total = z[:, None, None].astype(np.int64) + y[:, None] + x
        limit_cost = int(total[inside].max())
        if np.array_equal(total <= limit_cost, inside):
            return Element((z, y, x), limit_cost)
    return None
