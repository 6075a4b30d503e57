"""Zones of the lungs on a reduced copy of a scan: where voxels of the full scan can be lung, and of which lung."""

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
"""Radius of the closing that takes vessels and bronchi into a lung."""

HOLE_CM2 = 5.0
"""Largest hole of a lung in an axial plane that is filled: large vessels of the hilum have up to 25 mm across; the top
of the diaphragm, which can be a hole as well, has this area only within 2 mm of its end."""

PIECE_ML = 1.0
"""Smaller components that are left once the airway is removed are bronchi."""

_ALL = np.ones((3, 3, 3), np.bool_)


class Zone(IntFlag):
    """Bits of a reduced voxel."""

    RIGHT = 1
    """Right lung is the nearest one."""
    LEFT = 2
    """Left lung is the nearest one."""
    NEAR = 4
    """Air of the full scan is lung here."""
    INNER = 8
    """All voxels of the full scan are lung here."""
    AIRWAY = 16
    """Air of the full scan is airway here."""
    DENSE = 32
    """Soft tissue is dense lung here."""


def find_zones(hu: npt.NDArray[np.int16], threshold: int, spacing: Sequence[float]) -> Codes:
    """Return the zones of the reduced voxels of a scan.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head, y to the back, x to the left.
    threshold : int
        HU; lower reduced voxels are air.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

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
        # All that follows lies within one voxel of the lung's box.
        (tight,) = ndimage.find_objects(whole_lung.view(np.uint8))
        box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in tight)
        lung, of_side = whole_lung[box], nearest[box] == side
        out[box][ndimage.binary_dilation(lung, _ALL) & of_side] |= np.uint8(Zone.NEAR)
        closed_lung = _filled(closed(lung, VESSELS_MM, spacing) & ~airway[box] & of_side, spacing)
        out[box][ndimage.binary_erosion(closed_lung, _ALL, border_value=1) & of_side] |= np.uint8(Zone.INNER)
    # Where both lungs claim a voxel, the nearer one has it.
    out[find_dense(hu, sides, airway, threshold, spacing)] |= np.uint8(Zone.DENSE)
    return out


def _sides_of(gas: Mask, hu: npt.NDArray[np.int16], spacing: Sequence[float]) -> Codes:
    """Return which lung each voxel of air belongs to; a small component belongs to the lung nearest to most of it."""
    sides = separate_lungs(gas, hu, spacing)
    nearest = sides.copy()
    flood(nearest)
    pieces, n = ndimage.label(gas & (sides == 0))
    right, left = (np.bincount(pieces[nearest == side], minlength=n + 1) for side in (Zone.RIGHT, Zone.LEFT))
    of_piece = np.where(left > right, np.uint8(Zone.LEFT), np.uint8(Zone.RIGHT))
    of_piece[0] = 0
    return np.asarray(np.where(sides > 0, sides, of_piece[pieces]), np.uint8)


def _filled(lung: Mask, spacing: Sequence[float]) -> Mask:
    """Fill the small holes of a lung in each axial plane."""
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
