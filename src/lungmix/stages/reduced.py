"""Reduced copy of a case: mask, air and mean HU at voxels of about 4 mm.

It has a few megabytes, for steps that need the whole thorax in memory. Its axes are those of the axial array: to the
head, to the back and to the left of the patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.kernels.anatomical.airway import find_airway
from lungmix.kernels.packed_masks import unpack
from lungmix.kernels.reduction import ReducedGrid, Reduction, reduction_of
from lungmix.kernels.regions import Reduced
from lungmix.kernels.rejected_components import Rejected, find_rejected
from lungmix.parameters import ANATOMICAL, ANATOMICAL_HU
from lungmix.store import Case, CaseFiles, CaseRef
from lungmix.store.schema import PACKED

_RUN = 4
"""Reduced voxels along the slices of a run that is averaged at a time."""


def steps_of(geometry: Geometry, factors: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Return a 3 x 3 matrix; its columns are the vectors, in mm and LPS, from a reduced voxel to the next.

    The columns are for steps along z, y and x. `factors` are the voxels of the scan in one step, along z, y, x.
    """
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return np.asarray(columns[:, ::-1] * factors, np.float64)


def find_rejected_components(case_ref: CaseRef, preset: str | None = None) -> list[Rejected]:
    """Return components of air that look like lung and that the mask of a case does not contain.

    Parameters
    ----------
    case_ref : CaseRef
        The case; its mask may be empty.
    preset : str, optional
        Preset of the mask.
    """
    return rejected_components(reduced_copy(case_ref.open()), preset)


def rejected_components(reduced: Reduced, preset: str | None = None) -> list[Rejected]:
    """Return components of air in a reduced copy that look like lung and that its mask does not contain.

    `preset` is the preset of the mask, if it was computed.
    """
    lung = reduced.lung
    if preset == ANATOMICAL:
        # Masks of this preset omit trachea and main bronchi on purpose. In wide voxels these look like lung.
        lung = lung | find_airway(reduced.hu, reduced.hu < ANATOMICAL_HU, lung, reduced.spacing_zyx)
    return find_rejected(reduced.hu, lung, reduced.steps)


def reduced_copy(case: CaseFiles, image: str | None = None) -> Reduced:
    """Return the reduced copy of a masked case, with HU of an image; by default of that whose HU are measured."""
    reduce = _reduced_from_levels if case.geometry.axis_order.is_axial else _reduced_from_voxels
    return reduce(case, image or case.measured_image)


def reduced_labels(case: CaseFiles, name: str) -> npt.NDArray[np.uint8]:
    """Return the values of the label map `name` of a masked case at the voxels of its reduced copy."""
    order, axial = case.geometry.axis_order, case.geometry.axial
    reduction = reduction_of(axial.spacing_zyx)
    factors = reduction.factors
    if order.is_axial:
        return np.asarray(_strided(case, name, reduction.level, reduction.stride), np.uint8)
    steps = order.by_array(factors)
    # Samples start at the first voxel of the axial array. Along a flipped axis, this is the last voxel of the stored
    # array.
    offsets = [
        (n - 1) % step if flip else 0 for n, step, flip in zip(case.geometry.shape, steps, order.flipped, strict=True)
    ]
    source = case.zarr_array(name)
    planes = [
        np.asarray(source[z])[offsets[1] :: steps[1], offsets[2] :: steps[2]]
        for z in range(offsets[0], source.shape[0], steps[0])
    ]
    return np.ascontiguousarray(order.to_axial(np.stack(planes)))


def reduced_hu(case: CaseFiles, grid: ReducedGrid, image: str) -> npt.NDArray[np.int16]:
    """Return the mean HU of the reduced voxels of the axial array of an image; it is read once, slab by slab."""
    return reduced_means(case, grid, partial(case.read, image))


def reduced_means(
    case: CaseFiles, grid: ReducedGrid, read: Callable[[int, int], npt.NDArray[np.int16]]
) -> npt.NDArray[np.int16]:
    """Return the means of reduced voxels of the axial array of a volume, which is read once, slab by slab.

    Parameters
    ----------
    case : CaseFiles
        Case that the volume belongs to.
    grid : ReducedGrid
        Reduced voxels of the axial array.
    read : callable
        ``read(start, stop)`` returns slices of the volume in the storage order of the scan, int16.
    """
    order = case.geometry.axis_order
    along = order.axes.index(0)
    spans = list(case.layout.slabs())
    slabs = (order.to_axial(read(*span)) for span in (spans[::-1] if order.flipped[0] else spans))
    missing = list(grid.missing)
    parts = []
    for run in _runs(slabs, grid, along):
        complete = grid.complete(run, (missing[0], missing[1], missing[2]))
        parts.append(grid.reduction.apply(np.ascontiguousarray(complete)))
        # Only the first run begins before the volume.
        missing[along] = 0
    return np.ascontiguousarray(np.concatenate(parts, along))


def _runs(slabs: Iterable[npt.NDArray[np.int16]], grid: ReducedGrid, along: int) -> Iterator[npt.NDArray[np.int16]]:
    """Yield runs of a few slices that end between reduced voxels, from slabs that follow each other along an axis."""
    factor = grid.reduction.factors[along]
    longest = _RUN * factor
    at = grid.missing[along]
    rest: list[npt.NDArray[np.int16]] = []
    for slab in slabs:
        n = slab.shape[along]
        for first, last in pairwise([0, *range(longest - at % longest, n, longest), n]):
            rest.append(slab[(slice(None),) * along + (slice(first, last),)])
            if (at + last) % factor == 0:
                yield np.concatenate(rest, along)
                rest = []
        # Copies, so that no slab stays in memory while the next one is read.
        rest = [part.copy() for part in rest]
        at += n
        del slab
    if rest:
        yield np.concatenate(rest, along)


def _reduced_from_levels(case: CaseFiles, image: str) -> Reduced:
    """Return the reduced copy of a case whose stored array is axial, from a coarse level of its image."""
    reduction = reduction_of(case.geometry.spacing_zyx)
    factors = reduction.factors
    lung, hu = (_strided(case, name, reduction.level, reduction.stride) for name in ("lung", image))
    nx = case.geometry.shape[2]
    air = [
        unpack(case.read_packed(PACKED, start, stop)[-start % factors[0] :: factors[0], :: factors[1]], nx)[
            ..., :: factors[2]
        ]
        for start, stop in case.layout.slabs()
    ]
    return Reduced(lung > 0, np.concatenate(air) > 0, hu, factors, steps_of(case.geometry, factors))


def _reduced_from_voxels(case: CaseFiles, image: str) -> Reduced:
    """Return the reduced copy of a case whose stored array is not axial, from its full-size voxels.

    A voxel of a coarse level is the mean of a block, and blocks are counted from the origin of the stored array, which
    is another corner of the volume than the origin of the axial array. So coarse levels cannot be used here.
    """
    order, axial, nx = case.geometry.axis_order, case.geometry.axial, case.geometry.shape[2]
    reduction = reduction_of(axial.spacing_zyx)
    factors = reduction.factors
    parts = []
    for start, stop in _axial_runs(case, reduction):
        hu = np.ascontiguousarray(order.to_axial(case.read(image, start, stop)))
        lung = order.to_axial(case.read("lung", start, stop))
        air = order.to_axial(unpack(case.read_packed(PACKED, start, stop), nx))
        masks = (mask[tuple(slice(None, None, n) for n in factors)] > 0 for mask in (lung, air))
        parts.append((*masks, reduction.apply(hu)))
    along = order.axes.index(0)
    lung, air, hu = (np.ascontiguousarray(np.concatenate(part, along)) for part in zip(*parts, strict=True))
    return Reduced(lung, air, hu, factors, steps_of(axial, factors))


def _axial_runs(case: CaseFiles, reduction: Reduction) -> Iterator[tuple[int, int]]:
    """Yield runs of stored slices, as pairs of first slice and slice after the last, in the order of the axial array.

    A run contains whole blocks of voxels, each of which becomes one reduced voxel.
    """
    order = case.geometry.axis_order
    depth, step = case.geometry.shape[0], order.by_array(reduction.factors)[0]
    thick = max(case.layout.slab // step, 1) * step
    for first in range(0, depth, thick):
        # `first` and `last` count slices in the order of the axial array.
        last = min(first + thick, depth)
        yield (depth - last, depth - first) if order.flipped[0] else (first, last)


def _strided(case: Case, name: str, level: int, stride: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Return every n-th voxel of a level of an image, with n from `stride` for z, y, x; reads one shard at a time."""
    source, thick = case.zarr_array(name, level), case.layout.levels[level].shards[0]
    z, y, x = stride
    parts = [
        np.ascontiguousarray(np.asarray(source[start : start + thick])[-start % z :: z, ::y, ::x])
        for start in range(0, source.shape[0], thick)
    ]
    return np.concatenate(parts)
