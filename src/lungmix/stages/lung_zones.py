"""Lung zones: reads regions and image, writes the zone of each lung voxel and a histogram per zone; see docs/zones.md.

Runs on request, and depends on the regions of the mask. A first pass counts the voxels of each lung per plane and takes
the regions at the reduced voxels; one small task finds the planes and the cores of the lungs in them. A second pass
looks up the zone of each voxel. Neither chunks, nor workers, nor the storage order of the scan change a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import numpy as np
import numpy.typing as npt

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import StoreError
from lungmix.geometry import AxisOrder
from lungmix.kernels.histogram import N_HU, SparseHistogram
from lungmix.kernels.lung_zones import ZonePlanes, code_tables, count_planes, find_cores, planes_of_lungs, zone_counts
from lungmix.kernels.packed_masks import span_of
from lungmix.kernels.reduction import reduction_of
from lungmix.parameters import ZONES_BY_VOLUME
from lungmix.stages import convert, mask, regions
from lungmix.stages.base import StageContext, Status
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts
from lungmix.store.schema import ZONE
from lungmix.tissue import LUNG_ZONES, LUNGS

STAGE = ZONE
IMAGE, COUNTS = "zone", "zone_counts"

_VERSION = 1

Labels = npt.NDArray[np.uint8]


def key_for(case: Case, by: str) -> str:
    """Return the cache key of the lung zones of a masked case."""
    return cache_key(stage=STAGE, version=_VERSION, regions=regions.key_for(case), by=by)


def is_valid(case: Case) -> bool:
    """Return True if the stored lung zones of a masked case are those of its present mask, by any rule."""
    record = case.stages.get(STAGE, {})
    return mask.STAGE in case.stages and "key" in record and record["key"] == key_for(case, str(record.get("by")))


@dataclass(frozen=True)
class ZoneStage:
    """Stage that divides the lungs of masked cases into zones.

    Attributes
    ----------
    by : {"volume", "height", "volume-common"}
        Rule of the planes, see `lungmix.kernels.lung_zones.planes_of_lungs`.
    """

    by: str = ZONES_BY_VOLUME
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of valid lung zones of the case; None without a mask."""
        return key_for(case, self.by) if mask.STAGE in case.stages else None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Find the lung zones of the case, unless the store holds them.

        Raises
        ------
        RoomError
            If workers have too little memory.
        StoreError
            If the case has no mask, or its right and left lung are missing or corrupt.
        """
        client = context.client
        case = CaseWriter(context.cohort[case_name])
        mask.check_masked(case)
        if not regions.is_valid(case):
            raise StoreError(
                f"case {case.name}: its right and left lung are missing or corrupt: run `Pipeline.label()` first",
                case=case.name,
            )
        key = key_for(case, self.by)
        if case.stages.get(STAGE, {}).get("key") == key:
            return "kept"
        convert.check_image(case)
        context.memory.check(case_name, case.geometry, case.layout.slab)
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key))
        counted = [dask.delayed(_count_slab)(case_ref, *span) for span in case.layout.slabs()]
        # The small result goes through the client: were it kept on a worker, all later tasks would depend on it.
        (division,) = compute_in_order(client, [dask.delayed(_divide)(case_ref, counted, self.by)])
        files = case.create_image(IMAGE)
        write = dask.delayed(_write_slab)
        boxes = zip(case.layout.slabs(), division.boxes, strict=True)
        tasks = [write(case_ref, division, *span, box) for span, box in boxes if box is not None]
        histograms = np.zeros((len(LUNG_ZONES), N_HU), np.uint64)
        for counts, slab_files in compute_in_order(client, tasks, context.progress(case_name, STAGE)):
            counts.add_to(histograms.reshape(-1))
            files |= slab_files
        files |= case.write_histogram(COUNTS, histograms)
        planes = {lung.key: cut.to_dict() for lung, cut in zip(LUNGS, division.planes, strict=True)}
        voxels = {zone.key: int(n) for zone, n in zip(LUNG_ZONES, histograms.sum(axis=1), strict=True)}
        case.record(STAGE, {"key": key, "by": self.by, "planes": planes, "voxels": voxels}, files)
        return "done"


@dataclass(frozen=True, eq=False)
class _CountedSlab:
    """Voxels of both lungs per plane of a slab, and the regions at its reduced voxels.

    Attributes
    ----------
    planes : tuple of 3 ndarray of int64, shape (2, n)
        Voxels of each lung by index along z, y and x of the slab.
    reduced : ndarray of uint8
        Regions at the reduced voxels in the slab, in the storage order of the scan.
    """

    planes: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
    reduced: Labels


@dataclass(frozen=True, eq=False)
class _Division:
    """Planes that divide the right and the left lung, and the cores of both on the reduced copy.

    Attributes
    ----------
    planes : tuple of ZonePlanes
        Planes of the axial array.
    cores : CompressedLabels
        Result of `find_cores`.
    boxes : tuple
        For each slab, the rows and columns that contain its lung voxels; None for a slab without any.
    """

    planes: tuple[ZonePlanes, ...]
    cores: regions.CompressedLabels
    boxes: tuple[tuple[slice, slice] | None, ...]


def _count_slab(case_ref: CaseRef, start: int, stop: int) -> _CountedSlab:
    case = case_ref.open()
    geometry = case.geometry
    order, shape = geometry.axis_order, geometry.shape
    sides = case.read("side", start, stop)
    # Reduced voxels are at multiples of a step from the first voxel of the axial array.
    steps = order.by_array(reduction_of(geometry.axial.spacing_zyx).factors)
    z, y, x = (
        np.arange((n - 1) % step if flip else 0, n, step)
        for n, step, flip in zip(shape, steps, order.flipped, strict=True)
    )
    z = z[(z >= start) & (z < stop)] - start
    return _CountedSlab(count_planes(sides), np.ascontiguousarray(sides[np.ix_(z, y, x)]))


def _divide(case_ref: CaseRef, slabs: Sequence[_CountedSlab], by: str) -> _Division:
    """Return how both lungs are divided, from the counts of all slabs in their order."""
    geometry = case_ref.open().geometry
    order, axial = geometry.axis_order, geometry.axial
    z = np.concatenate([slab.planes[0] for slab in slabs], axis=1)
    y, x = (np.sum([slab.planes[axis] for slab in slabs], axis=0) for axis in (1, 2))
    counts = [count[:, ::-1] if flip else count for count, flip in zip((z, y, x), order.flipped, strict=True)]
    slices, rows, _ = order.by_patient(counts)
    planes = planes_of_lungs(slices, rows, by)
    reduced = np.ascontiguousarray(order.to_axial(np.concatenate([slab.reduced for slab in slabs])))
    spacing = reduction_of(axial.spacing_zyx).spacing(axial.spacing_zyx)
    boxes = tuple(_box_of(slab) for slab in slabs)
    return _Division(planes, regions.CompressedLabels.of(find_cores(reduced, spacing)), boxes)


def _box_of(slab: _CountedSlab) -> tuple[slice, slice] | None:
    rows, columns = (span_of(slab.planes[axis].any(axis=0)) for axis in (1, 2))
    return None if rows is None or columns is None else (rows, columns)


def _write_slab(
    case_ref: CaseRef, division: _Division, start: int, stop: int, box: tuple[slice, slice]
) -> tuple[SparseHistogram, Receipts]:
    """Write the zones of a slab whose lung voxels are in a box; return its histograms and receipts."""
    case = case_ref.open("r+")
    shape = case.geometry.shape
    spans = ((start, stop), *((part.start, part.stop) for part in box))
    lookup = regions.ReducedLookup(case.geometry, division.cores)
    zones = np.zeros((stop - start, *shape[1:]), np.uint8)
    zones[:, *box], counts = zone_counts(
        case.zarr_array(case.measured_image)[start:stop, *box],
        case.zarr_array("side")[start:stop, *box],
        _summands(case.geometry.axis_order, shape, division.planes, spans),
        lookup.labels,
        lookup.nearest(spans),
    )
    return SparseHistogram.of(counts.reshape(-1)), case.write(IMAGE, start, zones)


def _summands(
    order: AxisOrder,
    shape: tuple[int, int, int],
    planes: Sequence[ZonePlanes],
    spans: Sequence[tuple[int, int]],
) -> list[Labels]:
    """Return what each index of a box of the stored array adds to the code of a zone, for each of its axes."""
    depth, height, width = order.by_patient(shape)
    slices, rows = code_tables(planes, depth, height)
    by_axis = order.by_array((slices, rows, np.zeros((len(LUNGS), width), np.uint8)))
    return [
        np.ascontiguousarray((table[:, ::-1] if flip else table)[:, first:last])
        for table, flip, (first, last) in zip(by_axis, order.flipped, spans, strict=True)
    ]
