"""Trachea and main bronchi on a reduced scan: a tube of gas in soft tissue, and what it opens into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.geodesic import wave_numbers

Mask = npt.NDArray[np.bool_]

LUMEN_HU = -900
"""Voxels of a lumen are below: gas of the trachea is near -1000 HU, aerated lung near -850."""

WALL_HU = -600
"""The wall of the tube is above, also where voxels of 3 mm mix it with gas or lung."""

SECTION_MM2 = (40.0, 700.0)
"""Cross-sections of the tube: the normal trachea has 13 to 27 mm across (Breatnach et al. 1984), 130 to 570 mm²; a main
bronchus and a narrowed trachea have less."""

SURROUNDED = 0.7
"""Share of the ways out of a section, along rows and columns, that meet a wall."""

LOOK_MM = 8.0
"""How far outside a section its wall is looked for."""

SOFT_HU = -200
"""The body is above."""

SHORTEST_MM = 20.0
"""Shorter tubes are not a trachea."""

OFF_MIDLINE_MM = 45.0
"""Farther from the middle of the body a section is not one of the trachea."""

BRONCHI_MM = 60.0
"""How far main bronchi are followed below the tube: the left one is about 50 mm long."""

WIDENING = 2.0
"""Growth stops where its front becomes wider than this many largest sections: there it has leaked into lung."""


@dataclass(frozen=True, eq=False)
class Airway:
    """Lumens found.

    Attributes
    ----------
    tube : ndarray of bool, shape (z, y, x)
        Sections that are surrounded by soft tissue, one over the other.
    branches : ndarray of bool, same shape
        Lumen that the tube opens into.
    """

    tube: Mask
    branches: Mask


def find_airway(hu: npt.NDArray[np.int16], lung: Mask, steps: npt.NDArray[np.float64]) -> Airway:
    """Look for the trachea and follow it.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of reduced voxels.
    lung : ndarray of bool, same shape
        The mask.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the way in LPS, in mm, of one step along array axis ``j``.

    Returns
    -------
    Airway
        Both parts are empty where no tube is found.
    """
    none = np.zeros(hu.shape, np.bool_)
    lumen = hu < LUMEN_HU
    candidates = _sections(hu, lumen, lung, steps)
    tubes, n = ndimage.label(candidates, np.ones((3, 3, 3)))
    if not n:
        return Airway(none, none)
    axis = cranial_axis(steps)
    step_mm = float(np.linalg.norm(steps[:, axis]))
    spans = [(box[axis].start * step_mm, box[axis].stop * step_mm) for box in ndimage.find_objects(tubes)]
    upward = steps[2, axis] > 0
    # Islands in lung can look like sections of a tube, but none reaches as high as the trachea.
    tops = [
        ((high if upward else -low), high - low, -n) for n, (low, high) in enumerate(spans) if high - low >= SHORTEST_MM
    ]
    if not tops:
        return Airway(none, none)
    tube = tubes == 1 - max(tops)[2]
    across = tuple(a for a in range(3) if a != axis)
    widest = int(tube.sum(axis=across).max())
    spacing = np.linalg.norm(steps, axis=0)
    waves = wave_numbers(tube, lumen, round(BRONCHI_MM / float(np.median(spacing))))
    fronts = np.bincount(waves[waves > 0], minlength=1)
    wide = np.flatnonzero(fronts > WIDENING * widest)
    # The front widens gradually: what was grown just before it became too wide is taken back too.
    last = int(wide[0]) - 2 if len(wide) else len(fronts)
    return Airway(tube, (waves > 0) & (waves <= last))


def cranial_axis(steps: npt.NDArray[np.float64]) -> int:
    """The array axis that runs most nearly from the feet to the head, or back."""
    return int(np.argmax(np.abs(steps[2]) / np.linalg.norm(steps, axis=0)))


def _sections(hu: npt.NDArray[np.int16], lumen: Mask, lung: Mask, steps: npt.NDArray[np.float64]) -> Mask:
    """Axial islands of lumen that could be a section of the trachea."""
    out = np.zeros(hu.shape, np.bool_)
    axis = cranial_axis(steps)
    spacing = np.linalg.norm(steps, axis=0)
    region = _upper_middle(hu, lung, steps, axis)
    if region is None:
        return out
    # Neighbours share a face: a wall one voxel thick that runs aslant parts what is on both its sides.
    plane = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(plane, axis, 0)[[0, 2]] = False
    islands, n = ndimage.label(lumen[region], plane)
    if not n:
        return out
    across = [a for a in range(3) if a != axis]
    area = np.bincount(islands.reshape(-1), minlength=n + 1) * float(spacing[across].prod())
    fits = (area >= SECTION_MM2[0]) & (area <= SECTION_MM2[1])
    fits[0] = False
    where = np.nonzero(fits[islands])
    label = islands[where]
    seen, dense = np.zeros(n + 1), np.zeros(n + 1)
    window = hu[region]
    for a in across:
        for way in (-1, 1):
            wall = np.zeros(len(label), np.bool_)
            for far in range(1, max(round(LOOK_MM / float(spacing[a])), 1) + 1):
                there = list(where)
                # A way that leaves the region ends there.
                there[a] = np.clip(where[a] + way * far, 0, window.shape[a] - 1)
                if far == 1:
                    out_of = islands[tuple(there)] != label
                wall |= window[tuple(there)] > WALL_HU
            seen += np.bincount(label, weights=out_of, minlength=n + 1)
            dense += np.bincount(label, weights=out_of & wall, minlength=n + 1)
    fits &= dense >= SURROUNDED * np.maximum(seen, 1)
    out[region] = fits[islands]
    return out


def _upper_middle(
    hu: npt.NDArray[np.int16], lung: Mask, steps: npt.NDArray[np.float64], axis: int
) -> tuple[slice, ...] | None:
    """The part of the scan above the lower third of the lungs, near the middle of the body."""
    at = np.flatnonzero(lung.any(axis=tuple(a for a in range(3) if a != axis)))
    if not len(at):
        return None
    first, last = int(at[0]), int(at[-1]) + 1
    third = (last - first) // 3
    upward = steps[2, axis] > 0
    region = [slice(None)] * 3
    region[axis] = slice(first + third, None) if upward else slice(None, last - third)
    side = int(np.argmax(np.abs(steps[0]) / np.linalg.norm(steps, axis=0)))
    across = tuple(a for a in range(3) if a != side)
    soft = np.cumsum((hu[tuple(region)] > SOFT_HU).sum(axis=across))
    middle = int(np.searchsorted(soft, soft[-1] / 2))
    reach = round(OFF_MIDLINE_MM / float(np.linalg.norm(steps[:, side])))
    region[side] = slice(max(middle - reach, 0), middle + reach + 1)
    return tuple(region)
