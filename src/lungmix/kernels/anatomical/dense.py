"""Dense lung on the reduced copy of a scan: soft tissue that aerated lung and ribs enclose.

From each voxel of soft tissue, rays run in 26 directions. A ray is stopped by aerated lung or, unless it runs towards
the middle of the body, by bone. A voxel is dense lung if most of its rays are stopped, including enough of those
towards the feet; the constants below define the shares. Rays from heart and mediastinum escape towards the other lung
and the spine, rays from liver and stomach escape towards the feet.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.anatomical.spheres import dilated, opened
from lungmix.kernels.jit import kernel
from lungmix.kernels.rejected_components import large_components

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

REACH_MM = 80.0
"""Length of the rays, mm. They cross half a lung, so that they leave a consolidation of 100 mL on every side."""

ENCLOSED = 0.8
"""Smallest share of the rays of a voxel that lung or ribs stop. From a layer of fluid at the back, the rays to the
head, to the feet and towards the middle escape, which are more than a fifth."""

BY_LUNG = 0.4
"""Smallest share of the rays of a voxel that lung stops. From a point of the chest wall 9 of 26 rays (35 %) run into
the lung; from tissue that protrudes into the lung more than 10 do."""

CAUDAL = 0.5
"""Smallest share of the rays towards the feet that lung or ribs stop."""

BONE_HU = 150
"""Lower limit of the HU of ribs on the reduced copy."""

BONE_ML = 2.0
"""Smallest piece of bone, mL. Smaller pieces are noise, calcium or contrast medium."""

RIB_MM = 10.0
"""Distance, mm, by which ribs are extended upwards and downwards, so that they represent the chest wall between
ribs."""

THINNEST_MM = 12.0
"""Smallest thickness of dense lung, mm. Thinner layers, such as pleura, muscle between ribs, and fat, are not dense
lung, except within this distance of a thicker part."""

_RIGHT, _LEFT, _BONE, _OTHER = 1, 2, 3, 4


def find_dense(
    hu: npt.NDArray[np.int16],
    sides: Codes,
    airway: Mask,
    threshold: int,
    spacing: Sequence[float],
    first: Sequence[int] = (0, 0, 0),
) -> Mask:
    """Return the soft tissue that belongs to the lungs.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head, y to the back, x to the left.
    sides : ndarray of uint8, same shape
        Aerated lung: 1 right, 2 left, 0 elsewhere.
    airway : ndarray of bool, same shape
        Airway outside the lungs.
    threshold : int
        Voxels below this HU are air.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.
    first : sequence of int
        Index of the first voxel along z, y, x, counted from the origin of the patient space.

    Returns
    -------
    ndarray of bool, same shape
        True for dense lung.
    """
    z, y, x = spacing
    # Take every step-th row and column, so that voxels are about as wide as high and rays equally long in all
    # directions.
    step = max(1, int(z / max(y, x) + 0.5))
    # Rows and columns are counted from the origin of the patient space, so that a crop has those of the whole scan.
    group_y, group_x = ((np.arange(n) + at % step) // step for n, at in zip(hu.shape[1:], first[1:], strict=True))
    sampled = np.ix_(np.arange(len(hu)), *(np.searchsorted(group, np.unique(group)) for group in (group_y, group_x)))
    dense = _enclosed(hu[sampled], sides[sampled], airway[sampled], threshold, (z, y * step, x * step))
    dense = dense[:, group_y][:, :, group_x] & (hu >= threshold) & ~airway
    # Drop thin layers by an opening, and restore the corners and edges that it rounds off at thicker parts.
    thick = opened(dense, THINNEST_MM / 2, spacing)
    return dense & dilated(thick, THINNEST_MM, spacing)


def _enclosed(hu: npt.NDArray[np.int16], sides: Codes, airway: Mask, threshold: int, spacing: Sequence[float]) -> Mask:
    bone = large_components(hu > BONE_HU, BONE_ML, spacing, np.ones((3, 3, 3), np.bool_))
    wall = ndimage.maximum_filter1d(bone, 2 * round(RIB_MM / spacing[0]) + 1, axis=0)
    stops = sides.copy()
    stops[(hu < threshold) & (sides == 0) | airway] = _OTHER
    stops[wall & (sides == 0)] = _BONE
    stopped = np.zeros((2, *hu.shape), np.uint8)
    caudal = np.zeros((2, *hu.shape), np.uint8)
    by_lung = np.zeros((2, *hu.shape), np.uint8)
    hit = np.zeros(hu.shape, np.uint8)
    steps_left = np.zeros(hu.shape, np.uint8)
    directions = [direction for direction in product((-1, 0, 1), repeat=3) if any(direction)]
    for direction in directions:
        length = float(np.linalg.norm(np.multiply(direction, spacing)))
        _cast(stops, *direction, max(1, min(int(REACH_MM / length), 250)), hit, steps_left)
        for index, (side, outward) in enumerate(((_RIGHT, -1), (_LEFT, 1))):
            is_stopped = hit == side
            by_lung[index] += is_stopped
            if direction[2] * outward >= 0:
                is_stopped |= hit == _BONE
            stopped[index] += is_stopped
            if direction[0] < 0:
                caudal[index] += is_stopped
    down = sum(direction[0] < 0 for direction in directions)
    rays = len(directions)
    enclosed = (stopped >= ENCLOSED * rays) & (by_lung >= BY_LUNG * rays) & (caudal >= CAUDAL * down)
    return np.asarray(enclosed.any(axis=0) & (stops == 0))


@kernel()
def _cast(stops, dz, dy, dx, steps, hit, steps_left):  # type: ignore[no-untyped-def]
    """Write to `hit` the code of what stops the ray from each voxel in one direction; 0 if nothing does in `steps`."""
    nz, ny, nx = stops.shape
    for i in range(nz):
        z = nz - 1 - i if dz > 0 else i
        for j in range(ny):
            y = ny - 1 - j if dy > 0 else j
            for k in range(nx):
                x = nx - 1 - k if dx > 0 else k
                a, b, c = z + dz, y + dy, x + dx
                hit[z, y, x] = 0
                steps_left[z, y, x] = 0
                if 0 <= a < nz and 0 <= b < ny and 0 <= c < nx:
                    if stops[a, b, c]:
                        hit[z, y, x] = stops[a, b, c]
                        steps_left[z, y, x] = steps - 1
                    elif steps_left[a, b, c] > 0:
                        hit[z, y, x] = hit[a, b, c]
                        steps_left[z, y, x] = steps_left[a, b, c] - 1
