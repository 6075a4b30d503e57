"""Dense lung on a reduced scan: soft tissue that aerated lung and ribs enclose.

From each voxel of soft tissue, rays run in 26 directions. A ray is stopped by air of the lung or, if it does not run
towards the middle of the body, by bone. Tissue that stops most rays, also those towards the feet, is lung; heart and
mediastinum are open towards the other lung and the spine, liver and stomach are open towards the feet.
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
"""Length of the rays: they cross half a lung, so that they leave a consolidation of 100 mL on every side."""

ENCLOSED = 0.8
"""Smallest share of the rays that lung or ribs stop. A layer of fluid at the back is open to the head, to the feet and
towards the middle, which is more than a fifth."""

BY_LUNG = 0.4
"""Smallest share of the rays that lung stops: from a chest wall around a lung 9 of 26 run to it, from tissue that dents
the lung more than 10."""

CAUDAL = 0.5
"""Smallest share of the rays towards the feet that lung or ribs stop."""

BONE_HU = 150
"""Lower limit of reduced voxels of ribs."""

BONE_ML = 2.0
"""Smaller pieces are noise, calcium or contrast medium, and no bone."""

RIB_MM = 10.0
"""Distance above and below a rib within which the chest wall is as deep as the rib."""

THINNEST_MM = 12.0
"""Thinner layers, such as pleura, muscle between ribs, and fat, are not dense lung, unless they continue a thicker one
no further than this."""

_RIGHT, _LEFT, _BONE, _OTHER = 1, 2, 3, 4


def find_dense(hu: npt.NDArray[np.int16], sides: Codes, airway: Mask, threshold: int, spacing: Sequence[float]) -> Mask:
    """Return the soft tissue that belongs to the lungs.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head, y to the back, x to the left.
    sides : ndarray of uint8, same shape
        Air of the lungs, 1 right and 2 left.
    airway : ndarray of bool, same shape
        Airway outside the lungs.
    threshold : int
        HU; lower voxels are air.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of bool, same shape
        True for dense lung.
    """
    z, y, x = spacing
    # Rays of about equal length in every direction need about equal steps.
    step = max(1, int(z / max(y, x) + 0.5))
    thin = (slice(None), slice(None, None, step), slice(None, None, step))
    dense = _enclosed(hu[thin], sides[thin], airway[thin], threshold, (z, y * step, x * step))
    for axis in (1, 2):
        dense = np.repeat(dense, step, axis=axis)
    dense = dense[:, : hu.shape[1], : hu.shape[2]] & (hu >= threshold) & ~airway
    # What is thinner is dropped; corners and edges of what is thicker stay.
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
    """Write to `hit` what stops the ray from each voxel in one direction, 0 if nothing does within `steps`."""
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
