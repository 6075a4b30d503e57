"""Trachea and main bronchi outside the lungs, found on the reduced copy of a scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.airway import SOFT_HU, axial_steps, tube_sections
from lungmix.kernels.anatomical.spheres import closed, opened

Mask = npt.NDArray[np.bool_]

LUMEN_HU = -850
"""Upper limit of the HU of a lumen on a reduced copy, whose wide voxels mix gas and wall."""

SHORTEST_MM = 20.0
"""Smallest height of a trachea, mm."""

SEAL_MM = 5.0
"""Radius, mm, of the closing that fills the vessels inside a lung before its core is computed."""

CORE_MM = 10.0
"""Radius, mm, of the opening whose result is the core of a lung. Main bronchi are at most 18 mm wide, so the core holds
none of them."""

RIM_HU = -700
"""Upper limit of the HU of the second layer of voxels that is added around the lumen; these voxels mix gas and wall."""

MIDDLE_OF = (SOFT_HU, 150)
"""Lower limits of the HU of soft tissue and of bone. The middle of the body is estimated from each of these tissues,
because the median of soft tissue is not in the middle if the image cuts the body on one side; that of bone then still
is, because of the spine."""

_ALL = np.ones((3, 3, 3), np.bool_)


def find_airway(hu: npt.NDArray[np.int16], air: Mask, lungs: Mask, spacing: Sequence[float]) -> Mask:
    """Return the lumen of the trachea, and of the bronchi as far as the core of the lungs, with the rim of the lumen.

    The tallest stack of axial sections of a tube near the middle of the body is the trachea. From there the lumen is
    followed through gas. It ends at the core of each lung, which is the part of the lung that spheres of 20 mm diameter
    fill. The rim is up to two voxels wide.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head, y to the back, x to the left.
    air : ndarray of bool, same shape
        Voxels below the HU threshold of the mask.
    lungs : ndarray of bool, same shape
        Result of `lungmix.kernels.anatomical.candidates.find_lungs`.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of bool, same shape
        True for voxels of the airway; all False if no trachea is found.
    """
    tube = find_trachea(hu, air, lungs, spacing)
    if not tube.any():
        return tube
    core = opened(closed(lungs & ~tube, SEAL_MM, spacing), CORE_MM, spacing)
    domain = (hu < LUMEN_HU) & air & ~core | tube
    parts, n = ndimage.label(domain, _ALL)
    reached = np.zeros(n + 1, np.bool_)
    reached[parts[tube]] = True
    lumen = reached[parts]
    outside = air & ~core
    rim = ndimage.binary_dilation(lumen, _ALL) & outside
    rim |= ndimage.binary_dilation(rim) & outside & (hu < RIM_HU)
    return np.asarray(lumen | rim)


def find_trachea(hu: npt.NDArray[np.int16], air: Mask, lungs: Mask, spacing: Sequence[float]) -> Mask:
    """Return the tallest stack of axial sections of a tube near the middle of the body; parameters as `find_airway`."""
    gas = (hu < LUMEN_HU) & (lungs | _in_body(air))
    sections = tube_sections(hu, gas, lungs, axial_steps(spacing), MIDDLE_OF)
    tubes, n = ndimage.label(sections, _ALL)
    heights = [(box[0].stop - box[0].start) * spacing[0] for box in ndimage.find_objects(tubes)]
    if not n or max(heights) < SHORTEST_MM:
        return np.zeros_like(air)
    voxels = np.bincount(tubes.reshape(-1), minlength=n + 1)[1:]
    return np.asarray(tubes == 1 + max(range(n), key=lambda i: (heights[i], voxels[i], -i)))


def _in_body(air: Mask) -> Mask:
    """Return the components of air that touch no edge of an axial slice."""
    components, n = ndimage.label(air)
    inside = np.ones(n + 1, np.bool_)
    for axis in (1, 2):
        for index in (0, -1):
            inside[np.unique(components.take(index, axis))] = False
    return np.asarray(inside[components])
