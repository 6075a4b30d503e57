"""Regions of a mask: right lung, left lung, airway, and elsewhere.

They are computed on a reduced copy of the scan; a voxel of the full scan has the region of the nearest reduced voxel.
The closing of a mask can join both lungs and include tissue between them. The regions are separated in four steps:

1. Find trachea and main bronchi and remove them from the air.
2. If the lungs are joined, erode the air step by step until it has two large components side by side. Grow them back
   through the air; each voxel is assigned to the component with the shorter path.
3. Close each lung separately, with the structuring elements that the mask was closed with. Voxels that neither closing
   covers are in the mask only because the lungs were closed together: they belong to neither lung.
4. A separate component of the mask, such as a hollow table, belongs to neither lung. If at least half of it lies within
   the bounding box of the lungs in the axial plane, such as a lobe that dense tissue cuts off, it belongs to the nearer
   lung.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.airway import axial_steps, cranial_axis, find_airway
from lungmix.kernels.geodesic import chamfer_distance, flood, geodesic_assign
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.jit import kernel
from lungmix.kernels.morphology import closing, dilate
from lungmix.kernels.packed_masks import pack, unpack
from lungmix.kernels.rejected_components import largest_component
from lungmix.kernels.structuring_elements import Element, ellipsoid
from lungmix.tissue import AIRWAY, ELSEWHERE, LEFT, RIGHT, SIDES

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SMALLER_LUNG = 0.1
"""Smallest size of the smaller lung, as a share of the voxels of the larger one."""

PAIR = 0.6
"""Two components are the two lungs only if they have at least this share of the voxels of all components."""

APART_MM = 40.0
"""Smallest distance from right to left between the centres of two lungs, mm. It must also be at least as large as the
distances of the centres along the other two axes."""

LARGEST_NECK_MM = 25.0
"""Half the width, mm, of the widest connection between two lungs that erosion cuts."""

SMALLEST_CORE = 0.02
"""Erosion stops when the largest remaining component has less than this share of the voxels of air."""

SEAL_MM = 5.0
"""Radius, mm, of the closing that fills bronchi, vessels and dense tissue inside a lung; at least 1.5 voxels."""

SEALS = (1, 2)
"""Multiples of `SEAL_MM`, tried in turn: if erosion cannot separate the lungs after a closing by the first multiple,
the closing is repeated with the next one."""

VALLEY = 0.5
"""If erosion does not separate the lungs, they are cut at a sagittal section. Its area is at most this share of the
largest section to its right, and of the largest section to its left."""

COMPONENT_INSIDE = 0.5
"""A separate component of the mask belongs to the lungs if at least this share of its voxels lies within the bounding
box of the lungs in the axial plane, at any height."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """Reduced copy of a scan, with voxels a few millimetres wide.

    Attributes
    ----------
    lung, air : ndarray of bool, shape (z, y, x)
        Mask of the lungs, and mask of air, at every ``factors``-th voxel of the full scan.
    hu : ndarray of int16, same shape
        Mean HU of the block of voxels at each of these voxels.
    factors : tuple of int
        Number of voxels of the full scan in one step along z, y, x.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the vector in LPS, in mm, of one step along array axis ``j``.
    """

    lung: Mask
    air: Mask
    hu: npt.NDArray[np.int16]
    factors: tuple[int, int, int]
    steps: npt.NDArray[np.float64]

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Length of one step along z, y, x, mm."""
        z, y, x = (float(length) for length in np.linalg.norm(self.steps, axis=0))
        return z, y, x


def find_regions(reduced: Reduced, closings: Sequence[Element]) -> Labels:
    """Return the region of every reduced voxel.

    Parameters
    ----------
    reduced : Reduced
        Reduced copy of the scan.
    closings : sequence of Element
        Structuring elements that the mask was closed with, in voxels of the full scan.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.SIDES`; voxels outside the mask have the label of a nearby voxel of the mask.
    """
    if not reduced.lung.any():
        return _by_position(reduced)
    airway = find_airway(reduced.hu, reduced.lung, reduced.steps)
    box = _box(reduced.lung)
    lung, steps, spacing = reduced.lung[box], reduced.steps, reduced.spacing_zyx
    gas = reduced.air[box] & lung & ~airway.tube[box] & ~airway.branches[box]
    sealed = _closed(gas, ellipsoid(_seal_mm(spacing), spacing)) & lung & ~airway.tube[box]
    # Lumen inside the closed lung belongs to the lung.
    outside = (airway.tube[box] | airway.branches[box]) & ~sealed
    # Voxels at the rim mix lumen and wall, so that their HU are too high for a lumen: add them.
    lumen = ndimage.binary_dilation(outside) & reduced.air[box] & lung
    gas &= ~lumen
    parts = _two_parts(lung, steps)[0]
    if parts is None or lumen.any():
        parts = _split(gas, lung & ~lumen, steps, spacing)
        if parts is None:
            parts = _one_lung(lung & ~lumen, reduced, box)
        parts = _close_separately(parts, gas, lumen, lung, [_thinned(e, reduced.factors) for e in closings])
    parts[lumen] = AIRWAY.label
    _mark_separate_components(parts, lung, cranial_axis(steps))
    out = np.zeros(reduced.lung.shape, np.uint8)
    out[box] = np.where(lung, parts, 0)
    if not out.any():
        return _by_position(reduced)
    # A voxel of the full mask is at most half a step from a reduced one, so a margin of one step is enough.
    around = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    filled = np.ascontiguousarray(out[around])
    flood(filled)
    out[around] = filled
    return out


def separate_lungs(gas: Mask, hu: npt.NDArray[np.int16], spacing: Sequence[float]) -> Labels:
    """Return which lung each voxel of air belongs to.

    Parameters
    ----------
    gas : ndarray of bool, shape (z, y, x)
        Air of the lungs without the airway, of an axial array: z runs to the head, y to the back, x to the left.
    hu : ndarray of int16, same shape
        HU. If there is only one lung, they are used to find the middle of the body.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of uint8, same shape
        1 right lung, 2 left lung, 0 outside `gas`. If there are two lungs, small separate components are 0 as well.
    """
    steps = axial_steps(spacing)
    z, y, x = spacing
    parts = _two_parts(gas, steps)[0]
    if parts is None:
        parts = _split(gas, np.ones_like(gas), steps, (z, y, x))
    if parts is None:
        body = ndimage.center_of_mass(hu[gas.any(axis=(1, 2))] > -200)
        side = LEFT if ndimage.center_of_mass(gas)[2] > body[2] else RIGHT
        parts = np.full(gas.shape, side.label, np.uint8)
    return np.where(gas, parts, np.uint8(0))


def region_counts(
    hu: npt.NDArray[np.int16],
    lung: Labels,
    small: Labels,
    rows: Sequence[npt.NDArray[np.int64]],
    first_row: int = 0,
) -> tuple[Labels, npt.NDArray[np.uint64]]:
    """Return the regions of a slab and a histogram per region.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        HU.
    lung : ndarray of uint8, shape (z, rows, x)
        Mask, which may have more rows than `hu`.
    small : ndarray of uint8
        Result of `find_regions`.
    rows : sequence of 3 ndarray of int64
        For each of the axes z, y, x, the index in `small` of each index of `hu`.
    first_row : int
        Row of `lung` that is row 0 of `hu`.

    Returns
    -------
    labels : ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.SIDES`; 0 outside the mask.
    counts : ndarray of uint64, shape (4, 65536)
        Histogram of each region in `lungmix.tissue.SIDES`, from -32768 HU on.
    """
    labels = np.zeros(hu.shape, np.uint8)
    counts = np.zeros((len(SIDES), N_HU), np.uint64)
    z, y, x = rows
    _look_up(hu, lung, first_row, small, z, y, x, labels, counts)
    return labels, counts


def nearest_rows(start: int, stop: int, factor: int, size: int) -> npt.NDArray[np.int64]:
    """Return the index of the nearest reduced voxel for voxels `start` to ``stop - 1`` along one axis.

    A voxel halfway between two reduced voxels gets the higher index.
    """
    return np.minimum((np.arange(start, stop) + factor // 2) // factor, size - 1)


def _box(mask: Mask) -> tuple[slice, slice, slice]:
    z, y, x = ndimage.find_objects(mask.view(np.uint8))[0]
    return z, y, x


def _seal_mm(spacing: tuple[float, float, float]) -> float:
    return max(SEAL_MM, 1.5 * max(spacing))


def _closed(mask: Mask, element: Element) -> Mask:
    nx = mask.shape[2]
    return unpack(closing(pack(mask.view(np.uint8)), nx, element), nx).view(np.bool_)


def _thinned(element: Element, factors: tuple[int, int, int]) -> Element:
    """Return an element for the reduced grid: the offsets of an element that are whole steps of this grid."""
    z, y, x = (np.ascontiguousarray(cost[::factor]) for cost, factor in zip(element.costs, factors, strict=True))
    return Element((z, y, x), element.limit)


def _centre(mask: Mask) -> npt.NDArray[np.float64]:
    """Return the mean index of the voxels of a mask along each axis, rounded as by `scipy.ndimage.center_of_mass`."""
    sections = (mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3))
    return np.array([section @ np.arange(len(section)) for section in sections], np.float64) / np.count_nonzero(mask)


def _two_parts(mask: Mask, steps: npt.NDArray[np.float64]) -> tuple[Labels | None, int]:
    """Return a label map of two components that lie side by side as lungs do, and the size of the largest component.

    The label map is None if no two components do.
    """
    parts, n = ndimage.label(mask)
    sizes = np.bincount(parts.reshape(-1), minlength=n + 1)
    sizes[0] = 0
    first = int(sizes.argmax())
    if not n:
        return None, 0
    large = [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i] >= max(SMALLER_LUNG * sizes[first], 1)]
    centres = {i: steps @ _centre(parts == i) for i in large} if len(large) > 1 else {}
    for second in large[1:]:
        offset = np.abs(centres[second] - centres[first])
        is_pair = sizes[first] + sizes[second] >= PAIR * sizes.sum()
        if is_pair and offset[0] >= max(APART_MM, offset[1], offset[2]):
            labels = np.zeros(mask.shape, np.uint8)
            right, left = sorted((first, second), key=lambda i: float(centres[i][0]))
            labels[parts == right], labels[parts == left] = RIGHT.label, LEFT.label
            return labels, int(sizes[first])
    return None, int(sizes[first])


def _split(gas: Mask, lung: Mask, steps: npt.NDArray[np.float64], spacing: tuple[float, float, float]) -> Labels | None:
    """Return the right and left lung of two joined lungs, cut where they are joined; None if there is only one lung."""
    step, volume = min(spacing), int(gas.sum())
    for seal in SEALS:
        sealed = _closed(gas, ellipsoid(seal * _seal_mm(spacing), spacing)) & lung
        depth = chamfer_distance(sealed, spacing)
        for n in range(int(LARGEST_NECK_MM / step) + 1):
            labels, largest = _two_parts(depth > n * step, steps)
            if labels is not None:
                geodesic_assign(labels, sealed, spacing)
                return labels
            if largest < SMALLEST_CORE * volume:
                # Erosion has left only small pieces: try a larger closing.
                break
    labels = _cut_at_valley(gas & largest_component(sealed), steps)
    if labels is not None:
        geodesic_assign(labels, sealed, spacing)
    return labels


def _cut_at_valley(gas: Mask, steps: npt.NDArray[np.float64]) -> Labels | None:
    """Return right and left lung, cut at the smallest sagittal section between two large ones; None if there is none.

    Sections across the array axis nearest to right-left are tried too, for patients in an oblique position.
    """
    along = np.abs(steps[0]) / np.linalg.norm(steps, axis=0)
    array_axis = np.where(np.arange(3) == along.argmax(), np.sign(steps[0]), 0.0)
    best, deepest = None, 1 - VALLEY
    for normal in (steps[0] / np.abs(steps[0]).max(), array_axis):
        z, y, x = (normal[axis] * np.arange(n) for axis, n in enumerate(gas.shape))
        position = z[:, None, None] + (y[:, None] + x)
        section = np.floor(position - position.min() + 0.5).astype(np.int64)
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
    """Return a label map of the largest component as right or left lung, depending on its position in the body."""
    steps = reduced.steps
    corner = [part.start for part in box]
    centre = steps @ (np.asarray(ndimage.center_of_mass(lung)) + corner) if lung.any() else np.zeros(3)
    body = steps @ np.asarray(ndimage.center_of_mass(reduced.hu[box[0]] > -200)) + steps[:, 0] * corner[0]
    side = LEFT if centre[0] > body[0] else RIGHT
    return np.where(largest_component(lung), np.uint8(side.label), np.uint8(0))


def _close_separately(labels: Labels, gas: Mask, lumen: Mask, lung: Mask, closings: Sequence[Element]) -> Labels:
    """Return right lung, left lung and elsewhere after closing each lung separately.

    Voxels that neither closing covers are elsewhere.
    """
    covered, near = [], []
    for part in ((labels == RIGHT.label) & gas, (labels == LEFT.label) & gas, lumen):
        closed = pack(part.view(np.uint8))
        for element in closings:
            closed = closing(closed, lung.shape[2], element)
        covered.append(unpack(closed, lung.shape[2]) > 0)
        near.append(_near(part, closings))
    right, left, _ = covered
    out = np.zeros(labels.shape, np.uint8)
    out[right & ~left & lung] = RIGHT.label
    out[left & ~right & lung] = LEFT.label
    # Voxels that both closings cover get the label of the nearer lung later, by a flood. So do voxels that no closing
    # covers if they are near one part only: they are missed because reduced elements are rounded.
    out[lung & ~right & ~left & (near[0] + near[1] + near[2] > 1)] = ELSEWHERE.label
    return out


def _near(part: Mask, closings: Sequence[Element]) -> Labels:
    """Return the voxels at which a closing could join `part` to another part.

    The result is approximate, because it is computed from every second voxel.
    """
    coarse = pack(part[::2, ::2, ::2].view(np.uint8))
    nx = -(-part.shape[2] // 2)
    for element in sorted(closings, key=lambda e: e.extent)[-1:] * 2:
        coarse = dilate(coarse, nx, _thinned(element, (2, 2, 2)))
    near = unpack(coarse, nx)
    for axis, n in enumerate(part.shape):
        near = np.take(near, np.arange(n) // 2, axis=axis)
    return near


def _mark_separate_components(parts: Labels, lung: Mask, axis: int) -> None:
    """Label components of the mask as elsewhere that lie outside the bounding box of the lungs in the axial plane."""
    both = (parts == RIGHT.label) | (parts == LEFT.label)
    if not both.any():
        return
    box = list(_box(both))
    box[axis] = slice(None)
    components, n = ndimage.label(lung)
    sizes = np.bincount(components.reshape(-1), minlength=n + 1)
    inside = np.bincount(components[tuple(box)].reshape(-1), minlength=n + 1)
    separate = inside < COMPONENT_INSIDE * sizes
    separate[components[both]] = False
    separate[0] = False
    parts[separate[components]] = ELSEWHERE.label


def _by_position(reduced: Reduced) -> Labels:
    """Return the right half of the scan as right lung and the left half as left lung.

    This is for masks so small that no voxel of the reduced copy is in them.
    """
    coordinate = np.zeros(reduced.lung.shape)
    for axis, n in enumerate(reduced.lung.shape):
        shape = [1, 1, 1]
        shape[axis] = n
        coordinate = coordinate + (reduced.steps[0, axis] * (np.arange(n) - (n - 1) / 2)).reshape(shape)
    return np.where(coordinate > 0, np.uint8(LEFT.label), np.uint8(RIGHT.label))


@kernel()
def _look_up(hu, lung, first_row, small, rows_z, rows_y, rows_x, labels, counts):  # type: ignore[no-untyped-def]
    for z in range(hu.shape[0]):
        for y in range(hu.shape[1]):
            small_row = small[rows_z[z], rows_y[y]]
            for x in range(hu.shape[2]):
                if lung[z, first_row + y, x]:
                    side = small_row[rows_x[x]]
                    labels[z, y, x] = side
                    if side:
                        counts[np.int64(side) - 1, np.int64(hu[z, y, x]) + 32768] += np.uint64(1)
