"""Zones of the lungs on the reduced copy of a scan.

A reduced voxel covers several voxels of the full scan. Its zone says which of these can be lung, and of which lung.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.anatomical.airway import find_airway
from lungmix.kernels.anatomical.candidates import find_lungs
from lungmix.kernels.anatomical.dense import find_dense
from lungmix.kernels.anatomical.spheres import closed
from lungmix.kernels.geodesic import flood
from lungmix.kernels.regions import separate_lungs
from lungmix.kernels.rejected_components import large_components

Codes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

VESSELS_MM = 5.0
"""Radius, mm, of the closing that adds vessels and bronchi to a lung."""

HOLE_CM2 = 5.0
"""Largest hole of a lung in an axial slice that is filled. Large vessels of the hilum are up to 25 mm wide. The dome of
the diaphragm looks like a hole as well, but is this small only in its top 2 mm."""

PIECE_ML = 1.0
"""Smallest component of a lung once the airway is removed, mL. Smaller ones are bronchi."""

_ALL = np.ones((3, 3, 3), np.bool_)


class Zone(IntFlag):
    """Bits that say what the voxels of the full scan in a reduced voxel are."""

    RIGHT = 1
    """The right lung is nearer than the left one."""
    LEFT = 2
    """The left lung is nearer than the right one."""
    NEAR = 4
    """Voxels of air are lung."""
    INNER = 8
    """All voxels are lung."""
    AIRWAY = 16
    """Voxels of air are airway."""
    DENSE = 32
    """Voxels of soft tissue are dense lung."""


def find_zones(
    hu: npt.NDArray[np.int16], threshold: int, spacing: Sequence[float], first: Sequence[int] = (0, 0, 0)
) -> Codes:
    """Return the zones of the reduced voxels of a scan.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head, y to the back, x to the left.
    threshold : int
        Reduced voxels below this HU are air.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.
    first : sequence of int
        Index of the first reduced voxel along z, y, x, counted from the origin of the patient space.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        Bits of `Zone`; 0 everywhere if the scan has no lung.
    """
    out = np.zeros(hu.shape, np.uint8)
    air = hu < threshold
    candidates = find_lungs(hu, air, spacing)
    if not candidates.any():
        return out
    airway = find_airway(hu, air, candidates, spacing)
    gas = large_components(candidates & ~airway, PIECE_ML, spacing)
    if not gas.any():
        gas, airway = candidates, np.zeros_like(airway)
    sides = _sides_of(gas, hu, spacing)
    nearest = sides.copy()
    flood(nearest)
    out |= nearest
    out[airway] |= np.uint8(Zone.AIRWAY)
    for side in (Zone.RIGHT, Zone.LEFT):
        whole_lung = sides == side
        if not whole_lung.any():
            continue
        # The following steps change voxels at most one voxel outside the bounding box of the lung.
        (tight,) = ndimage.find_objects(whole_lung.view(np.uint8))
        box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in tight)
        lung, of_side = whole_lung[box], nearest[box] == side
        out[box][ndimage.binary_dilation(lung, _ALL) & of_side] |= np.uint8(Zone.NEAR)
        closed_lung = _filled(closed(lung, VESSELS_MM, spacing) & ~airway[box] & of_side, spacing)
        out[box][ndimage.binary_erosion(closed_lung, _ALL, border_value=1) & of_side] |= np.uint8(Zone.INNER)
    # Dense lung belongs to the nearer lung, whose bit is already set.
    out[find_dense(hu, sides, airway, threshold, spacing, first)] |= np.uint8(Zone.DENSE)
    return out


def _sides_of(gas: Mask, hu: npt.NDArray[np.int16], spacing: Sequence[float]) -> Codes:
    """Return which lung each voxel of air belongs to: 1 right, 2 left.

    A small component belongs as a whole to the lung that is nearer to most of its voxels.
    """
    sides = separate_lungs(gas, hu, spacing)
    nearest = sides.copy()
    flood(nearest)
    pieces, n = ndimage.label(gas & (sides == 0))
    right, left = (np.bincount(pieces[nearest == side], minlength=n + 1) for side in (Zone.RIGHT, Zone.LEFT))
    of_piece = np.where(left > right, np.uint8(Zone.LEFT), np.uint8(Zone.RIGHT))
    of_piece[0] = 0
    return np.asarray(np.where(sides > 0, sides, of_piece[pieces]), np.uint8)


def _filled(lung: Mask, spacing: Sequence[float]) -> Mask:
    """Fill the holes of a lung up to `HOLE_CM2` in each axial slice."""
    largest = HOLE_CM2 * 100 / (spacing[1] * spacing[2])
    out = lung.copy()
    for plane in out:
        if not plane.any():
            continue
        holes, n = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
        if n:
            small = np.bincount(holes.reshape(-1), minlength=n + 1) <= largest
            small[0] = False
            plane |= small[holes]
    return out
