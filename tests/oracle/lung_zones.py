"""Lung zones of a whole volume, voxel by voxel from their definition."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy import ndimage

from lungmix.kernels.reduction import reduction_of
from lungmix.tissue import LUNG_ZONES, LUNGS


def zones_of(sides: np.ndarray, spacing, by: str) -> np.ndarray:
    """Return the zone of each voxel of an axial array of regions, uint8."""
    zones = np.zeros(sides.shape, np.uint8)
    is_core = is_core_of(sides, spacing)
    for lung in LUNGS:
        inside = sides == lung.label
        cut = np.isin(sides, [each.label for each in LUNGS]) if by == "volume-common" else inside
        thirds = parts_along(cut, 0, 3, by)
        halves = parts_along(cut, 1, 2, by)
        for z, y, x in np.argwhere(inside):
            third = ("lower", "middle", "upper")[thirds[z]]
            half = ("ventral", "dorsal")[halves[y]]
            depth = "core" if is_core[z, y, x] else "peel"
            zones[z, y, x] = LABELS[lung.key, third, half, depth]
    return zones


LABELS = {(zone.side.key, zone.third.key, zone.half.key, zone.depth.key): zone.label for zone in LUNG_ZONES}


def parts_along(inside: np.ndarray, axis: int, parts: int, by: str) -> list[int]:
    """Return the number of the part of each plane along an axis, by exact fractions."""
    planes = np.moveaxis(inside, axis, 0)
    shares = [int(np.count_nonzero(plane)) for plane in planes]
    if by == "height":
        used = [i for i, share in enumerate(shares) if share]
        shares = [int(bool(used) and used[0] <= i <= used[-1]) for i in range(len(shares))]
    numbers, below = [], 0
    for share in shares:
        position = (below + Fraction(share, 2)) / max(sum(shares), 1)
        numbers.append(min(int(position * parts), parts - 1))
        below += share
    return numbers


def is_core_of(sides: np.ndarray, spacing) -> np.ndarray:
    """Return which voxels of the lungs are core: those whose nearest reduced voxel is deep in the same lung."""
    factors = reduction_of(spacing).factors
    reduced = sides[tuple(slice(None, None, factor) for factor in factors)]
    steps = np.array([factor * s for factor, s in zip(factors, spacing, strict=True)])
    deep = {lung.label: depths_of(reduced == lung.label, steps) >= 20 for lung in LUNGS}
    nearest = [
        [min(int(Fraction(i, factor) + Fraction(1, 2)), n - 1) for i in range(size)]
        for size, factor, n in zip(sides.shape, factors, reduced.shape, strict=True)
    ]
    core = np.zeros(sides.shape, bool)
    for lung in LUNGS:
        # A hole of one lung may contain voxels of the other one, which are no core of it.
        other = np.isin(reduced, [each.label for each in LUNGS if each != lung])
        core |= (deep[lung.label] & ~other)[np.ix_(*nearest)] & (sides == lung.label)
    return core


def depths_of(inside: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel from the surface of a mask, mm, by comparison with all voxels outside."""
    rest, n = ndimage.label(~inside)
    border = np.ones(inside.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    outside = np.isin(rest, [i for i in range(1, n + 1) if border[rest == i].any()])
    depths = np.where(outside, 0.0, np.inf)
    # The nearest voxel outside has a face in common with a voxel that is not outside.
    others = np.argwhere(outside & ndimage.binary_dilation(~outside))
    if len(others):
        for voxel in np.argwhere(~outside):
            squares = ((others - voxel) * steps) ** 2
            nearest = np.sqrt((squares[:, 0] + squares[:, 1] + squares[:, 2]).min())
            depths[tuple(voxel)] = nearest - float(np.prod(steps)) ** (1 / 3) / 2
    return depths
