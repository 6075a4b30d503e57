"""Lungs that a mask does not hold: what looks like lung on a reduced scan and was dropped by the rules of the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.airway import cranial_axis
from lungmix.kernels.downsampling import mean_of_blocks

Mask = npt.NDArray[np.bool_]

LUNG_HU = (-960, -500)
"""Reduced voxels of lung lie within; gas of bowel and stomach and the air around the body are near -1000 HU."""

BODY_HU = -300
"""Reduced voxels of the body are above: fat is near -100 HU."""

SMALLEST_ML = 20.0
"""Smaller pieces may be gas of bowel that blends with its wall, seen up to 15 mL; a newborn's lung holds 30 mL."""

SMALLEST_SHARE = 0.005
"""And no piece that changes a measurement: it has at least this share of the volume of what the mask holds."""

ENCLOSED = 0.75
"""Share of the ways out of a piece, along rows and columns of axial slices, that meet the body and not air first."""

SEEN = 0.5
"""At least this share of all ways meets the body: of a lung that the image cuts, one side in four is open."""

SMOOTH = 3
"""Voxels along each axis that are averaged after that."""

STEP_MM = 4.0
"""Voxels are thinned to steps of at most this length, or stay as wide as they are."""

CORE = 0.25
"""Share of a piece that is left where its rim is taken off: rims of gas, of tables and of clothes are thin."""

NEAR_MASK_MM = 5.0
"""So near to the mask voxels are its rim, or bronchi and vessels at the hilum."""


@dataclass(frozen=True)
class Rejected:
    """A piece of lung that the mask does not hold.

    Attributes
    ----------
    ml : float
        Its aerated volume on the reduced scan.
    touches_edge : bool
        Whether it reaches the first or last row or column of the axial plane, for which the mask drops an island.
    """

    ml: float
    touches_edge: bool

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-ready dictionary; the volume is rounded, for it is that of a reduced scan."""
        return {"ml": round(self.ml, 1), "touches_edge": self.touches_edge}


def find_rejected(hu: npt.NDArray[np.int16], lung: Mask, steps: npt.NDArray[np.float64]) -> list[Rejected]:
    """Look for pieces of lung outside a mask.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of reduced voxels.
    lung : ndarray of bool, same shape
        The mask; it may be empty.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the way in LPS, in mm, of one step along array axis ``j``.

    Returns
    -------
    list of Rejected
        The largest first.
    """
    z, y, x = (max(1, int(STEP_MM / length)) for length in np.linalg.norm(steps, axis=0).tolist())
    # Means of neighbours: noise and texture must not break a lung into crumbs.
    hu = ndimage.uniform_filter(mean_of_blocks(hu, (z, y, x)), SMOOTH, mode="nearest")
    lung, steps = lung[::z, ::y, ::x], steps * (z, y, x)
    spacing = np.linalg.norm(steps, axis=0)
    voxel_ml = float(spacing.prod()) / 1000
    smallest = max(SMALLEST_ML, SMALLEST_SHARE * int(lung.sum()) * voxel_ml)
    near = ndimage.binary_dilation(lung, iterations=max(1, round(NEAR_MASK_MM / float(spacing.max()))))
    aerated = (hu > LUNG_HU[0]) & (hu < LUNG_HU[1]) & ~near
    pieces, n = ndimage.label(aerated)
    voxels = np.bincount(pieces.reshape(-1), minlength=n + 1)
    voxels[0] = 0
    core = ndimage.binary_erosion(aerated, border_value=1)
    left = np.bincount(pieces[core], minlength=n + 1)
    large = np.flatnonzero((voxels * voxel_ml >= smallest) & (left >= CORE * voxels))
    if not len(large):
        return []
    axis = cranial_axis(steps)
    across = [a for a in range(3) if a != axis]
    body = _largest(hu > BODY_HU)
    boxes = ndimage.find_objects(pieces)
    found = []
    for number in large.tolist():
        piece = pieces == number
        if not _is_enclosed(piece, body, hu, across):
            continue
        box = boxes[number - 1]
        touches = any(box[a].start == 0 or box[a].stop == hu.shape[a] for a in across)
        found.append(Rejected(float(voxels[number]) * voxel_ml, touches))
    return sorted(found, key=lambda one: -one.ml)


def _largest(mask: Mask) -> Mask:
    parts, n = ndimage.label(mask)
    if not n:
        return mask
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _is_enclosed(piece: Mask, body: Mask, hu: npt.NDArray[np.int16], across: list[int]) -> bool:
    """Whether most ways out of a piece meet the body before air; those that end with the image say little."""
    outside = (hu < LUNG_HU[0]) & ~piece
    met = open_ways = ways = 0
    for axis in across:
        for turn in (1, -1):
            lines = [np.moveaxis(one, axis, -1)[..., ::turn] for one in (piece, body, outside)]
            inside, wall, air = (line.reshape(-1, line.shape[-1]) for line in lines)
            rows = inside.any(axis=1)
            inside, wall, air = inside[rows], wall[rows], air[rows]
            n = inside.shape[1]
            last = n - 1 - inside[:, ::-1].argmax(axis=1)
            beyond = np.arange(n) > last[:, None]
            first_wall = np.where((wall & beyond).any(axis=1), (wall & beyond).argmax(axis=1), n)
            first_air = np.where((air & beyond).any(axis=1), (air & beyond).argmax(axis=1), n)
            met += int((first_wall < first_air).sum())
            open_ways += int((first_air < first_wall).sum())
            ways += int(rows.sum())
    return met >= ENCLOSED * (met + open_ways) and met >= SEEN * ways
