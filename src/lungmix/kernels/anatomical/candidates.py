"""Components of air that are lung, on a reduced scan: in the body, aerated like lung, not gas of the bowel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.anatomical.spheres import dilated
from lungmix.kernels.rejected_components import is_enclosed, largest_component

Mask = npt.NDArray[np.bool_]

AERATED_HU = (-950, -600)
"""Range of most reduced voxels of a lung: gas of stomach and bowel is near -1000 HU, its rim and its content denser."""

AERATED_SHARE = 0.6
"""Smallest share of the voxels of a lung in this range, rims left out."""

GAS_HU = -960
"""Upper limit of gas without tissue."""

GAS_SHARE = 0.05
"""Largest share of voxels of gas in a small component; emphysema has more, but only in a whole lung."""

SMALL = 0.1
"""A component is small if it has less than this share of the largest one."""

SMALLEST_ML = 1.0
"""Smaller components are not looked at."""

GAP_MM = 4.0
"""Largest gap between a lung and a small component beside or below it; stomach and bowel are further away, because
their wall and the diaphragm lie between."""

ABOVE = 0.5
"""Smallest share of the voxels of a small component that have lung below them, if it is further away: gas in the
abdomen has none."""


def find_lungs(hu: npt.NDArray[np.int16], air: Mask, spacing: Sequence[float]) -> Mask:
    """Return the components of air that are lung, with the airway where it is connected to them.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head.
    air : ndarray of bool, same shape
        Voxels below the threshold of the mask.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of bool, same shape
        All False where nothing is lung.
    """
    components, n = ndimage.label(air)
    ml = np.bincount(components.reshape(-1), minlength=n + 1) * float(np.prod(spacing)) / 1000
    ml[0] = 0
    core = ndimage.binary_erosion(air, border_value=1)
    body = largest_component(ndimage.binary_opening(~air))
    boxes = ndimage.find_objects(components)
    chosen: list[int] = []
    pieces: list[int] = []
    largest = 0.0
    for number in np.argsort(-ml, kind="stable").tolist():
        if ml[number] < SMALLEST_ML:
            break
        box = boxes[number - 1]
        component = components[box] == number
        inside = component & core[box]
        values = hu[box][inside if inside.any() else component]
        aerated = float(((values > AERATED_HU[0]) & (values < AERATED_HU[1])).mean())
        slices = (box[0], slice(None), slice(None))
        if aerated < AERATED_SHARE or not is_enclosed(components[slices] == number, body[slices], hu[slices], [1, 2]):
            continue
        if ml[number] >= SMALL * largest:
            largest = max(largest, float(ml[number]))
            chosen.append(number)
        elif (values < GAS_HU).mean() <= GAS_SHARE:
            pieces.append(number)
    lungs = np.isin(components, chosen)
    if pieces:
        near = dilated(lungs, GAP_MM, spacing)
        above = np.maximum.accumulate(lungs, axis=0)
        for number in pieces:
            piece = components == number
            if near[piece].any() or above[piece].mean() >= ABOVE:
                chosen.append(number)
        lungs = np.isin(components, chosen)
    return np.asarray(lungs)
