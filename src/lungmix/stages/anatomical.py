"""Anatomical masks: reads the image, writes lung mask, regions and their histograms; see ``docs/anatomical.md``.

One small task decides on the reduced copy what is lung. The voxels of each slab follow from its air and these zones, so
that neither chunks nor workers change a voxel. Regions belong to the mask, as for masks from files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import numpy as np
import numpy.typing as npt

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import NoLungError
from lungmix.geometry import Geometry
from lungmix.kernels.anatomical import find_zones, labels_of, lung_masks
from lungmix.kernels.histogram import N_HU, SparseHistogram, count_hu_packed
from lungmix.kernels.mask import anatomical_threshold
from lungmix.kernels.packed_masks import Bits, span_of
from lungmix.kernels.reduction import ReducedGrid, reduction_of
from lungmix.kernels.structuring_elements import Element, ellipsoid
from lungmix.parameters import ANATOMICAL, ANATOMICAL_CLOSING_MM, MaskParameters
from lungmix.stages import convert, regions
from lungmix.stages.base import StageContext, Status
from lungmix.stages.mask import STAGE, MaskStage, check_hu, key_for, pack_air
from lungmix.stages.plausibility import ACCEPTED
from lungmix.stages.reduced import find_rejected_components, reduced_hu
from lungmix.store import CaseRef, CaseWriter
from lungmix.store.objects import Receipts
from lungmix.store.schema import PACKED
from lungmix.tissue import DENSE, LUNGS, SIDES

Codes = npt.NDArray[np.uint8]


def mask_stage(parameters: MaskParameters, accept_hu: bool = False) -> MaskStage:
    """Return the stage that computes masks with some parameters."""
    kind = AnatomicalMaskStage if parameters.preset == ANATOMICAL else MaskStage
    return kind(parameters, accept_hu)


@dataclass(frozen=True)
class AnatomicalMaskStage(MaskStage):
    """Stage that computes the lung masks of the preset ``anatomical``, with their regions."""

    def air_hu(self, case_name: str, geometry: Geometry) -> int:
        """Return the HU below which the voxels of a case are air."""
        return anatomical_threshold(self.parameters, geometry.axial.spacing_zyx)

    def run(self, context: StageContext, case_name: str) -> Status:
        """Compute mask and regions of the case, unless the store holds them for these parameters.

        Raises
        ------
        RoomError
            If workers have too little memory.
        HuError
            If the values are not HU of a chest, and are accepted neither now nor in the record of the mask.
        NoLungError
            If nothing is lung.
        """
        client, progress = context.client, context.progress(case_name, STAGE)
        case = CaseWriter(context.cohort[case_name])
        convert.check_image(case)
        key = key_for(case, self.parameters)
        accepted = check_hu(case, key, accept=self.accept_hu)
        has_regions = case.geometry.orientation_known
        if case.stages.get(STAGE, {}).get("key") == key and (not has_regions or regions.is_valid(case)):
            return "kept"
        context.memory.check(case_name, case.geometry, case.layout.slab)
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key, (regions.STAGE,)))
        threshold = self.air_hu(case_name, case.geometry)
        files = case.create_image("lung") | case.create_image("region")
        region_files = case.create_image("side") if has_regions else {}
        if case.packed_threshold != threshold:
            pack_air(client, case, case_ref, threshold)
        (zones,) = compute_in_order(client, [dask.delayed(_find_zones)(case_ref, threshold)])
        element = ellipsoid(ANATOMICAL_CLOSING_MM, case.geometry.spacing_zyx)
        write = dask.delayed(_write_slab)
        tasks = [write(case_ref, *span, zones, element) for span in case.layout.slabs()]
        slabs = compute_in_order(client, tasks, progress)
        histograms = np.zeros((len(DENSE), N_HU), np.uint64)
        for slab in slabs:
            slab.counts.add_to(histograms.reshape(-1))
            files |= slab.files
        voxels = int(histograms.sum())
        if not voxels:
            raise NoLungError(_describe_failure(case.geometry.spacing), case=case_name)
        files |= case.write_histogram("hu_counts", histograms.sum(axis=0))
        files |= case.write_histogram("region_counts", histograms)
        record = {"key": key, "parameters": self.parameters.to_dict(), "voxels": voxels}
        record |= {region.key: int(n) for region, n in zip(DENSE, histograms.sum(axis=1), strict=True)}
        if has_regions:
            (rejected,) = compute_in_order(client, [dask.delayed(find_rejected_components)(case_ref, ANATOMICAL)])
            regions.publish(
                case,
                [slab.regions for slab in slabs],
                region_files,
                [component.to_dict(with_place=True) for component in rejected],
                key,
            )
        case.record(STAGE, {**record, **({ACCEPTED: True} if accepted else {})}, files)
        return "done"


@dataclass(frozen=True, eq=False)
class _WrittenSlab:
    """Histograms of a written slab, and receipts of its shards."""

    counts: SparseHistogram
    regions: regions.SlabRegionCounts
    files: Receipts


def _find_zones(case_ref: CaseRef, threshold: int) -> regions.CompressedLabels:
    """Return the zones of the reduced copy; their axes are ordered as those of the stored array, and not flipped."""
    case = case_ref.open()
    axial = case.geometry.axial
    grid = grid_of(axial)
    spacing = grid.reduction.spacing(axial.spacing_zyx)
    codes = find_zones(reduced_hu(case, grid, case.measured_image), threshold, spacing, grid.first_reduced)
    return regions.CompressedLabels.of(codes.transpose(np.argsort(case.geometry.axis_order.axes)))


def grid_of(axial: Geometry) -> ReducedGrid:
    """Return the positions of the reduced voxels of an axial array."""
    return ReducedGrid(reduction_of(axial.spacing_zyx), axial.first_index)


def _write_slab(
    case_ref: CaseRef, start: int, stop: int, zones: regions.CompressedLabels, element: Element
) -> _WrittenSlab:
    case = case_ref.open("r+")
    depth, _, nx = case.geometry.shape
    has_regions = case.geometry.orientation_known
    files: Receipts = {}
    region_files: Receipts = {}
    counts = np.zeros((len(DENSE), N_HU), np.uint64)
    touches = np.zeros((len(SIDES), len(regions.FACES)), np.bool_)
    masks = _masks_of(case, zones.labels, element, start, stop)
    rows = span_of(masks.any(axis=(0, 1, 3)))
    if rows is not None:
        hu = case.read(case.measured_image, start, stop, rows)
        for count, mask in zip(counts, masks[:, :, rows], strict=True):
            count += count_hu_packed(hu, mask)
        # Memory for one array of the voxels of a slab at a time, besides what is written.
        del hu
        labels = labels_of(masks, nx)
        files |= case.write("lung", start, (labels > 0).view(np.uint8))
        files |= case.write("region", start, labels)
        if has_regions:
            # Aerated and dense lung of a side are two masks apart.
            sides = labels_of(masks[: len(LUNGS)] | masks[len(LUNGS) :], nx)
            region_files |= case.write("side", start, sides)
            touches |= regions.faces_touched(sides, start, depth)
    side_counts = np.zeros((len(SIDES), N_HU), np.uint64)
    side_counts[: len(LUNGS)] = counts[: len(LUNGS)] + counts[len(LUNGS) :]
    of_regions = regions.SlabRegionCounts(SparseHistogram.of(side_counts.reshape(-1)), touches, region_files)
    return _WrittenSlab(SparseHistogram.of(counts.reshape(-1)), of_regions, files)


def _masks_of(case: CaseWriter, codes: Codes, element: Element, start: int, stop: int) -> Bits:
    """Return the packed parts of the lungs on the slices from `start` to `stop`, from the zones of a case."""
    geometry = case.geometry
    shape, order = geometry.shape, geometry.axis_order
    halo = 2 * element.extent[0]
    low, high = max(0, start - halo), min(shape[0], stop + halo)
    indices = [np.arange(low, high), *(np.arange(n) for n in shape[1:])]
    axial = [n - 1 - index if flip else index for n, index, flip in zip(shape, indices, order.flipped, strict=True)]
    grid = grid_of(geometry.axial)
    reduced = order.by_array(grid.indices(order.by_patient(codes.shape), order.by_patient(axial)))
    air = case.read_packed(PACKED, low, high)
    return lung_masks(air, codes, reduced, element, (start - low, stop - low))


def _describe_failure(spacing: Sequence[float]) -> str:
    text = " x ".join(f"{s:.3g}" for s in spacing)
    return (
        f"no lung found: no component of air in the body is aerated like a lung; spacing {text} mm, preset "
        f"{ANATOMICAL}; check that this is a chest CT in HU that shows the thorax"
    )
