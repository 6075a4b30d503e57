"""Which lung a voxel of the mask belongs to: decided on a reduced copy, looked up at full size.

The closing of a mask can join both lungs and take in what lies between them. The parts are told apart so:

1. trachea and main bronchi are found and taken out of the air;
2. where the mask is joined, the air is eroded step by step until two large parts lie beside each other; they grow back
   through the air, and a voxel goes to the part from which the way is shorter;
3. each lung is closed by itself, by the elements of the mask. What neither closing reaches is there only because both
   lungs were closed together: it lies between the lungs and belongs to neither;
4. an island of the mask that lies beside the lungs, such as a hollow table, belongs to neither; one that lies in a row
   with them, such as a lobe cut off by dense tissue, belongs to the nearer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.airway import cranial_axis, find_airway
from lungmix.kernels.geodesic import chamfer_distance, flood, geodesic_assign
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.jit import kernel
from lungmix.kernels.morphology import closing, dilate
from lungmix.kernels.packed_masks import pack, unpack
from lungmix.kernels.structuring_elements import Element, ellipsoid
from lungmix.tissue import AIRWAY, ELSEWHERE, LEFT, RIGHT, SIDES

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SMALLER_LUNG = 0.1
"""A second lung has at least this share of the voxels of the first."""

PAIR = 0.6
"""Both lungs together have at least this share of all parts."""

APART_MM = 40.0
"""Centres of two lungs are at least this far apart, and farther from right to left than otherwise."""

LARGEST_NECK_MM = 25.0
"""Half width of the widest neck that is cut."""

SMALLEST_CORE = 0.02
"""Erosion goes on while the largest part has at least this share of the air."""

SEAL_MM = 5.0
"""Closing that seals bronchi, vessels and dense tissue inside a lung; on coarse grids, 1.5 voxels."""

SEALS = (1, 2)
"""Multiples of it that are tried in turn before the air is eroded."""

VALLEY = 0.5
"""Where erosion finds no two lungs, a sagittal section that holds at most this share of the largest sections on both of
its sides cuts them."""


ISLAND_INSIDE = 0.5
"""An island has at least this share of its voxels in the axial box of the lungs, or it is no part of them."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """A scan at a few millimetres.

    Attributes
    ----------
    lung, air : ndarray of bool, shape (z, y, x)
        Mask and air at every ``factors``-th voxel.
    hu : ndarray of int16, same shape
        Mean HU about these voxels.
    factors : tuple of int
        Voxels in one step along z, y, x.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the way in LPS, in mm, of one step along array axis ``j``.
    """

    lung: Mask
    air: Mask
    hu: npt.NDArray[np.int16]
    factors: tuple[int, int, int]
    steps: npt.NDArray[np.float64]

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Length of a step, mm."""
        z, y, x = (float(length) for length in np.linalg.norm(self.steps, axis=0))
        return z, y, x


def find_sides(reduced: Reduced, closings: Sequence[Element]) -> Labels:
    """Side of every reduced voxel.

    Parameters
    ----------
    reduced : Reduced
        A scan with some lung.
    closings : sequence of Element
        Of the mask, in voxels of the full scan.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.SIDES`; outside the mask too, where it is the label of a near voxel of the mask.
    """
    if not reduced.lung.any():
        return _by_position(reduced)
    airway = find_airway(reduced.hu, reduced.lung, reduced.steps)
    box = _box(reduced.lung)
    lung, steps, spacing = reduced.lung[box], reduced.steps, reduced.spacing_zyx
    gas = reduced.air[box] & lung & ~airway.tube[box] & ~airway.branches[box]
    sealed = _closed(gas, ellipsoid(_seal_mm(spacing), spacing)) & lung & ~airway.tube[box]
    # Lumen that is sealed in by lung runs inside it.
    outside = (airway.tube[box] | airway.branches[box]) & ~sealed
    # Its rim mixes gas and wall, so that it does not look like lumen.
    lumen = ndimage.binary_dilation(outside) & reduced.air[box] & lung
    gas &= ~lumen
    parts = _two_parts(lung, steps)[0]
    if parts is None or lumen.any():
        parts = _split(gas, lung & ~lumen, steps, spacing)
        if parts is None:
            parts = _one_lung(lung & ~lumen, reduced, box)
        parts = _own_closings(parts, gas, lumen, lung, [_thinned(e, reduced.factors) for e in closings])
    parts[lumen] = AIRWAY.label
    _set_islands_apart(parts, lung, cranial_axis(steps))
    out = np.zeros(reduced.lung.shape, np.uint8)
    out[box] = np.where(lung, parts, 0)
    if not out.any():
        return _by_position(reduced)
    # A voxel of the full mask is at most half a step from a reduced one, so one step about the box is enough.
    around = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    filled = np.ascontiguousarray(out[around])
    flood(filled)
    out[around] = filled
    return out


def side_counts(
    hu: npt.NDArray[np.int16], lung: Labels, small: Labels, rows: Sequence[npt.NDArray[np.int64]]
) -> tuple[Labels, npt.NDArray[np.uint64]]:
    """Sides of a slab and its counts per HU by side.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        HU.
    lung : ndarray of uint8, same shape
        Mask.
    small : ndarray of uint8
        Answer of `find_sides`.
    rows : sequence of 3 ndarray of int64
        For each index along z, y, x the index in `small`.

    Returns
    -------
    labels : ndarray of uint8, shape (z, y, x)
        0 outside the mask.
    counts : ndarray of uint64, shape (4, 65536)
        Voxels of each of `lungmix.tissue.SIDES` by HU, from -32768 on.
    """
    labels = np.zeros(hu.shape, np.uint8)
    counts = np.zeros((len(SIDES), N_HU), np.uint64)
    z, y, x = rows
    _look_up(hu, lung, small, z, y, x, labels, counts)
    return labels, counts


def nearest_rows(start: int, stop: int, factor: int, size: int) -> npt.NDArray[np.int64]:
    """Index of the nearest of every ``factor``-th voxel, for the voxels from `start` to `stop`; the upper of two."""
    return np.minimum((np.arange(start, stop) + factor // 2) // factor, size - 1)


def _box(mask: Mask) -> tuple[slice, slice, slice]:
    z, y, x = ndimage.find_objects(mask.view(np.uint8))[0]
    return z, y, x


def _seal_mm(spacing: tuple[float, float, float]) -> float:
    return max(SEAL_MM, 1.5 * max(spacing))


def _largest_island(mask: Mask) -> Mask:
    islands, _ = ndimage.label(mask)
    sizes = np.bincount(islands.reshape(-1))
    sizes[0] = 0
    return np.asarray(mask & (islands == sizes.argmax()))


def _closed(mask: Mask, element: Element) -> Mask:
    nx = mask.shape[2]
    return unpack(closing(pack(mask.view(np.uint8)), nx, element), nx).view(np.bool_)


def _thinned(element: Element, factors: tuple[int, int, int]) -> Element:
    """The offsets of an element that are whole steps."""
    z, y, x = (np.ascontiguousarray(cost[::factor]) for cost, factor in zip(element.costs, factors, strict=True))
    return Element((z, y, x), element.limit)


def _two_parts(mask: Mask, steps: npt.NDArray[np.float64]) -> tuple[Labels | None, int]:
    """The two largest parts that lie beside each other, right and left, and the size of the largest part."""
    parts, n = ndimage.label(mask)
    sizes = np.bincount(parts.reshape(-1), minlength=n + 1)
    sizes[0] = 0
    first = int(sizes.argmax())
    if not n:
        return None, 0
    large = [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i] >= max(SMALLER_LUNG * sizes[first], 1)]
    centres = {i: steps @ np.asarray(c) for i, c in zip(large, ndimage.center_of_mass(mask, parts, large), strict=True)}
    for second in large[1:]:
        way = np.abs(centres[second] - centres[first])
        most = sizes[first] + sizes[second] >= PAIR * sizes.sum()
        if most and way[0] >= max(APART_MM, way[1], way[2]):
            labels = np.zeros(mask.shape, np.uint8)
            right, left = sorted((first, second), key=lambda i: float(centres[i][0]))
            labels[parts == right], labels[parts == left] = RIGHT.label, LEFT.label
            return labels, int(sizes[first])
    return None, int(sizes[first])


def _split(gas: Mask, lung: Mask, steps: npt.NDArray[np.float64], spacing: tuple[float, float, float]) -> Labels | None:
    """Cut a joined pair of lungs at its neck; None if there is but one lung."""
    step, whole = min(spacing), int(gas.sum())
    for seal in SEALS:
        sealed = _closed(gas, ellipsoid(seal * _seal_mm(spacing), spacing)) & lung
        depth = chamfer_distance(sealed, spacing)
        for n in range(int(LARGEST_NECK_MM / step) + 1):
            labels, largest = _two_parts(depth > n * step, steps)
            if labels is not None:
                geodesic_assign(labels, sealed, spacing)
                return labels
            if largest < SMALLEST_CORE * whole:
                # Crumbled: a denser seal may hold it together.
                break
    labels = _cut_at_valley(gas & _largest_island(sealed), steps)
    if labels is not None:
        geodesic_assign(labels, sealed, spacing)
    return labels


def _cut_at_valley(gas: Mask, steps: npt.NDArray[np.float64]) -> Labels | None:
    """Cut at the thinnest section between two thick ones, from right to left; None where there is none.

    Sections are sagittal, or along the array where the patient lies aslant as the array does.
    """
    along = np.abs(steps[0]) / np.linalg.norm(steps, axis=0)
    own = np.where(np.arange(3) == along.argmax(), np.sign(steps[0]), 0.0)
    best, deepest = None, 1 - VALLEY
    for way in (steps[0] / np.abs(steps[0]).max(), own):
        z, y, x = (way[axis] * np.arange(n) for axis, n in enumerate(gas.shape))
        at = z[:, None, None] + (y[:, None] + x)
        section = np.floor(at - at.min() + 0.5).astype(np.int64)
        area = np.bincount(section[gas]).astype(np.float64)
        lower = np.minimum(np.maximum.accumulate(area), np.maximum.accumulate(area[::-1])[::-1])
        valley = int((lower - area).argmax())
        volumes = area[:valley].sum(), area[valley + 1 :].sum()
        depth = 1 - area[valley] / max(lower[valley], 1)
        if depth > deepest and min(volumes) >= SMALLER_LUNG * max(volumes):
            best, deepest = np.where(section < valley, np.uint8(RIGHT.label), np.uint8(LEFT.label)), depth
            best[~gas | (section == valley)] = 0
    return best


def _one_lung(lung: Mask, reduced: Reduced, box: tuple[slice, slice, slice]) -> Labels:
    """All of a mask as the lung of the side of the body on which it lies."""
    steps = reduced.steps
    corner = [part.start for part in box]
    centre = steps @ (np.asarray(ndimage.center_of_mass(lung)) + corner) if lung.any() else np.zeros(3)
    body = steps @ np.asarray(ndimage.center_of_mass(reduced.hu[box[0]] > -200)) + steps[:, 0] * corner[0]
    side = LEFT if centre[0] > body[0] else RIGHT
    return np.where(_largest_island(lung), np.uint8(side.label), np.uint8(0))


def _own_closings(labels: Labels, gas: Mask, lumen: Mask, lung: Mask, closings: Sequence[Element]) -> Labels:
    """Close each lung by itself; what neither reaches lies between them."""
    reached, near = [], []
    for part in ((labels == RIGHT.label) & gas, (labels == LEFT.label) & gas, lumen):
        closed = pack(part.view(np.uint8))
        for element in closings:
            closed = closing(closed, lung.shape[2], element)
        reached.append(unpack(closed, lung.shape[2]) > 0)
        near.append(_near(part, closings))
    right, left, _ = reached
    out = np.zeros(labels.shape, np.uint8)
    out[right & ~left & lung] = RIGHT.label
    out[left & ~right & lung] = LEFT.label
    # Where both closings reach, the lung that is nearer has it: a flood will say which. What they miss far from
    # all but one part is rounding of the reduced elements.
    out[lung & ~right & ~left & (near[0] + near[1] + near[2] > 1)] = ELSEWHERE.label
    return out


def _near(part: Mask, closings: Sequence[Element]) -> Labels:
    """Where a closing could join a part to another; on every second voxel, for it need not be exact."""
    coarse = pack(part[::2, ::2, ::2].view(np.uint8))
    nx = -(-part.shape[2] // 2)
    for element in sorted(closings, key=lambda e: e.extent)[-1:] * 2:
        coarse = dilate(coarse, nx, _thinned(element, (2, 2, 2)))
    near = unpack(coarse, nx)
    for axis, n in enumerate(part.shape):
        near = np.take(near, np.arange(n) // 2, axis=axis)
    return near


def _set_islands_apart(parts: Labels, lung: Mask, axis: int) -> None:
    """Mark the islands that lie outside the box of both lungs in the axial plane."""
    both = (parts == RIGHT.label) | (parts == LEFT.label)
    if not both.any():
        return
    box = list(_box(both))
    box[axis] = slice(None)
    islands, n = ndimage.label(lung)
    whole = np.bincount(islands.reshape(-1), minlength=n + 1)
    inside = np.bincount(islands[tuple(box)].reshape(-1), minlength=n + 1)
    apart = inside < ISLAND_INSIDE * whole
    apart[islands[both]] = False
    apart[0] = False
    parts[apart[islands]] = ELSEWHERE.label


def _by_position(reduced: Reduced) -> Labels:
    """Sides of the halves of the scan: for masks of a few voxels, too small to be seen on the reduced copy."""
    coordinate = np.zeros(reduced.lung.shape)
    for axis, n in enumerate(reduced.lung.shape):
        shape = [1, 1, 1]
        shape[axis] = n
        coordinate = coordinate + (reduced.steps[0, axis] * (np.arange(n) - (n - 1) / 2)).reshape(shape)
    return np.where(coordinate > 0, np.uint8(LEFT.label), np.uint8(RIGHT.label))


@kernel()
def _look_up(hu, lung, small, rows_z, rows_y, rows_x, labels, counts):  # type: ignore[no-untyped-def]
    for z in range(hu.shape[0]):
        for y in range(hu.shape[1]):
            of_row = small[rows_z[z], rows_y[y]]
            for x in range(hu.shape[2]):
                if lung[z, y, x]:
                    side = of_row[rows_x[x]]
                    labels[z, y, x] = side
                    if side:
                        counts[np.int64(side) - 1, np.int64(hu[z, y, x]) + 32768] += np.uint64(1)
