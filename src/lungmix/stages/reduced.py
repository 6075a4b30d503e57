"""Reduced copy of a case, a few megabytes of mask, air and HU, for steps that need the whole thorax at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.kernels.packed_masks import unpack
from lungmix.kernels.regions import Reduced
from lungmix.kernels.rejected_components import Rejected, find_rejected
from lungmix.store import Case, CaseFiles, CaseRef
from lungmix.store.chunking import layout_of, shrink_mean
from lungmix.store.schema import PACKED

COARSEST_MM = 4.0
"""Greatest width of the voxels of the reduced copy, unless those of the scan are wider."""

FINEST_MM = 2.5
"""Greatest distance of the voxels that are sampled from a finer level."""


def reduced_factors(geometry: Geometry) -> tuple[int, tuple[int, int, int], tuple[int, int, int]]:
    """Return how a reduced copy of an axial array is sampled.

    Parameters
    ----------
    geometry : Geometry
        Geometry of the axial array.

    Returns
    -------
    level : int
        Pyramid level that is sampled.
    stride : tuple of int
        Step on this level, along z, y, x.
    factors : tuple of int
        Voxels of the axial array in one such step, along z, y, x.
    """
    spacing, levels = geometry.spacing_zyx, layout_of(geometry).levels
    level = max(
        (i for i, shape in enumerate(levels) if max(shape.factors[a] * spacing[a] for a in (1, 2)) <= COARSEST_MM),
        default=0,
    )
    z, y, x = (max(1, int(FINEST_MM / (factor * s))) for factor, s in zip(levels[level].factors, spacing, strict=True))
    a, b, c = levels[level].factors
    return level, (z, y, x), (a * z, b * y, c * x)


def steps_of(geometry: Geometry, factors: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Return the displacements in LPS, mm, of steps along z, y, x: the columns of a 3 x 3 matrix."""
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return np.asarray(columns[:, ::-1] * factors, np.float64)


def find_rejected_components(case_ref: CaseRef) -> list[Rejected]:
    """Return lung components that the mask of a case does not contain; the mask may be empty."""
    reduced = reduced_copy(case_ref.open())
    return find_rejected(reduced.hu, reduced.lung, reduced.steps)


def reduced_copy(case: CaseFiles) -> Reduced:
    """Return the reduced copy of the axial array of a masked case."""
    return _reduced_from_levels(case) if case.geometry.axis_order.is_axial else _reduced_from_voxels(case)


def reduced_labels(case: CaseFiles, name: str) -> npt.NDArray[np.uint8]:
    """Return a label map of a masked case, at the voxels of its reduced copy."""
    order, axial = case.geometry.axis_order, case.geometry.axial
    level, stride, factors = reduced_factors(axial)
    if order.is_axial:
        return np.asarray(_strided(case, name, level, stride), np.uint8)
    steps = order.by_array(factors)
    # The first voxel of a step is that of the axial array, which is the last one where an axis is flipped.
    offsets = [
        (n - 1) % step if flip else 0 for n, step, flip in zip(case.geometry.shape, steps, order.flipped, strict=True)
    ]
    source = case.zarr_array(name)
    planes = [
        np.asarray(source[z])[offsets[1] :: steps[1], offsets[2] :: steps[2]]
        for z in range(offsets[0], source.shape[0], steps[0])
    ]
    return np.ascontiguousarray(order.to_axial(np.stack(planes)))


def _reduced_from_levels(case: CaseFiles) -> Reduced:
    """Return the reduced copy of a case that is stored as its axial array."""
    level, stride, factors = reduced_factors(case.geometry)
    lung, hu = (_strided(case, name, level, stride) for name in ("lung", "ct"))
    nx = case.geometry.shape[2]
    air = [
        unpack(case.read_packed(PACKED, start, stop)[-start % factors[0] :: factors[0], :: factors[1]], nx)[
            ..., :: factors[2]
        ]
        for start, stop in case.layout.slabs()
    ]
    return Reduced(lung > 0, np.concatenate(air) > 0, hu, factors, steps_of(case.geometry, factors))


def _reduced_from_voxels(case: CaseFiles) -> Reduced:
    """Return the reduced copy of the axial array of a case that is stored in another order of axes.

    Blocks of the coarse levels begin at the origin of the stored array, which is another corner of the axial array. So
    the scan is read at full size, in runs of slices that contain complete steps of the axial array.
    """
    order, axial = case.geometry.axis_order, case.geometry.axial
    level, stride, factors = reduced_factors(axial)
    blocks = layout_of(axial).levels[level].factors
    (depth, _, nx), step = case.geometry.shape, order.by_array(factors)[0]
    thick = max(case.layout.slab // step, 1) * step
    parts = []
    for first in range(0, depth, thick):
        # Slices are numbered in the order of the axial array.
        last = min(first + thick, depth)
        start, stop = (depth - last, depth - first) if order.flipped[0] else (first, last)
        hu = np.ascontiguousarray(order.to_axial(case.read("ct", start, stop)))
        lung = order.to_axial(case.read("lung", start, stop))
        air = order.to_axial(unpack(case.read_packed(PACKED, start, stop), nx))
        hu = shrink_mean(hu, blocks)[tuple(slice(None, None, n) for n in stride)]
        parts.append((*(mask[tuple(slice(None, None, n) for n in factors)] > 0 for mask in (lung, air)), hu))
    along = order.axes.index(0)
    lung, air, hu = (np.ascontiguousarray(np.concatenate(part, along)) for part in zip(*parts, strict=True))
    return Reduced(lung, air, hu, factors, steps_of(axial, factors))


def _strided(case: Case, name: str, level: int, stride: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Return every `stride`-th voxel of a level of an image; one stored slab at a time is in memory."""
    source, thick = case.zarr_array(name, level), case.layout.levels[level].shards[0]
    z, y, x = stride
    parts = [
        np.ascontiguousarray(np.asarray(source[start : start + thick])[-start % z :: z, ::y, ::x])
        for start in range(0, source.shape[0], thick)
    ]
    return np.concatenate(parts)
