"""Reduced copy of a case, a few megabytes of mask, air and HU, for steps that need the whole thorax at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.kernels.anatomical.airway import find_airway
from lungmix.kernels.packed_masks import unpack
from lungmix.kernels.reduction import Reduction, reduction_of
from lungmix.kernels.regions import Reduced
from lungmix.kernels.rejected_components import Rejected, find_rejected
from lungmix.parameters import ANATOMICAL, ANATOMICAL_HU
from lungmix.store import Case, CaseFiles, CaseRef
from lungmix.store.schema import PACKED


def steps_of(geometry: Geometry, factors: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Return the displacements in LPS, mm, of steps along z, y, x: the columns of a 3 x 3 matrix."""
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return np.asarray(columns[:, ::-1] * factors, np.float64)


def find_rejected_components(case_ref: CaseRef, preset: str | None = None) -> list[Rejected]:
    """Return lung components that the mask of a case does not contain; the mask may be empty.

    Parameters
    ----------
    case_ref : CaseRef
        The case.
    preset : str, optional
        Preset of its mask.
    """
    return rejected_components(reduced_copy(case_ref.open()), preset)


def rejected_components(reduced: Reduced, preset: str | None = None) -> list[Rejected]:
    """Return lung components that a mask of some preset does not contain, from a reduced copy."""
    lung = reduced.lung
    if preset == ANATOMICAL:
        # This preset leaves trachea and main bronchi out, which look like lung where voxels are wide.
        lung = lung | find_airway(reduced.hu, reduced.hu < ANATOMICAL_HU, lung, reduced.spacing_zyx)
    return find_rejected(reduced.hu, lung, reduced.steps)


def reduced_copy(case: CaseFiles) -> Reduced:
    """Return the reduced copy of the axial array of a masked case."""
    return _reduced_from_levels(case) if case.geometry.axis_order.is_axial else _reduced_from_voxels(case)


def reduced_labels(case: CaseFiles, name: str) -> npt.NDArray[np.uint8]:
    """Return a label map of a masked case, at the voxels of its reduced copy."""
    order, axial = case.geometry.axis_order, case.geometry.axial
    reduction = reduction_of(axial.spacing_zyx)
    factors = reduction.factors
    if order.is_axial:
        return np.asarray(_strided(case, name, reduction.level, reduction.stride), np.uint8)
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


def reduced_hu(case: CaseFiles) -> npt.NDArray[np.int16]:
    """Return the mean HU of the reduced voxels of the axial array of a case; see `lungmix.kernels.reduction`."""
    reduction = reduction_of(case.geometry.axial.spacing_zyx)
    if case.geometry.axis_order.is_axial:
        return _strided(case, "ct", reduction.level, reduction.stride)
    order = case.geometry.axis_order
    parts = [
        reduction.apply(np.ascontiguousarray(order.to_axial(case.read("ct", start, stop))))
        for start, stop in _axial_runs(case, reduction)
    ]
    return np.ascontiguousarray(np.concatenate(parts, order.axes.index(0)))


def _reduced_from_levels(case: CaseFiles) -> Reduced:
    """Return the reduced copy of a case that is stored as its axial array."""
    reduction = reduction_of(case.geometry.spacing_zyx)
    factors = reduction.factors
    lung, hu = (_strided(case, name, reduction.level, reduction.stride) for name in ("lung", "ct"))
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
    order, axial, nx = case.geometry.axis_order, case.geometry.axial, case.geometry.shape[2]
    reduction = reduction_of(axial.spacing_zyx)
    factors = reduction.factors
    parts = []
    for start, stop in _axial_runs(case, reduction):
        hu = np.ascontiguousarray(order.to_axial(case.read("ct", start, stop)))
        lung = order.to_axial(case.read("lung", start, stop))
        air = order.to_axial(unpack(case.read_packed(PACKED, start, stop), nx))
        masks = (mask[tuple(slice(None, None, n) for n in factors)] > 0 for mask in (lung, air))
        parts.append((*masks, reduction.apply(hu)))
    along = order.axes.index(0)
    lung, air, hu = (np.ascontiguousarray(np.concatenate(part, along)) for part in zip(*parts, strict=True))
    return Reduced(lung, air, hu, factors, steps_of(axial, factors))


def _axial_runs(case: CaseFiles, reduction: Reduction) -> Iterator[tuple[int, int]]:
    """Yield runs of stored slices that contain complete steps of the axial array, in the order of that."""
    order = case.geometry.axis_order
    depth, step = case.geometry.shape[0], order.by_array(reduction.factors)[0]
    thick = max(case.layout.slab // step, 1) * step
    for first in range(0, depth, thick):
        # Slices are numbered in the order of the axial array.
        last = min(first + thick, depth)
        yield (depth - last, depth - first) if order.flipped[0] else (first, last)


def _strided(case: Case, name: str, level: int, stride: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Return every `stride`-th voxel of a level of an image; one stored slab at a time is in memory."""
    source, thick = case.zarr_array(name, level), case.layout.levels[level].shards[0]
    z, y, x = stride
    parts = [
        np.ascontiguousarray(np.asarray(source[start : start + thick])[-start % z :: z, ::y, ::x])
        for start in range(0, source.shape[0], thick)
    ]
    return np.concatenate(parts)
