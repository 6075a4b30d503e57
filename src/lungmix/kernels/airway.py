"""Trachea and main bronchi on a reduced scan: a tube of gas in soft tissue and its branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.geodesic import wave_numbers

Mask = npt.NDArray[np.bool_]

LUMEN_HU = -900
"""Upper limit of the HU of a lumen: gas of the trachea is near -1000 HU, aerated lung near -850 HU."""

WALL_HU = -600
"""Lower limit of the HU of the wall of the tube, even in voxels of 3 mm that mix wall with gas or lung."""

SECTION_MM2 = (40.0, 700.0)
"""Smallest and largest cross-section of the tube, mm². A normal trachea is 13 to 27 mm wide (Breatnach et al. 1984),
which is 130 to 570 mm²; a main bronchus and a narrowed trachea are smaller."""

SURROUNDED = 0.7
"""Smallest share of rays that meet a wall. From each voxel at the edge of a section, rays run outwards along the row
and the column."""

LOOK_MM = 8.0
"""Length, mm, of the rays that must meet a wall around a section of the trachea."""

SOFT_HU = -200
"""Lower limit of the HU of soft tissue."""

SHORTEST_MM = 20.0
"""Smallest length of a trachea."""

OFF_MIDLINE_MM = 45.0
"""Largest distance of a section of the trachea from the middle of the body."""

BRONCHI_MM = 60.0
"""Distance up to which main bronchi are followed below the tube: the left one is about 50 mm long."""

WIDENING = 2.0
"""Bronchi are followed by a front that advances through the lumen voxel by voxel. It has leaked into the lung, and
stops, where it has more voxels than this multiple of the largest section of the tube."""


@dataclass(frozen=True, eq=False)
class Airway:
    """Lumen of the airway.

    Attributes
    ----------
    tube : ndarray of bool, shape (z, y, x)
        Trachea: a stack of axial sections of gas that are surrounded by soft tissue.
    branches : ndarray of bool, same shape
        Lumen of the main bronchi that leave the trachea.
    """

    tube: Mask
    branches: Mask


def find_airway(hu: npt.NDArray[np.int16], lung: Mask, steps: npt.NDArray[np.float64]) -> Airway:
    """Find the trachea and the main bronchi.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of reduced voxels.
    lung : ndarray of bool, same shape
        Lung mask.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the vector in LPS, in mm, of one step along array axis ``j``.

    Returns
    -------
    Airway
        Tube and branches are empty if no trachea is found.
    """
    empty = np.zeros(hu.shape, np.bool_)
    lumen = hu < LUMEN_HU
    candidates = tube_sections(hu, lumen, lung, steps)
    tubes, n = ndimage.label(candidates, np.ones((3, 3, 3)))
    if not n:
        return Airway(empty, empty)
    axis = cranial_axis(steps)
    step_mm = float(np.linalg.norm(steps[:, axis]))
    spans = [(box[axis].start * step_mm, box[axis].stop * step_mm) for box in ndimage.find_objects(tubes)]
    upward = steps[2, axis] > 0
    # Components inside the lung can also look like stacked sections of a tube, but the trachea extends highest.
    tops = [
        ((high if upward else -low), high - low, -n) for n, (low, high) in enumerate(spans) if high - low >= SHORTEST_MM
    ]
    if not tops:
        return Airway(empty, empty)
    tube = tubes == 1 - max(tops)[2]
    across = tuple(a for a in range(3) if a != axis)
    widest = int(tube.sum(axis=across).max())
    spacing = np.linalg.norm(steps, axis=0)
    waves = wave_numbers(tube, lumen, round(BRONCHI_MM / float(np.median(spacing))))
    fronts = np.bincount(waves[waves > 0], minlength=1)
    wide = np.flatnonzero(fronts > WIDENING * widest)
    # The front widens gradually, so the last wave that was not yet too wide has leaked as well: drop it too.
    last = int(wide[0]) - 2 if len(wide) else len(fronts)
    return Airway(tube, (waves > 0) & (waves <= last))


def axial_steps(spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the matrix whose columns are the steps along the axes z, y, x of an axial array, in mm in LPS.

    The axes of an axial array run to the head (z), to the back (y) and to the left (x) of the patient.
    """
    steps = np.zeros((3, 3))
    steps[2, 0], steps[1, 1], steps[0, 2] = spacing
    return steps


def cranial_axis(steps: npt.NDArray[np.float64]) -> int:
    """Return the array axis nearest to the axis from feet to head."""
    return int(np.argmax(np.abs(steps[2]) / np.linalg.norm(steps, axis=0)))


def tube_sections(
    hu: npt.NDArray[np.int16],
    lumen: Mask,
    lung: Mask,
    steps: npt.NDArray[np.float64],
    middle_of: Sequence[int] = (SOFT_HU,),
) -> Mask:
    """Return the voxels of lumen that could belong to the trachea.

    These are components within one axial slice whose area is in `SECTION_MM2` and which a wall surrounds, near the
    middle of the body and above the lower third of the lungs.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of reduced voxels.
    lumen : ndarray of bool, same shape
        Voxels of gas.
    lung : ndarray of bool, same shape
        Lung mask.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the vector in LPS, in mm, of one step along array axis ``j``.
    middle_of : sequence of int
        Lower limits of the HU of one or more tissues, such as soft tissue and bone. The median position, from right to
        left, of the voxels of each tissue is an estimate of the middle of the body. The trachea must be near one of
        these positions or between them.
    """
    out = np.zeros(hu.shape, np.bool_)
    axis = cranial_axis(steps)
    spacing = np.linalg.norm(steps, axis=0)
    region = _upper_middle(hu, lung, steps, axis, middle_of)
    if region is None:
        return out
    # Connect voxels by faces only, so that an oblique wall one voxel thick separates the gas on its two sides.
    plane = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(plane, axis, 0)[[0, 2]] = False
    components, n = ndimage.label(lumen[region], plane)
    if not n:
        return out
    across = [a for a in range(3) if a != axis]
    area = np.bincount(components.reshape(-1), minlength=n + 1) * float(spacing[across].prod())
    fits = (area >= SECTION_MM2[0]) & (area <= SECTION_MM2[1])
    fits[0] = False
    indices = np.nonzero(fits[components])
    label = components[indices]
    rays, blocked = np.zeros(n + 1), np.zeros(n + 1)
    window = hu[region]
    for a in across:
        for sign in (-1, 1):
            wall = np.zeros(len(label), np.bool_)
            for distance in range(1, max(round(LOOK_MM / float(spacing[a])), 1) + 1):
                neighbours = list(indices)
                # A ray ends at the border of the region.
                neighbours[a] = np.clip(indices[a] + sign * distance, 0, window.shape[a] - 1)
                if distance == 1:
                    out_of = components[tuple(neighbours)] != label
                wall |= window[tuple(neighbours)] > WALL_HU
            rays += np.bincount(label, weights=out_of, minlength=n + 1)
            blocked += np.bincount(label, weights=out_of & wall, minlength=n + 1)
    fits &= blocked >= SURROUNDED * np.maximum(rays, 1)
    out[region] = fits[components]
    return out


def _upper_middle(
    hu: npt.NDArray[np.int16], lung: Mask, steps: npt.NDArray[np.float64], axis: int, middle_of: Sequence[int]
) -> tuple[slice, ...] | None:
    """Return the part of the scan above the lower third of the lungs and near the middle of the body."""
    slices = np.flatnonzero(lung.any(axis=tuple(a for a in range(3) if a != axis)))
    if not len(slices):
        return None
    first, last = int(slices[0]), int(slices[-1]) + 1
    third = (last - first) // 3
    upward = steps[2, axis] > 0
    region = [slice(None)] * 3
    region[axis] = slice(first + third, None) if upward else slice(None, last - third)
    lateral = int(np.argmax(np.abs(steps[0]) / np.linalg.norm(steps, axis=0)))
    across = tuple(a for a in range(3) if a != lateral)
    middles: list[int] = []
    for lowest in middle_of:
        voxels = np.cumsum((hu[tuple(region)] > lowest).sum(axis=across))
        if voxels[-1] or not middles:
            middles.append(int(np.searchsorted(voxels, voxels[-1] / 2)))
    half_width = round(OFF_MIDLINE_MM / float(np.linalg.norm(steps[:, lateral])))
    region[lateral] = slice(max(min(middles) - half_width, 0), max(middles) + half_width + 1)
    return tuple(region)
