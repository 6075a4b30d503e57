"""Structuring elements that are defined by one cost per axis: balls, ellipsoids and diamonds.

An offset ``(i, j, k)`` along z, y, x belongs to an element if ``cost_z[|i|] + cost_y[|j|] + cost_x[|k|] <= limit``. So
a dilation needs only a minimum along each axis in turn, instead of a search through all offsets.
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
        For each of the axes z, y, x, an array with the costs of offsets of 0, 1, 2 ... voxels, up to the extent of the
        element. All three arrays are uint16 if whole numbers represent the element exactly, and float64 otherwise.
    limit : int or float
        Largest sum of the three costs of an offset that belongs to the element.
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
        """True if the element holds only the zero offset, so that it changes no mask."""
        return self.extent == (0, 0, 0)

    def offsets(self) -> npt.NDArray[np.bool_]:
        """Return the element as a boolean array of odd shape with its centre in the middle."""
        z, y, x = (np.concatenate([cost[:0:-1], cost]).astype(np.float64) for cost in self.costs)
        return np.asarray(z[:, None, None] + (y[:, None] + x) <= self.limit)

    def rows(self) -> npt.NDArray[np.int64]:
        """Return, for each offset along z and along y in ascending order, the largest offset along x; -1 if none."""
        inside = self.offsets()
        return inside.sum(axis=2, dtype=np.int64) // 2 - ~inside.any(axis=2)

    def planes_left(self) -> npt.NDArray[np.uint8]:
        """Return, for each sum of the costs along y and x, how many offsets 0, 1, 2 ... along z the limit still allows.

        The array is empty unless costs are whole numbers.
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
        Radius in voxels, 0 to 140.

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
        ``nz, ny, nx`` in voxels. A dilation by ``(3, 3, 3)`` equals three dilations by a voxel with its 6 face
        neighbours.
    """
    limit = lcm(*(max(n, 1) for n in extent))
    if limit > _LARGEST_EXACT_COST or min(extent) < 0:
        raise UsageError(
            f"an opening of {tuple(extent)} voxels is not possible: give whole numbers of 0 or more, with a least "
            f"common multiple of at most {_LARGEST_EXACT_COST:,}"
        )
    z, y, x = (np.arange(n + 1, dtype=np.uint16) * np.uint16(limit // max(n, 1)) for n in extent)
    return Element((z, y, x), limit)


def ellipsoid(radius_mm: float, spacing_zyx: Sequence[float]) -> Element:
    """Return the ellipsoid of offsets whose length is at most ``radius_mm`` plus 1e-6 mm.

    Parameters
    ----------
    radius_mm : float
        Radius in mm.
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
    """Return the element with uint16 costs, which is four times as fast; None if no scaling keeps its exact offsets."""
    for target in range(_LARGEST_EXACT_COST, 1_000, -251):
        z, y, x = (np.rint(s * (target / limit)).astype(np.uint16) for s in squares)
        total = z[:, None, None].astype(np.int64) + y[:, None] + x
        limit_cost = int(total[inside].max())
        if np.array_equal(total <= limit_cost, inside):
            return Element((z, y, x), limit_cost)
    return None
