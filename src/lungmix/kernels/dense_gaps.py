"""Dense tissue between lung and ribs that a mask leaves out, and dense lung that merges with the mediastinum.

Both are proxies on the reduced copy of a scan.

In each axial slice, rays run from the outermost voxels of each lung to the side and to the back until they meet bone.
Ribs slope, so bone within a few centimetres above and below counts as bone of the slice: the cage is nearly closed
then. Pleura and the layer of fat inside the ribs are a few millimetres; where more soft tissue lies between lung and
bone, it is thickened pleura, effusion, or consolidated lung.

What the proxy cannot see: dense tissue towards the front (cartilage is no bone on CT), towards the mediastinum and the
diaphragm; rows in which no aerated lung is left, such as a wholly consolidated lobe or lung; scans without bone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.tissue import DENSE, LUNGS

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

BONE_HU = 150
"""Lower limit of reduced voxels of ribs, whose marrow and cortex average to 200 to 500 HU."""

SOFT_HU = -200
"""Lower limit of reduced voxels of soft tissue; fat inside the ribs is above."""

SLOPE_MM = 20.0
"""Distance above and below within which bone counts as bone of a slice: neighbouring ribs are about 25 mm apart."""

NORMAL_MM = 12.0
"""Gaps up to this width are normal: intercostal muscle, pleura, fat, and the blur of the reduced copy."""

REACH_MM = 100.0
"""Largest distance of a gap from the aerated lung above and below it. Liver, spleen and stomach have no lung below."""

SOFT_SHARE = 0.8
"""Smallest share of soft tissue in a gap. A gap with less is lung, or a chest wall with air in it."""

LONGEST_MM = 120.0
"""Longest ray: a ray that meets bone later has missed the cage."""

MERGING_ML = 10.0
"""Smallest component of dense lung that is looked at; branches of vessels at the hilum are smaller."""

OPEN = 1 / 3
"""Smallest share of a component without aerated lung towards the middle, for it to merge with the mediastinum. A round
consolidation at the ribs has less than a fifth."""


def find_dense_gaps(hu: npt.NDArray[np.int16], lungs: Mask, spacing: Sequence[float]) -> Mask:
    """Return the voxels of wide gaps between lungs and ribs.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of reduced voxels of an axial array: x runs to the left, y to the back.
    lungs : ndarray of bool, same shape
        Both lungs.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.
    """
    z, y, x = spacing
    bone = ndimage.maximum_filter1d(hu > BONE_HU, 2 * round(SLOPE_MM / z) + 1, axis=0)
    gaps = np.zeros(hu.shape, np.bool_)
    middle = _middle(lungs)
    columns = np.arange(hu.shape[2])
    for half, turn in ((columns < middle, -1), (columns >= middle, 1)):
        side = lungs & half
        behind = _gaps_along(hu, side, bone, 2, turn, x) | _gaps_along(hu, side, bone, 1, 1, y)
        gaps |= behind & _between_lung(side, round(REACH_MM / z))
    thick = max(1, round(NORMAL_MM / 2 / max(y, x)))
    plane = np.ones((1, 3, 3), np.bool_)
    return np.asarray(ndimage.binary_opening(gaps & ~lungs, plane, iterations=thick))


def _between_lung(lung: Mask, reach: int) -> Mask:
    """Return the voxels with lung above and below them, at most `reach` slices away."""
    index = np.arange(len(lung))[:, None, None]
    below = np.maximum.accumulate(np.where(lung, index, -reach - 1), axis=0)
    above = np.minimum.accumulate(np.where(lung, index, len(lung) + reach)[::-1], axis=0)[::-1]
    return np.asarray((index - below <= reach) & (above - index <= reach))


def _middle(lungs: Mask) -> int:
    """Return the column halfway between the outermost columns of both lungs."""
    columns = np.flatnonzero(lungs.any(axis=(0, 1)))
    return int(columns[0] + columns[-1] + 1) // 2 if columns.size else 0


def _gaps_along(hu: npt.NDArray[np.int16], lung: Mask, bone: Mask, axis: int, turn: int, step: float) -> Mask:
    """Return the soft voxels from the last lung voxel of each line to the first bone behind it."""
    rays = [np.moveaxis(array, axis, -1)[..., ::turn] for array in (lung, bone, hu > SOFT_HU)]
    inside, wall, soft = rays
    n = inside.shape[-1]
    index = np.arange(n)
    last = n - 1 - inside[..., ::-1].argmax(axis=-1, keepdims=True)
    beyond = np.asarray(inside.any(axis=-1, keepdims=True) & (index > last))
    hit = np.asarray(wall & beyond)
    first = np.where(hit.any(axis=-1, keepdims=True), hit.argmax(axis=-1, keepdims=True), n)
    width = (first - last - 1) * step
    between = beyond & (index < first)
    is_soft = np.count_nonzero(between & soft, axis=-1, keepdims=True) >= SOFT_SHARE * np.count_nonzero(
        between, axis=-1, keepdims=True
    )
    gaps = between & (first < n) & (width > NORMAL_MM) & (width <= LONGEST_MM) & is_soft
    return np.asarray(np.moveaxis(gaps[..., ::turn], -1, axis))


def find_merging(parts: Labels, spacing: Sequence[float]) -> Mask:
    """Return the dense lung that merges with the mediastinum.

    Parameters
    ----------
    parts : ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.DENSE` of an axial array, whose x runs to the left.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of bool, same shape
        The components of dense lung of which enough is open: no aerated voxel of the same lung lies towards the middle.
    """
    merging = np.zeros(parts.shape, np.bool_)
    voxel_ml = float(np.prod(spacing)) / 1000
    for aerated, dense in zip(DENSE[: len(LUNGS)], DENSE[len(LUNGS) :], strict=True):
        # The middle is to the left of the right lung, and to the right of the left lung.
        turn = -1 if aerated.key.startswith("right") else 1
        has_lung = np.maximum.accumulate((parts == aerated.label)[..., ::turn], axis=-1)[..., ::turn]
        components, n = ndimage.label(parts == dense.label)
        voxels = np.bincount(components.reshape(-1), minlength=n + 1)
        is_open = np.bincount(components[~has_lung], minlength=n + 1) >= OPEN * voxels
        chosen = (voxels * voxel_ml >= MERGING_ML) & is_open
        chosen[0] = False
        merging |= chosen[components]
    return merging
