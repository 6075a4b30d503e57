"""Numbers for quality control of a mask, measured on the reduced copy of a scan.

`lungmix.quality_flags` defines the flags that these numbers raise, with thresholds and reasons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.airway import cranial_axis, find_airway
from lungmix.kernels.dense_gaps import find_dense_gaps, find_merging
from lungmix.kernels.regions import Labels, Mask, Reduced
from lungmix.kernels.rejected_components import Rejected
from lungmix.tissue import AIRWAY, ELSEWHERE, LEFT, RIGHT

AIR_HU = -900
"""Upper limit of the HU of air around the body, on the reduced copy."""

PADDING_HU = -1150
"""Upper limit of the HU of padding outside the field of view, on the reduced copy; air is above it."""

CLIPPED = 0.05
"""If at least this share of voxels has the lowest value among them, noise counts as clipped there. Scanners clip at
-1024 HU."""

BODY_HU = -300
"""Lower limit of the HU of the body on the reduced copy: fat is near -100 HU."""

SKIN_MM = (8.0, 60.0)
"""Smallest and largest distance from the body, mm, at which the air around it is measured: outside the blurred rim of
the body, and inside the field of view."""

FEWEST = 20
"""Smallest number of voxels of air from which a median is computed."""

GAS_HU = -950
"""Upper limit of the median HU of a component of gas in bowel or stomach; that of lungs with severe emphysema is
higher."""

BASE_CM2 = 1.0
"""Smallest area, cm², of the dorsal half of a lung in an axial slice that counts as lung at the back."""

BLANKET_MM = 12.0
"""Thickness, mm, up to which an opening removes sheets that touch the body, such as table tops and clothes."""


@dataclass(frozen=True)
class Numbers:
    """Measured numbers of a scan; NaN where a number cannot be measured.

    Attributes
    ----------
    rejected_ml : float
        Volume of components that look like lung but are not in the mask.
    cut_end_cm2 : float
        Area of the lungs on the first and the last axial slice.
    cut_edge_cm2 : float
        Area of the lungs, and of components that look like lung, at the image edge or the border of the field of view.
    smaller_side_percent : float
        Volume of the smaller lung, as a percentage of both lungs.
    outside_percent : float
        Percentage of the mask that is neither lung nor airway.
    table_ml : float
        Part of the mask outside the body.
    gas_ml : float
        Part of the mask that is gas in bowel or stomach. Near a lung it can have the region of this lung.
    between_ml : float
        Rest of the mask outside lungs and airway, which is mostly between the lungs.
    airway_ml : float
        Trachea and main bronchi in the mask.
    trachea_mm : float
        Length of the trachea; 0 if no trachea was found.
    outside_air_hu : float
        Median HU of the air around the body.
    dense_ml : float
        Dense tissue between lung and ribs that is not in the mask, see `lungmix.kernels.dense_gaps`.
    mediastinal_ml : float
        Dense lung in the mask that merges with the mediastinum, see `lungmix.kernels.dense_gaps`.
    base_difference_mm : float
        Difference in height between the lowest slice with right lung at the back and the lowest with left lung there.
    slices : dict of str to int
        For numbers by name, the axial slice that shows the number best; for ``lung``, the slice with most of the mask.
    """

    rejected_ml: float
    outside_air_hu: float
    cut_end_cm2: float = math.nan
    cut_edge_cm2: float = math.nan
    smaller_side_percent: float = math.nan
    outside_percent: float = math.nan
    table_ml: float = math.nan
    gas_ml: float = math.nan
    between_ml: float = math.nan
    airway_ml: float = math.nan
    trachea_mm: float = math.nan
    dense_ml: float = math.nan
    mediastinal_ml: float = math.nan
    base_difference_mm: float = math.nan
    slices: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary with rounded numbers; numbers that could not be measured are left out."""
        values = {name: value for name, value in asdict(self).items() if name != "slices"}
        rounded = {name: round(value, 2) for name, value in values.items() if math.isfinite(value)}
        return {**rounded, "slices": self.slices}


def measure_reduced(
    reduced: Reduced, regions: Labels | None, rejected: Sequence[Rejected], parts: Labels | None = None
) -> tuple[Numbers, Mask]:
    """Measure a mask and the air of a scan.

    Parameters
    ----------
    reduced : Reduced
        Reduced copy of the scan.
    regions : ndarray of uint8, shape (z, y, x), or None
        Label in `lungmix.tissue.SIDES` of each voxel of the mask, 0 outside it; None if right and left are unknown.
    rejected : sequence of Rejected
        Components that look like lung but are not in the mask.
    parts : ndarray of uint8, shape (z, y, x), optional
        Labels of `lungmix.tissue.DENSE` of an axial array, if the mask distinguishes dense from aerated lung.

    Returns
    -------
    numbers : Numbers
        Measured numbers; slices are indices of the axial array at full size.
    core : ndarray of bool, shape (z, y, x)
        Voxels of the trachea whose neighbours in the axial slice are in the trachea as well.
    """
    axis = cranial_axis(reduced.steps)
    body = _body(reduced.hu, reduced.spacing_zyx, axis)
    slices = {"lung": _fullest(reduced.lung, axis)}
    edges = [component for component in rejected if component.edge_cm2]
    if rejected:
        slices["rejected_ml"] = rejected[0].slice
    values = {
        "rejected_ml": float(sum(component.ml for component in rejected)),
        "outside_air_hu": _outside_air(reduced.hu, body, reduced.spacing_zyx, axis),
    }
    core = np.zeros(reduced.lung.shape, np.bool_)
    if regions is not None:
        airway = find_airway(reduced.hu, reduced.lung, reduced.steps)
        core = within_plane(airway.tube, axis)
        of_regions, slices_of_regions = _measure_regions(reduced, regions, body, axis)
        values |= of_regions
        slices |= slices_of_regions
        values["trachea_mm"] = int(airway.tube.any(axis=_across(axis)).sum()) * reduced.spacing_zyx[axis]
        slices["trachea_mm"] = _fullest(airway.tube, axis)
    if parts is not None:
        merging = find_merging(parts, reduced.spacing_zyx)
        values["mediastinal_ml"] = int(merging.sum()) * float(np.prod(reduced.spacing_zyx)) / 1000
        slices["mediastinal_ml"] = _fullest(merging, axis)
    if edges:
        values["cut_edge_cm2"] = values.get("cut_edge_cm2", 0.0) + sum(component.edge_cm2 for component in edges)
        slices["cut_edge_cm2"] = edges[0].slice
    full = {name: index * reduced.factors[axis] for name, index in slices.items() if index is not None}
    return Numbers(**values, slices=full), core


def _measure_regions(
    reduced: Reduced, regions: Labels, body: Mask, axis: int
) -> tuple[dict[str, float], dict[str, int | None]]:
    """Return the numbers that need the regions of the mask, and for each the slice that shows it best."""
    spacing = reduced.spacing_zyx
    voxel_ml = float(np.prod(spacing)) / 1000
    lungs = (regions == RIGHT.label) | (regions == LEFT.label)
    elsewhere, airway = regions == ELSEWHERE.label, regions == AIRWAY.label
    gas = _separate_gas(reduced, body)
    parts = {**_parts_elsewhere(elsewhere & ~gas, (lungs & ~gas) | airway, body), "gas": gas}
    outside = elsewhere | gas
    dense = find_dense_gaps(reduced.hu, lungs, spacing)
    cut_end, end_slice = _cut_ends(lungs, spacing, axis)
    cut_edge = _cut_edge(lungs, reduced.hu, spacing, axis)
    bases = [_base_at_the_back(regions == side.label, spacing) for side in (RIGHT, LEFT)]
    sides = sorted(int((regions == side.label).sum()) for side in (RIGHT, LEFT))
    values = {
        "cut_end_cm2": cut_end,
        "cut_edge_cm2": float(cut_edge.sum()),
        "smaller_side_percent": 100 * sides[0] / sum(sides) if sum(sides) else math.nan,
        "outside_percent": 100 * int(outside.sum()) / max(int(reduced.lung.sum()), 1),
        **{f"{name}_ml": int(part.sum()) * voxel_ml for name, part in parts.items()},
        "airway_ml": int(airway.sum()) * voxel_ml,
        "dense_ml": int(dense.sum()) * voxel_ml,
    }
    if bases[0] is not None and bases[1] is not None:
        values["base_difference_mm"] = abs(bases[0] - bases[1]) * spacing[0]
    slices = {
        "outside_percent": _fullest(outside, axis),
        "dense_ml": _fullest(dense, axis),
        "base_difference_mm": max((base for base in bases if base is not None), default=None),
        "cut_end_cm2": end_slice,
        "cut_edge_cm2": _fullest(cut_edge > 0, axis),
    }
    return values, slices


def _base_at_the_back(lung: Mask, spacing: Sequence[float]) -> int | None:
    """Return the index of the lowest axial slice with lung at the back, at least `BASE_CM2`; None if there is none.

    The back is the dorsal half of the lung, behind the middle between its first and its last row; `lung` is an axial
    array, whose axes run to the head, to the back and to the left.
    """
    rows = np.flatnonzero(lung.any(axis=(0, 2)))
    if not rows.size:
        return None
    dorsal = lung[:, (rows[0] + rows[-1]) // 2 :]
    slices = np.flatnonzero(dorsal.sum(axis=(1, 2)) * spacing[1] * spacing[2] / 100 >= BASE_CM2)
    return int(slices[0]) if slices.size else None


def statistics_in_slices(hu: npt.NDArray[np.int16], selected: Mask) -> tuple[float, float]:
    """Return the mean HU of selected voxels, and the standard deviation of their noise.

    Noise is the deviation of a voxel from the mean of its slice. If noise is clipped at the lowest value (`CLIPPED`),
    it is the deviation of the upper half of all selected voxels from the median of all of them.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        HU.
    selected : ndarray of bool, same shape
        Voxels to use. Without any, both results are NaN; without two in one slice, the standard deviation is NaN.
    """
    values = np.asarray(hu[selected], np.float64)
    if not values.size:
        return math.nan, math.nan
    mean = float(values.mean())
    if np.count_nonzero(values == values.min()) >= CLIPPED * values.size:
        # Values below the median are clipped: estimate the width of the noise from those above it.
        upper = values[values >= np.median(values)] - np.median(values)
        return mean, math.sqrt(float((upper**2).mean()))
    squares, degrees = 0.0, 0
    for plane, inside in zip(hu, selected, strict=True):
        of_slice = np.asarray(plane[inside], np.float64)
        squares += float(((of_slice - of_slice.mean()) ** 2).sum()) if of_slice.size else 0.0
        degrees += max(of_slice.size - 1, 0)
    return mean, math.sqrt(squares / degrees) if degrees else math.nan


def _across(axis: int) -> tuple[int, ...]:
    return tuple(a for a in range(3) if a != axis)


def _fullest(mask: Mask, axis: int) -> int | None:
    """Return the index of the slice with most voxels of a mask; None if the mask is empty.

    If several slices have most voxels, it is the middle one of these.
    """
    counts = mask.sum(axis=_across(axis))
    largest = np.flatnonzero(counts == counts.max())
    return int(largest[len(largest) // 2]) if counts.any() else None


def _plane(axis: int) -> Mask:
    """Return the structuring element of a voxel and its four face neighbours in the slice; `axis` crosses slices."""
    element = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(element, axis, 0)[[0, 2]] = False
    return element


def within_plane(mask: Mask, axis: int) -> Mask:
    """Return the voxels of a mask whose neighbours in the axial plane, across `axis`, are in the mask as well."""
    return np.asarray(ndimage.binary_erosion(mask, _plane(axis)))


def _body(hu: npt.NDArray[np.int16], spacing: Sequence[float], axis: int) -> Mask:
    """Return the body: the largest component of soft tissue without thin sheets, its holes in each slice filled."""
    width = max(spacing[a] for a in _across(axis))
    soft = ndimage.binary_opening(hu > BODY_HU, _plane(axis), iterations=max(1, round(BLANKET_MM / 2 / width)))
    parts, n = ndimage.label(soft)
    if not n:
        return np.zeros(hu.shape, np.bool_)
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0
    body = parts == sizes.argmax()
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(body, axis, 0)], axis=axis)


def _parts_elsewhere(elsewhere: Mask, near: Mask, body: Mask) -> dict[str, Mask]:
    """Return the part of `elsewhere` outside the body, as "table", and the rest, as "between".

    A component counts as outside the body if most of its voxels are, unless it touches `near`.
    """
    pieces, n = ndimage.label(elsewhere)
    sizes = np.maximum(np.bincount(pieces.reshape(-1), minlength=n + 1), 1)
    joined = np.zeros(n + 1, np.bool_)
    joined[np.unique(pieces[ndimage.binary_dilation(near)])] = True
    outside = (np.bincount(pieces[~body], minlength=n + 1) > sizes / 2) & ~joined
    return {"table": outside[pieces] & elsewhere, "between": ~outside[pieces] & elsewhere}


def _separate_gas(reduced: Reduced, body: Mask) -> Mask:
    """Return the components of the mask inside the body that are gas and not lung, whatever region they belong to."""
    pieces, n = ndimage.label(reduced.lung)
    numbers = range(1, n + 1)
    medians = np.concatenate([[0.0], np.atleast_1d(ndimage.median(reduced.hu, pieces, numbers))]) if n else np.zeros(1)
    sizes = np.bincount(pieces.reshape(-1), minlength=n + 1)
    inside = 2 * np.bincount(pieces[body], minlength=n + 1) > sizes
    inside[0] = False
    return np.asarray(((medians < GAS_HU) & inside)[pieces])


def _cut_ends(lungs: Mask, spacing: Sequence[float], axis: int) -> tuple[float, int | None]:
    """Return the area of the lungs on the first and the last slice together, cm², and which of them has more of it."""
    area = float(np.prod([spacing[a] for a in _across(axis)])) / 100
    ends = {index: int(lungs.take(index, axis).sum()) * area for index in (0, lungs.shape[axis] - 1)}
    worst = max(ends, key=lambda index: ends[index])
    return sum(ends.values()), worst if ends[worst] else None


def _cut_edge(lungs: Mask, hu: npt.NDArray[np.int16], spacing: Sequence[float], axis: int) -> npt.NDArray[np.float64]:
    """Return for each voxel of the lungs the area of its faces at the image edge or next to padding, cm²."""
    faces = np.zeros(lungs.shape)
    for a in _across(axis):
        area = float(np.prod([spacing[b] for b in range(3) if b != a])) / 100
        beyond = np.pad(hu < PADDING_HU, [(1, 1) if b == a else (0, 0) for b in range(3)], constant_values=True)
        for start in (0, 2):
            neighbour = np.moveaxis(np.moveaxis(beyond, a, 0)[start : start + hu.shape[a]], 0, a)
            faces += area * (lungs & neighbour)
    return faces


def _outside_air(hu: npt.NDArray[np.int16], body: Mask, spacing: Sequence[float], axis: int) -> float:
    """Return the median HU of the air around the body, without padding; NaN with fewer than `FEWEST` voxels of air."""
    if not body.any():
        return math.nan
    outside = (hu < AIR_HU) & (hu > PADDING_HU) & ~body
    sampling = [spacing[a] for a in _across(axis)]
    selected = []
    for index in range(0, hu.shape[axis], max(1, hu.shape[axis] // 8)):
        inside = body.take(index, axis)
        if not inside.any():
            continue
        distance = ndimage.distance_transform_edt(~inside, sampling)
        plane = np.asarray(hu.take(index, axis))
        # Air has noise, whereas padding and clipped air are constant.
        varies = ndimage.maximum_filter(plane, 3) > ndimage.minimum_filter(plane, 3)
        near = (distance >= SKIN_MM[0]) & (distance <= SKIN_MM[1]) & outside.take(index, axis)
        selected.append(plane[near & varies])
    values = np.concatenate(selected) if selected else np.empty(0, np.int16)
    return float(np.median(values)) if values.size >= FEWEST else math.nan
