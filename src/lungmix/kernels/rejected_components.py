"""Components that look like lung on the reduced copy of a scan but that the rules of the mask rejected."""

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
"""Range of the HU of lung on the reduced copy. Gas in bowel and stomach and the air around the body are near -1000
HU."""

BODY_HU = -300
"""Lower limit of the HU of the body on the reduced copy: fat is near -100 HU."""

SMALLEST_ML = 20.0
"""Smallest component that can be a lung, mL. Bowel gas that blends with its wall was observed up to 15 mL; a newborn's
lung has 30 mL."""

SMALLEST_SHARE = 0.005
"""Smallest component, as a share of the volume of the mask. Smaller ones would change no measurement."""

ENCLOSED = 0.75
"""A component lies in the body only if at least this share of the rays out of it, along rows and columns, meet the body
before they meet air. Rays that leave the image before they meet either do not count here."""

SEEN = 1 / 3
"""Smallest share of all rays that meet the body before air. The share is low, because most rays leave the image if it
cuts a lung on all sides. Rays out of a table or mattress meet the body on one of four sides."""

CORNERS = 1 / 3
"""If less than half of all rays meet the body before air, a component may hold at most this share of the corners of its
slices. Air around, in front of or behind a body holds two of the four corners or more."""

SMOOTH = 3
"""Width in voxels of the averaging filter that is applied to the thinned voxels."""

STEP_MM = 4.0
"""Largest spacing, mm, to which the voxels of the reduced copy are thinned by averaging blocks of them."""

CORE = 0.25
"""Smallest share of the voxels of a component that an erosion leaves. Less is left of rims of gas, tables and clothes,
which are thin."""

NEAR_MASK_MM = 5.0
"""Distance from the mask, mm, within which voxels are ignored: they are the rim of the lungs, or bronchi and vessels at
the hilum."""


@dataclass(frozen=True)
class Rejected:
    """A component that looks like lung but is not in the mask.

    Attributes
    ----------
    ml : float
        Aerated volume on the reduced copy, mL.
    touches_edge : bool
        True if the component touches the first or last row or column of an axial slice; masks exclude such components.
    edge_cm2 : float
        Area of the faces of the component on these rows and columns, cm².
    slice : int
        Index of the axial slice with most of the component, on the reduced copy that `find_rejected` was given.
    """

    ml: float
    touches_edge: bool
    edge_cm2: float = 0.0
    slice: int = 0

    def to_dict(self, *, with_place: bool = False) -> dict[str, Any]:
        """Return the values that the store records; the volume is rounded, since it is measured on the reduced copy.

        Parameters
        ----------
        with_place : bool
            Add ``edge_cm2`` and ``slice``, so that the component does not have to be searched again.
        """
        place = {"edge_cm2": round(self.edge_cm2, 2), "slice": self.slice} if with_place else {}
        return {"ml": round(self.ml, 1), "touches_edge": self.touches_edge, **place}


def find_rejected(hu: npt.NDArray[np.int16], lung: Mask, steps: npt.NDArray[np.float64]) -> list[Rejected]:
    """Return the components that look like lung but are not in a mask.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        Mean HU of the voxels of the reduced copy.
    lung : ndarray of bool, same shape
        Lung mask on the reduced copy; it may be empty.
    steps : ndarray of float64, shape (3, 3)
        Column ``j`` is the vector in LPS, in mm, of one step along array axis ``j``.

    Returns
    -------
    list of Rejected
        Components in descending order of volume.
    """
    z, y, x = thinning = tuple(max(1, int(STEP_MM / length)) for length in np.linalg.norm(steps, axis=0).tolist())
    # Average neighbouring voxels, so that noise and texture do not break a lung into pieces.
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
    """Return the components of a mask whose volume is at least `least_ml`.

    Components are connected by faces, or by the neighbours in `structure` (see `scipy.ndimage.label`).
    """
    parts, n = ndimage.label(mask, structure)
    ml = np.bincount(parts.reshape(-1), minlength=n + 1) * float(np.prod(spacing)) / 1000
    ml[0] = 0
    return np.asarray((ml >= least_ml)[parts])


def largest_component(mask: Mask) -> Mask:
    """Return the largest component of a mask, connected by faces."""
    parts, n = ndimage.label(mask)
    if not n:
        return mask
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def is_enclosed(piece: Mask, body: Mask, hu: npt.NDArray[np.int16], across: list[int]) -> bool:
    """Return True if a component lies in the body: rays out of it meet the body before they meet outside air.

    Rays run outwards along the axes `across`, rows and columns. `ENCLOSED`, `SEEN` and `CORNERS` define how many must
    meet the body; some may leave the image before.
    """
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
    """Return which share of the image corners a component holds, averaged over the slices with voxels of it."""
    rows, columns = across
    corners = piece.take([0, -1], rows).take([0, -1], columns).sum(axis=tuple(across))
    return float(corners[piece.any(axis=tuple(across))].mean()) / 4
