"""Sides: finds the regions of masked cases before they are labelled, where the pooled fit needs them.

The label stage otherwise finds regions in its own pass over the HU, and keeps those that this stage wrote.
"""

from __future__ import annotations

from dataclasses import dataclass

import dask

from lungmix.cluster.compute import compute_in_order
from lungmix.kernels.packed_masks import span_of
from lungmix.stages import convert, mask, quality, regions
from lungmix.stages.base import StageContext, Status
from lungmix.store import Case, CaseRef, CaseWriter


@dataclass(frozen=True)
class SideStage:
    """Stage that finds right lung, left lung, airway and elsewhere in the masks of cases."""

    name: str = regions.STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of valid regions of the case; None without a mask."""
        return regions.key_for(case) if mask.STAGE in case.stages else None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Find the regions of the case, unless the store holds valid regions of its mask.

        Raises
        ------
        RoomError
            If workers have too little memory.
        StoreError
            If the case has no mask, or its regions came with the mask and are corrupt.
        """
        client = context.client
        case = CaseWriter(context.cohort[case_name])
        mask.check_masked(case)
        if regions.is_valid(case):
            return "kept"
        regions.check_computable(case)
        convert.check_image(case)
        context.memory.check(case_name, case.geometry, case.layout.slab)
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(regions.STAGE, regions.key_for(case)))
        files = case.create_image("side")
        (coarse,) = compute_in_order(client, [dask.delayed(regions.compute_coarse_regions)(case_ref)])
        write = dask.delayed(_write_slab)
        tasks = [write(case_ref, *span, coarse) for span in case.layout.slabs()]
        slabs = compute_in_order(client, tasks, context.progress(case_name, regions.STAGE))
        regions.publish(case, [counts for slab in slabs for counts in slab], files, coarse.rejected)
        quality.record(case, coarse.quality)
        return "done"


def _write_slab(
    case_ref: CaseRef, start: int, stop: int, coarse: regions.CompressedLabels
) -> list[regions.SlabRegionCounts]:
    """Write the regions of a slab; a slab without lung stays unwritten."""
    case = case_ref.open("r+")
    lung = case.read("lung", start, stop)
    rows = span_of(lung.any(axis=(0, 2)))
    if rows is None:
        return []
    hu = case.read(case.measured_image, start, stop, rows)
    _, counts = regions.RegionLookup(case, coarse).write(start, rows, hu, lung)
    return [counts]
