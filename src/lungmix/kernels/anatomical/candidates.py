"""Selection of the components of air that are lung, on the reduced copy of a scan.

A component is lung if it lies in the body and is aerated like a lung, which gas in the bowel is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.anatomical.spheres import dilated, opened
from lungmix.kernels.rejected_components import is_enclosed, largest_component

Mask = npt.NDArray[np.bool_]

GAS_HU = -960
"""Upper limit of the HU of gas without tissue."""

AERATED_HU = (GAS_HU, -450)
"""Range of the HU of aerated lung. HU are averaged over 3 by 3 by 3 reduced voxels, because noise alone has a standard
deviation of 60 HU, and the outermost layer of a component is left out. Lungs with emphysema or ground glass and those
of newborns are in this range. Gas in stomach and bowel is near -1000 HU; their other contents are denser than lung."""

AERATED_SHARE = 0.6
"""Smallest share of the voxels of a lung, without its outermost layer, that are in the range `AERATED_HU`."""

AERATED_PART = 0.3
"""A component with a smaller share of aerated voxels is lung all the same if their volume is at least this share of the
largest aerated volume of a lung. So a lung with large bullae or a pneumothorax, which has more gas than tissue, is
lung."""

GAS_SHARE = 0.05
"""Largest share of voxels of gas in a small component that is lung. A lung with emphysema has a larger share, but is
not a small component."""

SMALL = 0.1
"""A component is small if its volume is less than this share of the volume of the largest lung."""

SMALLEST_ML = 1.0
"""Smallest component that is examined, mL."""

GAP_MM = 4.0
"""A small component is lung if it is at most this far from a lung, mm. Gas in stomach and bowel is further away,
because the wall of the bowel and the diaphragm lie between."""

ABOVE = 0.5
"""A small component further than `GAP_MM` from a lung is lung if at least this share of its voxels lies above voxels of
a lung. Gas in the abdomen lies below the lungs."""

WIDE_MM = 15.0
"""Radius, mm, of the sphere that a lung must hold for a small component to lie above it. A trachea is at most 27 mm
wide and holds no such sphere, so that gas of the throat, above the trachea, is not lung."""


def find_lungs(hu: npt.NDArray[np.int16], air: Mask, spacing: Sequence[float]) -> Mask:
    """Return the components of air that are lung, with the airway where it is connected to them.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head.
    air : ndarray of bool, same shape
        Voxels below the HU threshold of the mask.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of bool, same shape
        True for voxels of the lungs; all False if no component is lung.
    """
    components, n = ndimage.label(air)
    ml = np.bincount(components.reshape(-1), minlength=n + 1) * float(np.prod(spacing)) / 1000
    ml[0] = 0
    core = ndimage.binary_erosion(air, border_value=1)
    means = _means_of(hu, core)
    body = largest_component(ndimage.binary_opening(~air))
    boxes = ndimage.find_objects(components)
    aerated_ml: dict[int, float] = {}
    gas: dict[int, float] = {}
    for number in np.argsort(-ml, kind="stable").tolist():
        if ml[number] < SMALLEST_ML:
            break
        box = boxes[number - 1]
        component = components[box] == number
        inside = component & core[box]
        inside = inside if inside.any() else component
        mean = means[box][inside]
        aerated_ml[number] = float(((mean > AERATED_HU[0]) & (mean < AERATED_HU[1])).mean()) * float(ml[number])
        gas[number] = float((hu[box][inside] < GAS_HU).mean())

    def is_in_body(number: int) -> bool:
        slices = (boxes[number - 1][0], slice(None), slice(None))
        return is_enclosed(components[slices] == number, body[slices], hu[slices], [1, 2])

    is_lung = {
        number: bool(volume >= AERATED_SHARE * ml[number]) and is_in_body(number)
        for number, volume in aerated_ml.items()
    }
    largest_aerated = max((volume for number, volume in aerated_ml.items() if is_lung[number]), default=np.inf)
    chosen: list[int] = []
    pieces: list[int] = []
    largest = 0.0
    for number, volume in aerated_ml.items():
        if not is_lung[number] and not (volume >= AERATED_PART * largest_aerated and is_in_body(number)):
            continue
        if ml[number] >= SMALL * largest:
            largest = max(largest, float(ml[number]))
            chosen.append(number)
        elif gas[number] <= GAS_SHARE:
            pieces.append(number)
    lungs = np.isin(components, chosen)
    if pieces:
        near = dilated(lungs, GAP_MM, spacing)
        above = np.maximum.accumulate(opened(lungs, WIDE_MM, spacing), axis=0)
        for number in pieces:
            piece = components == number
            if near[piece].any() or above[piece].mean() >= ABOVE:
                chosen.append(number)
        lungs = np.isin(components, chosen)
    return np.asarray(lungs)


def _means_of(hu: npt.NDArray[np.int16], core: Mask) -> npt.NDArray[np.float32]:
    """Return for each voxel of a core the mean HU of the core voxels among the 27 in its neighbourhood.

    Voxels outside the core keep their own HU.
    """
    share = ndimage.uniform_filter(core.astype(np.float32), 3)
    total = ndimage.uniform_filter(np.where(core, hu, 0).astype(np.float32), 3)
    return np.where(core, total / np.where(core, share, 1), hu)
