"""Two signs of a mask that is wrong about dense lung, measured on the reduced copy of a scan.

The first sign is a gap: soft tissue between a lung of the mask and the ribs. In each axial slice, rays run from the
outermost voxels of each lung to the side and to the back until they meet bone. Ribs slope, so bone up to 20 mm above
and below counts as bone of the slice, which nearly closes the rib cage. Pleura and the layer of fat inside the ribs are
a few millimetres thick. More soft tissue between lung and bone is thickened pleura, effusion, or consolidated lung that
the mask leaves out.

Gaps cannot be found towards the front (on CT, cartilage does not look like bone), towards the mediastinum and towards
the diaphragm. They are not found either in rows without aerated lung, such as those of a completely consolidated lobe,
nor in scans without bone.

The second sign is dense lung of the mask that merges with the mediastinum, see `find_merging`.
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
"""Lower limit of the HU of ribs on the reduced copy, where marrow and cortex average to 200 to 500 HU."""

SOFT_HU = -200
"""Lower limit of the HU of soft tissue on the reduced copy; fat inside the ribs is above it."""

SLOPE_MM = 20.0
"""Distance above and below a slice, mm, within which bone counts as bone of this slice. Neighbouring ribs are about 25
mm apart."""

NORMAL_MM = 12.0
"""Gaps up to this width, mm, are normal: intercostal muscle, pleura, fat, and the blur of the reduced copy."""

REACH_MM = 100.0
"""Largest distance, mm, of a gap from aerated lung above it and from aerated lung below it. Liver, spleen and stomach
are no gaps, because they have no lung below them."""

SOFT_SHARE = 0.8
"""Smallest share of soft tissue in a gap. With less soft tissue, it is lung, or a chest wall that contains air."""

LONGEST_MM = 120.0
"""Length of the longest ray, mm. A ray that has met no bone by then has missed the rib cage."""

MERGING_ML = 10.0
"""Smallest component of dense lung that is examined, mL; branches of vessels at the hilum are smaller."""

OPEN = 1 / 3
"""A component of dense lung merges with the mediastinum if at least this share of its voxels has no aerated lung of the
same side towards the middle of the body. In a round consolidation at the ribs it is less than a fifth."""


def find_dense_gaps(hu: npt.NDArray[np.int16], lungs: Mask, spacing: Sequence[float]) -> Mask:
    """Return the soft tissue in gaps between lungs and ribs that are wider than `NORMAL_MM`.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the reduced voxels of an axial array: z runs to the head, y to the back, x to the left.
    lungs : ndarray of bool, same shape
        True for voxels of the right or the left lung in the mask.
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
    """Return the voxels that have lung at most `reach` slices above them and at most `reach` slices below them."""
    index = np.arange(len(lung))[:, None, None]
    below = np.maximum.accumulate(np.where(lung, index, -reach - 1), axis=0)
    above = np.minimum.accumulate(np.where(lung, index, len(lung) + reach)[::-1], axis=0)[::-1]
    return np.asarray((index - below <= reach) & (above - index <= reach))


def _middle(lungs: Mask) -> int:
    """Return the column halfway between the first and the last column with lung."""
    columns = np.flatnonzero(lungs.any(axis=(0, 1)))
    return int(columns[0] + columns[-1] + 1) // 2 if columns.size else 0


def _gaps_along(hu: npt.NDArray[np.int16], lung: Mask, bone: Mask, axis: int, turn: int, step: float) -> Mask:
    """Return the voxels between the last voxel of lung on each line and the first bone after it, if they are a gap.

    Lines run along `axis`, in ascending order if `turn` is 1 and in descending order if it is -1; `step` is the voxel
    spacing on them in mm.
    """
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

    That is, the components of at least 10 mL for which a third of the voxels have no aerated lung of the same side
    between them and the middle of the body.

    Parameters
    ----------
    parts : ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.DENSE`, aerated and dense right and left lung, of an axial array: x runs to the left.
    spacing : sequence of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of bool, same shape
        True for voxels of these components.
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
