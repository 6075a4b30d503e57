"""Label: reads image, mask and model, writes label maps and the regions; depends on the mask and the model.

One pass over the HU writes labels, regions, and lung zones if there are to be any. What the store has of regions and
zones of the mask is kept. The planes between zones depend on all regions, so these are counted in a pass before.
Labels under a Potts prior need a second pass, after the beta was estimated from the labels of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from lungmix.cluster.compute import compute_in_order
from lungmix.cluster.connect import min_worker_memory
from lungmix.graphs.memory import label_chunks
from lungmix.kernels.labels import count_labels, look_up
from lungmix.kernels.median import median_labels, window_of
from lungmix.kernels.packed_masks import span_of
from lungmix.mixture.diagnosis import doubts_of
from lungmix.parameters import FITS, PottsParameters
from lungmix.stages import convert, lung_zones, mask, potts, quality, regions
from lungmix.stages.base import Stage, StageContext, Status
from lungmix.store import Case, CaseRef, CaseWriter, Cohort
from lungmix.store.digests import cache_key
from lungmix.store.models import MODEL_DOUBTS
from lungmix.store.objects import Receipts
from lungmix.store.schema import HARMONISE, LABEL

if TYPE_CHECKING:
    # Workers get a lookup table: they import neither mixtures nor their libraries.
    from lungmix.mixture import TissueModel

STAGE = LABEL
MEDIAN_SIZE = 4
_HALO = MEDIAN_SIZE // 2
"""Largest number of slices before, or after, a slice that the window of the median contains."""

Labels = npt.NDArray[np.uint8]


def key_for(case: Case, model: TissueModel) -> str:
    """Return the cache key of label maps.

    The key contains the directions of axes only if one is flipped: the window of the median is not symmetric.
    """
    flipped = case.geometry.axis_order.flipped
    axes = {"flipped": list(flipped)} if any(flipped) else {}
    return cache_key(
        stage=STAGE, version=1, mask=case.stages[mask.STAGE]["key"], median=MEDIAN_SIZE,
        weights=model.weights, means=model.means, variances=model.variances, **axes,
    )  # fmt: skip


@dataclass(frozen=True)
class LabelStage:
    """Stage that labels the lung voxels of masked cases.

    Attributes
    ----------
    model : TissueModel
        The mixture.
    model_name : str
        Name of the model in the record of the labels.
    before : sequence of Stage
        Stages to run first if the mask of a case is corrupt.
    smooth : PottsParameters, optional
        Parameters of a third label map, of labels under a Potts prior; by default there is none. The cache key does not
        depend on them, because measurements do not.
    zones : {"volume", "height", "volume-common"}, optional
        Rule of lung zones to make along with labels; by default none are made. If labels are kept, zones are not made:
        `lungmix.stages.lung_zones.ZoneStage` makes them.
    """

    model: TissueModel
    model_name: str = "given"
    before: Sequence[Stage] = ()
    smooth: PottsParameters | None = None
    zones: str | None = None
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of valid labels of the case; None without a mask."""
        return key_for(case, self.model) if mask.STAGE in case.stages else None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Compute labels and regions of the lung voxels of the case, unless the store holds labels by this model.

        Raises
        ------
        RoomError
            If workers have too little memory.
        """
        before = context.cohort[case_name]
        if self.before and (
            mask.STAGE not in before.stages
            or HARMONISE in before.damage
            or (regions.belong_to_mask(before) and not regions.is_valid(before))
        ):
            for stage in self.before:
                stage.run(context, case_name)
        client, model = context.client, self.model
        case = CaseWriter(context.cohort[case_name])
        mask.check_masked(case)
        key = key_for(case, model)
        has_regions = regions.is_valid(case)
        if not has_regions:
            regions.check_computable(case)
        stored = case.stages.get(STAGE, {})
        if has_regions and stored.get("key") == key and potts.is_made_with(stored, self.smooth):
            return "kept"
        convert.check_image(case)
        context.memory.check(case_name, case.geometry, case.layout.slab)
        makes_zones = self.zones is not None and not lung_zones.is_valid(case, self.zones)
        also = [*([] if has_regions else [regions.STAGE]), *([lung_zones.STAGE] if makes_zones else [])]
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key, also))
        coarse, division = None, None
        if not has_regions:
            region_files = case.create_image("side")
            # The small result of this task goes through the client: were it kept on a worker, all later tasks would
            # depend on this worker.
            (coarse,) = compute_in_order(client, [dask.delayed(regions.compute_coarse_regions)(case_ref)])
        if self.zones is not None and makes_zones:
            division = lung_zones.divide(client, case, case_ref, self.zones, coarse)
            zone_files = case.create_image(lung_zones.IMAGE)
        files = case.create_image("tissue") | case.create_image("tissue_median")
        needs_neighbours = self.smooth is not None and self.smooth.beta is None
        limit = min_worker_memory(client)
        lookup = _Lookup(model.lookup_table(), coarse, division)
        tasks = _label_tasks(case, case_ref, lookup, limit, needs_neighbours=needs_neighbours)
        slabs = compute_in_order(client, tasks, context.progress(case_name, STAGE))
        potts_record: dict[str, Any] = {}
        if self.smooth is not None:
            # Before regions are published, since that ends the attempt.
            setting = potts.setting_for(case, model, self.smooth, [slab.neighbours for slab in slabs])
            smoothed, potts_record = potts.smooth_case(client, case, case_ref, model, setting, limit)
            files |= smoothed
        if coarse is not None:
            regions.publish(
                case, [region_counts for slab in slabs for region_counts in slab.regions], region_files, coarse.rejected
            )
            quality.record(case, coarse.quality)
        if division is not None:
            lung_zones.publish(case, division, [zones for slab in slabs for zones in slab.zones], zone_files)
        for slab in slabs:
            files |= slab.files
        totals = np.sum([slab.counts for slab in slabs], axis=0)
        voxels = [int(n) for n in totals[: model.n_components + 1]]
        parameters = {name: list(getattr(model, name)) for name in ("weights", "means", "variances")}
        record = {"key": key, "model": parameters, "model_name": self.model_name, "median_voxels": voxels}
        record |= potts_record
        doubts = doubts_of(model, is_fit=self.model_name in FITS)
        if doubts:
            record[MODEL_DOUBTS] = doubts
        case.record(STAGE, record, files)
        return "done"


def without_sides(cohort: Cohort) -> list[str]:
    """Return the labelled cases whose regions are missing or invalid."""
    return [name for name, case in cohort.items() if STAGE in case.stages and not regions.is_valid(case)]


@dataclass(frozen=True, eq=False)
class _Lookup:
    """Tables and reduced copies in which the label, the region and the zone of a voxel are looked up.

    Attributes
    ----------
    table : ndarray of uint8, shape (65536,)
        Label by HU, from -32768 HU on.
    coarse : CompressedLabels or None
        Regions of the reduced copy; None if the store has those of the mask.
    division : Division or None
        How the lungs are divided; None if there are to be no zones, or if the store has them.
    """

    table: Labels
    coarse: regions.CompressedLabels | None
    division: lung_zones.Division | None


@dataclass(frozen=True, eq=False)
class _LabelledSlab:
    """Labels of a run of slices, uint8 ``[z, y, x]``, and the counts of regions and zones in each slab of this run."""

    tissue: Labels
    regions: tuple[regions.SlabRegionCounts, ...]
    zones: tuple[lung_zones.SlabZones, ...]


@dataclass(frozen=True, eq=False)
class _WrittenSlab:
    """Result of writing a run of slices.

    Attributes
    ----------
    counts : ndarray of int64
        Voxels by label after the median.
    regions : tuple of SlabRegionCounts
        Counts of regions.
    zones : tuple of SlabZones
        Counts of zones.
    files : dict of str to list
        Receipts.
    neighbours : NeighbourCounts
        Arrangements of labels before the median, if they are needed; else empty.
    """

    counts: npt.NDArray[np.int64]
    regions: tuple[regions.SlabRegionCounts, ...]
    zones: tuple[lung_zones.SlabZones, ...]
    files: Receipts
    neighbours: potts.NeighbourCounts


def _label_tasks(
    case: Case,
    case_ref: CaseRef,
    lookup: _Lookup,
    memory_limit: int | None,
    *,
    needs_neighbours: bool,
) -> list[Delayed]:
    """Return one task per run of slices, which looks up labels, filters them and writes both.

    The median at the ends of a run needs the outer slices of the neighbouring runs.
    """
    shape = case.geometry.shape
    edges = np.cumsum([0, *label_chunks(case.layout.stored, *shape[1:], _HALO, memory_limit)]).tolist()
    labelled = [dask.delayed(_look_up_slab)(lookup, case_ref, *span) for span in pairwise(edges)]
    before, after = window_of(MEDIAN_SIZE, case.geometry.axis_order.flipped)[0]
    ends = [dask.delayed(_outer_slices)(slab, after, before) for slab in labelled] if len(labelled) > 1 else []
    finish = dask.delayed(_finish_slab)
    return [
        finish(
            slab,
            ends[i - 1] if i else None,
            ends[i + 1] if i + 1 < len(labelled) else None,
            case_ref,
            edges[i],
            needs_neighbours=needs_neighbours,
        )
        for i, slab in enumerate(labelled)
    ]


def _look_up_slab(lookup: _Lookup, case_ref: CaseRef, start: int, stop: int) -> _LabelledSlab:
    case = case_ref.open("r+")
    out = np.zeros((stop - start, *case.geometry.shape[1:]), np.uint8)
    region_lookup = None if lookup.coarse is None else regions.RegionLookup(case, lookup.coarse)
    zone_lookup = None if lookup.division is None else lung_zones.ZoneLookup(case, lookup.division)
    region_counts, zones = [], []
    for begin, end in case.layout.within(start, stop):
        lung = case.read("lung", begin, end)
        rows = span_of(lung.any(axis=(0, 2)))
        if rows is None:
            continue
        hu = case.read(case.measured_image, begin, end, rows)
        out[begin - start : end - start, rows] = look_up(hu, lung[:, rows], lookup.table)
        sides = None
        if region_lookup is not None:
            sides, counts = region_lookup.write(begin, rows, hu, lung)
            region_counts.append(counts)
        if zone_lookup is not None:
            sides = case.read("side", begin, end, rows) if sides is None else sides
            slab_zones = zone_lookup.write(begin, rows, slice(0, lung.shape[2]), hu, sides)
            zones.extend([] if slab_zones is None else [slab_zones])
    return _LabelledSlab(out, tuple(region_counts), tuple(zones))


def _outer_slices(labelled: _LabelledSlab, first: int, last: int) -> tuple[Labels, Labels]:
    """Return the first `first` and the last `last` slices of labels, for the median of the neighbouring runs."""
    return labelled.tissue[:first].copy(), labelled.tissue[-last:].copy()


def _finish_slab(
    labelled: _LabelledSlab,
    before: tuple[Labels, Labels] | None,
    after: tuple[Labels, Labels] | None,
    case_ref: CaseRef,
    start: int,
    *,
    needs_neighbours: bool,
) -> _WrittenSlab:
    tissue = labelled.tissue
    padded = [*([] if before is None else [before[1]]), tissue, *([] if after is None else [after[0]])]
    first = 0 if before is None else len(before[1])
    case = case_ref.open("r+")
    flipped = case.geometry.axis_order.flipped
    surrounded = np.concatenate(padded) if len(padded) > 1 else tissue
    core = slice(first, first + len(tissue))
    neighbours = potts.NeighbourCounts.of(surrounded, core) if needs_neighbours else potts.NeighbourCounts()
    median = median_labels(surrounded, MEDIAN_SIZE, flipped)[core]
    # A slab without labels stays unwritten. Its median labels may have voxels nevertheless, from a neighbouring slab.
    counts = np.zeros(256, np.int64)
    files: Receipts = {}
    for begin, end in case.layout.within(start, start + len(tissue)):
        for image, labels in (("tissue", tissue), ("tissue_median", median)):
            slab = labels[begin - start : end - start]
            if slab.any():
                files |= case.write(image, begin, slab)
        counts += count_labels(slab)
    return _WrittenSlab(counts, labelled.regions, labelled.zones, files, neighbours)
