"""Components that look like lung on a reduced scan but that the rules of the mask rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.airway import cranial_axis
from lungmix.kernels.downsampling import mean_of_blocks

Mask = npt.NDArray[np.bool_]

LUNG_HU = (-960, -500)
"""Range of reduced voxels of lung; gas of bowel and stomach and the air around the body are near -1000 HU."""

BODY_HU = -300
"""Lower limit of reduced voxels of the body: fat is near -100 HU."""

SMALLEST_ML = 20.0
"""Smallest component: bowel gas that blends with its wall was observed up to 15 mL; a newborn's lung has 30 mL."""

SMALLEST_SHARE = 0.005
"""Smallest component as a share of the volume of the mask: smaller ones change no measurement."""

ENCLOSED = 0.75
"""Smallest share of the decided rays out of a component, along rows and columns, that meet the body before air."""

SEEN = 1 / 3
"""Smallest share of all rays that meet the body: most sides of a lung that the image cuts all around are open. A table
or a mattress meets it on one side in four."""

CORNERS = 1 / 3
"""Largest share of the corners of slices in a component of which less than half of the rays meet the body: the air
around a body, or in front of it or behind it, has two of four corners or more."""

SMOOTH = 3
"""Width of the averaging filter, applied after thinning, in voxels."""

STEP_MM = 4.0
"""Largest step to which voxels are thinned; wider voxels are kept."""

CORE = 0.25
"""Smallest share of a component that erosion leaves: rims of gas, tables and clothes are thin."""

NEAR_MASK_MM = 5.0
"""Distance from the mask within which voxels are its rim, or bronchi and vessels at the hilum."""


@dataclass(frozen=True)
class Rejected:
    """A component of lung that the mask rejected.

    Attributes
    ----------
    ml : float
        Aerated volume on the reduced scan.
    touches_edge : bool
        True where it touches the first or last row or column of the axial plane, which the mask rejects.
    edge_cm2 : float
        Area of its faces on these rows and columns.
    slice : int
        Index of the axial slice with most of it, on the scan that was given.
    """

    ml: float
    touches_edge: bool
    edge_cm2: float = 0.0
    slice: int = 0

    def to_dict(self, *, with_place: bool = False) -> dict[str, Any]:
        """Return what the store records; the volume is rounded, since it is that of a reduced scan.

        Parameters
        ----------
        with_place : bool
            Add edge and slice, so that the component need not be found again.
        """
        place = {"edge_cm2": round(self.edge_cm2, 2), "slice": self.slice} if with_place else {}
        return {"ml": round(self.ml, 1), "touches_edge": self.touches_edge, **place}


def find_rejected(hu: npt.NDArray[np.int16], lung: Mask, steps: npt.NDArray[np.float64]) -> list[Rejected]:
    """Return the components of lung outside a mask.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of reduced voxels.
    lung : ndarray of bool, same shape
        Lung mask; it may be empty.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the vector in LPS, in mm, of one step along array axis ``j``.

    Returns
    -------
    list of Rejected
        Components in descending order of volume.
    """
    z, y, x = thinning = tuple(max(1, int(STEP_MM / length)) for length in np.linalg.norm(steps, axis=0).tolist())
    # Average neighbours, so that noise and texture do not break up a lung.
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
    body = largest_component(hu > BODY_HU)
    rejected = []
    for number in large.tolist():
        piece = pieces == number
        if not is_enclosed(piece, body, hu, across):
            continue
        edge_cm2 = _edge_cm2(piece, across, spacing)
        fullest = int(piece.sum(axis=tuple(across)).argmax()) * thinning[axis]
        rejected.append(Rejected(float(voxels[number]) * voxel_ml, edge_cm2 > 0, edge_cm2, fullest))
    return sorted(rejected, key=lambda component: -component.ml)


def _edge_cm2(piece: Mask, across: list[int], spacing: npt.NDArray[np.float64]) -> float:
    """Return the area of the faces of a component on the first and last rows and columns, cm²."""
    return sum(
        int(piece.take(index, a).sum()) * float(spacing.prod() / spacing[a]) / 100 for a in across for index in (0, -1)
    )


def large_components(
    mask: Mask, least_ml: float, spacing: Sequence[float], structure: npt.NDArray[np.bool_] | None = None
) -> Mask:
    """Return the components of a mask with at least a volume, connected by faces unless `structure` says otherwise."""
    parts, n = ndimage.label(mask, structure)
    ml = np.bincount(parts.reshape(-1), minlength=n + 1) * float(np.prod(spacing)) / 1000
    ml[0] = 0
    return np.asarray((ml >= least_ml)[parts])


def largest_component(mask: Mask) -> Mask:
    """Return the largest 6-connected component of a mask."""
    parts, n = ndimage.label(mask)
    if not n:
        return mask
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def is_enclosed(piece: Mask, body: Mask, hu: npt.NDArray[np.int16], across: list[int]) -> bool:
    """Return True if most rays out of a component meet the body before air; some may end at the image border."""
    outside = (hu < LUNG_HU[0]) & ~piece
    blocked = open_rays = rays = 0
    for axis in across:
        for turn in (1, -1):
            lines = [np.moveaxis(mask, axis, -1)[..., ::turn] for mask in (piece, body, outside)]
            inside, wall, air = (line.reshape(-1, line.shape[-1]) for line in lines)
            rows = inside.any(axis=1)
            inside, wall, air = inside[rows], wall[rows], air[rows]
            n = inside.shape[1]
            last = n - 1 - inside[:, ::-1].argmax(axis=1)
            beyond = np.arange(n) > last[:, None]
            first_wall = np.where((wall & beyond).any(axis=1), (wall & beyond).argmax(axis=1), n)
            first_air = np.where((air & beyond).any(axis=1), (air & beyond).argmax(axis=1), n)
            blocked += int((first_wall < first_air).sum())
            open_rays += int((first_air < first_wall).sum())
            rays += int(rows.sum())
    if blocked < ENCLOSED * (blocked + open_rays) or blocked < SEEN * rays:
        return False
    return blocked >= rays / 2 or _share_of_corners(piece, across) < CORNERS


def _share_of_corners(piece: Mask, across: list[int]) -> float:
    """Return the share of the corners of slices that are in a component, over the slices that it reaches."""
    rows, columns = across
    corners = piece.take([0, -1], rows).take([0, -1], columns).sum(axis=tuple(across))
    return float(corners[piece.any(axis=tuple(across))].mean()) / 4
