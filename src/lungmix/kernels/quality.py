"""Numbers for quality control of a mask, measured on the reduced copy of a scan.

`lungmix.quality_flags` has the flags that follow from them, with thresholds and reasons.
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
"""Upper limit of reduced voxels of air around the body."""

PADDING_HU = -1150
"""Upper limit of reduced voxels of padding outside the field of view: no air is below."""

CLIPPED = 0.05
"""Share of voxels at their lowest value from which noise counts as clipped there, as scanners clip at -1024 HU."""

BODY_HU = -300
"""Lower limit of reduced voxels of the body: fat is near -100 HU."""

SKIN_MM = (8.0, 60.0)
"""Distances from the body within which outside air is measured: beyond its blurred rim, within the field of view."""

FEWEST = 20
"""Smallest number of voxels whose mean is stated."""

GAS_HU = -950
"""Upper limit of the median of a component of gas in bowel or stomach; lungs with severe emphysema are above."""

BASE_CM2 = 1.0
"""Smallest section of a lung at the back that counts as its base."""

BLANKET_MM = 12.0
"""Depth of an opening that removes table tops and clothes, which touch the body, from it."""


@dataclass(frozen=True)
class Numbers:
    """Measured numbers of a scan; NaN where a number cannot be measured.

    Attributes
    ----------
    rejected_ml : float
        Lung-like components outside the mask.
    cut_end_cm2, cut_edge_cm2 : float
        Area of both lungs on the first and last slice, and along the image edge or the border of the field of view.
    smaller_side_percent : float
        Smaller lung, of both.
    outside_percent : float
        Mask that is neither lung nor airway.
    table_ml, gas_ml, between_ml : float
        Outside the body; gas of bowel or stomach, which can be near a lung and have its region; the rest, between the
        lungs.
    airway_ml : float
        Trachea and main bronchi in the mask.
    trachea_mm : float
        Length of the trachea that was found; 0 if none was.
    outside_air_hu : float
        Median of the air around the body.
    dense_ml : float
        Dense tissue between lung and ribs outside the mask, see `lungmix.kernels.dense_gaps`.
    mediastinal_ml : float
        Dense lung in the mask that merges with the mediastinum, see `lungmix.kernels.dense_gaps`.
    base_difference_mm : float
        Difference in height of the lowest slices with lung at the back, right and left.
    slices : dict of str to int
        Axial slice that shows a number best, by its name; ``lung`` is the one with most of the mask.
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
        Reduced scan.
    regions : ndarray of uint8, shape (z, y, x), or None
        Region of each voxel of the mask, 0 outside it; None where right and left cannot be told.
    rejected : sequence of Rejected
        Lung-like components outside the mask.
    parts : ndarray of uint8, shape (z, y, x), optional
        Labels of `lungmix.tissue.DENSE` of an axial array, where the mask tells dense from aerated lung.

    Returns
    -------
    numbers : Numbers
        Measured numbers; slices are indices of the axial array at full size.
    core : ndarray of bool, shape (z, y, x)
        Voxels inside the trachea, a voxel away from its wall.
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
        core = _within_plane(airway.tube, axis)
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
    """Return the numbers that need regions, and the slices that show them."""
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
    """Return the lowest slice with enough of a lung in its dorsal half, of an axial array; None where there is none."""
    rows = np.flatnonzero(lung.any(axis=(0, 2)))
    if not rows.size:
        return None
    dorsal = lung[:, (rows[0] + rows[-1]) // 2 :]
    slices = np.flatnonzero(dorsal.sum(axis=(1, 2)) * spacing[1] * spacing[2] / 100 >= BASE_CM2)
    return int(slices[0]) if slices.size else None


def statistics_in_slices(hu: npt.NDArray[np.int16], selected: Mask) -> tuple[float, float]:
    """Return the mean of voxels, and their standard deviation about the mean of their slice, if not clipped.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        HU.
    selected : ndarray of bool, same shape
        Voxels to use; at least two in one slice.
    """
    values = np.asarray(hu[selected], np.float64)
    if not values.size:
        return math.nan, math.nan
    mean = float(values.mean())
    if np.count_nonzero(values == values.min()) >= CLIPPED * values.size:
        # The lower half of the noise is clipped: the upper half tells its width.
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
    """Return the index of the slice with most voxels, the middle one of the largest; None without voxels."""
    counts = mask.sum(axis=_across(axis))
    largest = np.flatnonzero(counts == counts.max())
    return int(largest[len(largest) // 2]) if counts.any() else None


def _plane(axis: int) -> Mask:
    """Return the structuring element of face neighbours within a slice."""
    element = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(element, axis, 0)[[0, 2]] = False
    return element


def _within_plane(mask: Mask, axis: int) -> Mask:
    return np.asarray(ndimage.binary_erosion(mask, _plane(axis)))


def _body(hu: npt.NDArray[np.int16], spacing: Sequence[float], axis: int) -> Mask:
    """Return the largest component of soft tissue without thin sheets, and what it encloses in each slice."""
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
    """Return the parts of the mask outside lungs and airway: those outside the body, and those in it."""
    pieces, n = ndimage.label(elsewhere)
    sizes = np.maximum(np.bincount(pieces.reshape(-1), minlength=n + 1), 1)
    joined = np.zeros(n + 1, np.bool_)
    joined[np.unique(pieces[ndimage.binary_dilation(near)])] = True
    outside = (np.bincount(pieces[~body], minlength=n + 1) > sizes / 2) & ~joined
    return {"table": outside[pieces] & elsewhere, "between": ~outside[pieces] & elsewhere}


def _separate_gas(reduced: Reduced, body: Mask) -> Mask:
    """Return the components of the mask inside the body that are gas, not lung, whatever their region is."""
    pieces, n = ndimage.label(reduced.lung)
    numbers = range(1, n + 1)
    medians = np.concatenate([[0.0], np.atleast_1d(ndimage.median(reduced.hu, pieces, numbers))]) if n else np.zeros(1)
    sizes = np.bincount(pieces.reshape(-1), minlength=n + 1)
    inside = 2 * np.bincount(pieces[body], minlength=n + 1) > sizes
    inside[0] = False
    return np.asarray(((medians < GAS_HU) & inside)[pieces])


def _cut_ends(lungs: Mask, spacing: Sequence[float], axis: int) -> tuple[float, int | None]:
    """Return the area of the lungs on the first and the last slice, cm², and the slice with more of it."""
    area = float(np.prod([spacing[a] for a in _across(axis)])) / 100
    ends = {index: int(lungs.take(index, axis).sum()) * area for index in (0, lungs.shape[axis] - 1)}
    worst = max(ends, key=lambda index: ends[index])
    return sum(ends.values()), worst if ends[worst] else None


def _cut_edge(lungs: Mask, hu: npt.NDArray[np.int16], spacing: Sequence[float], axis: int) -> npt.NDArray[np.float64]:
    """Return by voxel the area of the faces of the lungs on the image edge or next to padding, cm²."""
    faces = np.zeros(lungs.shape)
    for a in _across(axis):
        area = float(np.prod([spacing[b] for b in range(3) if b != a])) / 100
        beyond = np.pad(hu < PADDING_HU, [(1, 1) if b == a else (0, 0) for b in range(3)], constant_values=True)
        for start in (0, 2):
            neighbour = np.moveaxis(np.moveaxis(beyond, a, 0)[start : start + hu.shape[a]], 0, a)
            faces += area * (lungs & neighbour)
    return faces


def _outside_air(hu: npt.NDArray[np.int16], body: Mask, spacing: Sequence[float], axis: int) -> float:
    """Return the median of the air around the body without padding; NaN where there is too little."""
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
        # Air has noise; padding, and air that was clipped, is constant.
        varies = ndimage.maximum_filter(plane, 3) > ndimage.minimum_filter(plane, 3)
        near = (distance >= SKIN_MM[0]) & (distance <= SKIN_MM[1]) & outside.take(index, axis)
        selected.append(plane[near & varies])
    values = np.concatenate(selected) if selected else np.empty(0, np.int16)
    return float(np.median(values)) if values.size >= FEWEST else math.nan
