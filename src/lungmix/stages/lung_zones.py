"""Lung zones: reads regions and image, writes the zone of each lung voxel and a histogram per zone; see docs/zones.md.

Made on request, and dependent on the regions of the mask. A first pass counts the voxels of each lung per plane and
takes the regions at the reduced voxels; one small task finds the planes and the cores of the lungs in them. A second
pass looks up the zone of each voxel: that of `lungmix.stages.label`, or that of the stage of this module if the store
has labels already. Neither chunks, nor workers, nor the storage order of the scan change a voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import StoreError
from lungmix.geometry import AxisOrder
from lungmix.kernels.histogram import N_HU, SparseHistogram
from lungmix.kernels.lung_zones import (
    ZonePlanes,
    code_tables,
    count_planes,
    count_planes_of_mask,
    find_cores,
    planes_of_lungs,
    zone_counts,
)
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


def is_valid(case: Case, by: str | None = None) -> bool:
    """Return True if the stored lung zones of a masked case are those of its present mask, by a rule or by any."""
    record = case.stages.get(STAGE, {})
    rule = by or str(record.get("by"))
    return mask.STAGE in case.stages and "key" in record and record["key"] == key_for(case, rule)


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
        if is_valid(case, self.by):
            return "kept"
        convert.check_image(case)
        context.memory.check(case_name, case.geometry, case.layout.slab)
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key_for(case, self.by)))
        division = divide(client, case, case_ref, self.by)
        files = case.create_image(IMAGE)
        write = dask.delayed(_write_slab)
        boxes = zip(case.layout.slabs(), division.boxes, strict=True)
        tasks = [write(case_ref, division, *span, box) for span, box in boxes if box is not None]
        slabs = compute_in_order(client, tasks, context.progress(case_name, STAGE))
        publish(case, division, slabs, files)
        return "done"


@dataclass(frozen=True, eq=False)
class SlabZones:
    """Histograms of the zones in a slab, and receipts of its shards.

    Attributes
    ----------
    counts : SparseHistogram
        Voxels by zone and HU: the non-zero bins of the flattened 2-D histogram.
    files : dict
        Receipts of the shards that were written.
    """

    counts: SparseHistogram
    files: Receipts


def divide(
    client: Client | None, case: Case, case_ref: CaseRef, by: str, coarse: regions.CompressedLabels | None = None
) -> Division:
    """Return how the lungs of a case are divided, from all of its regions.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    case : Case
        The case.
    case_ref : CaseRef
        Reference to the case, for tasks.
    by : {"volume", "height", "volume-common"}
        Rule of the planes.
    coarse : CompressedLabels, optional
        Regions of the reduced copy, from which those of the mask are looked up; by default stored regions are read.
    """
    counted = [dask.delayed(_count_slab)(case_ref, *span, coarse) for span in case.layout.slabs()]
    # The small result goes through the client: were it kept on a worker, all later tasks would depend on it.
    (division,) = compute_in_order(client, [dask.delayed(_divide)(case_ref, counted, by)])
    return division


class ZoneLookup:
    """Lookup of the zone of each voxel; writes the zones slab by slab.

    Parameters
    ----------
    case : CaseWriter
        The case, opened for writing.
    division : Division
        Result of `divide`.
    """

    def __init__(self, case: CaseWriter, division: Division):
        self._case, self._division = case, division
        self._lookup = regions.ReducedLookup(case.geometry, division.cores)

    def write(
        self, start: int, rows: slice, columns: slice, hu: npt.NDArray[np.int16], sides: Labels
    ) -> SlabZones | None:
        """Write the zones of the slab that begins at slice `start`; do nothing for a slab without lung voxels.

        Parameters
        ----------
        start : int
            First slice.
        rows, columns : slice
            Rows and columns that contain all lung voxels of the slab.
        hu : ndarray of int16, shape (slices, rows, columns)
            HU of `rows` and `columns`.
        sides : ndarray of uint8, same shape
            Their regions.
        """
        geometry = self._case.geometry
        if self._division.boxes[start // self._case.layout.slab] is None:
            return None
        spans = ((start, start + len(hu)), (rows.start, rows.stop), (columns.start, columns.stop))
        zones, counts = zone_counts(
            hu,
            sides,
            _summands(geometry.axis_order, geometry.shape, self._division.planes, spans),
            self._lookup.labels,
            self._lookup.nearest(spans),
            geometry.shape[1:],
            (rows.start, columns.start),
        )
        return SlabZones(counts, self._case.write(IMAGE, start, zones))


def publish(case: CaseWriter, division: Division, slabs: Sequence[SlabZones], files: Receipts) -> None:
    """Write the histograms and the record of written zones.

    Parameters
    ----------
    case : CaseWriter
        The case.
    division : Division
        How its lungs were divided.
    slabs : sequence of SlabZones
        Results of the slabs with lung voxels.
    files : dict
        Receipts of the empty arrays of the zones.
    """
    histograms = np.zeros((len(LUNG_ZONES), N_HU), np.uint64)
    for slab in slabs:
        slab.counts.add_to(histograms.reshape(-1))
        files = files | slab.files
    files = files | case.write_histogram(COUNTS, histograms)
    planes = {lung.key: cut.to_dict() for lung, cut in zip(LUNGS, division.planes, strict=True)}
    voxels = {zone.key: int(n) for zone, n in zip(LUNG_ZONES, histograms.sum(axis=1), strict=True)}
    record = {"key": key_for(case, division.by), "by": division.by, "planes": planes, "voxels": voxels}
    case.record(STAGE, record, files)


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
class Division:
    """Planes that divide the right and the left lung, and the cores of both on the reduced copy.

    Attributes
    ----------
    by : {"volume", "height", "volume-common"}
        Rule of the planes.
    planes : tuple of ZonePlanes
        Planes of the axial array.
    cores : CompressedLabels
        Result of `find_cores`.
    boxes : tuple
        For each slab, the rows and columns that contain its lung voxels; None for a slab without any.
    """

    by: str
    planes: tuple[ZonePlanes, ...]
    cores: regions.CompressedLabels
    boxes: tuple[tuple[slice, slice] | None, ...]


def _count_slab(case_ref: CaseRef, start: int, stop: int, coarse: regions.CompressedLabels | None) -> _CountedSlab:
    case = case_ref.open()
    geometry = case.geometry
    order, shape = geometry.axis_order, geometry.shape
    # Reduced voxels are at multiples of a step from the first voxel of the axial array.
    steps = order.by_array(reduction_of(geometry.axial.spacing_zyx).factors)
    z, y, x = (
        np.arange((n - 1) % step if flip else 0, n, step)
        for n, step, flip in zip(shape, steps, order.flipped, strict=True)
    )
    sampled = np.ix_(z[(z >= start) & (z < stop)] - start, y, x)
    if coarse is None:
        sides = case.read("side", start, stop)
        return _CountedSlab(count_planes(sides), np.ascontiguousarray(sides[sampled]))
    lung = case.read("lung", start, stop)
    lookup = regions.ReducedLookup(geometry, coarse)
    nearest = lookup.nearest(((start, stop), (0, shape[1]), (0, shape[2])))
    of_sampled = lookup.labels[np.ix_(*(rows[at.ravel()] for rows, at in zip(nearest, sampled, strict=True)))]
    reduced = np.where(lung[sampled] > 0, of_sampled, np.uint8(0))
    return _CountedSlab(count_planes_of_mask(lung, lookup.labels, nearest), reduced)


def _divide(case_ref: CaseRef, slabs: Sequence[_CountedSlab], by: str) -> Division:
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
    return Division(by, planes, regions.CompressedLabels.of(find_cores(reduced, spacing)), boxes)


def _box_of(slab: _CountedSlab) -> tuple[slice, slice] | None:
    rows, columns = (span_of(slab.planes[axis].any(axis=0)) for axis in (1, 2))
    return None if rows is None or columns is None else (rows, columns)


def _write_slab(
    case_ref: CaseRef, division: Division, start: int, stop: int, box: tuple[slice, slice]
) -> SlabZones | None:
    """Write the zones of a slab whose lung voxels are in a box."""
    case = case_ref.open("r+")
    hu, sides = (case.zarr_array(name)[start:stop, *box] for name in (case.measured_image, "side"))
    return ZoneLookup(case, division).write(start, *box, hu, sides)


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
