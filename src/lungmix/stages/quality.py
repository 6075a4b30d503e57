"""Quality: measures the mask of a case and the HU of its air for quality control; depends on the mask and its regions.

The task of the label stage that computes regions measures these numbers too, so that the scan is read once. If they are
needed earlier, or the regions were computed by an earlier version, this stage measures them in one small task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask

from lungmix.cluster.compute import compute_in_order
from lungmix.stages import mask, regions
from lungmix.stages.base import StageContext, Status
from lungmix.store import Case, CaseFiles, CaseRef, CaseWriter, Cohort
from lungmix.store.digests import cache_key
from lungmix.store.schema import LABEL

STAGE = "quality"

NOT_MEASURED = "not measured"
"""Text in place of flags for a masked case whose numbers were not measured."""


def key_for(case: Case) -> str:
    """Return the cache key of the numbers of a masked case."""
    # Earlier versions computed regions even if the mask file had them: numbers of those regions are invalid.
    source = {"regions_from_file": True} if regions.are_from_file(case) else {}
    return cache_key(stage=STAGE, version=1, regions=regions.key_for(case), **source)


def numbers_of(case: Case) -> dict[str, Any]:
    """Return the recorded numbers of a case; empty if there are none of its present mask."""
    record = case.quality
    return record if mask.STAGE in case.stages and record.get("key") == key_for(case) else {}


def is_unmeasured(case: Case) -> bool:
    """Return True for a masked case without numbers: it has no flags, but it was not checked either."""
    return mask.STAGE in case.stages and not numbers_of(case)


def without_numbers(cohort: Cohort) -> list[str]:
    """Return the labelled cases without numbers that can be measured."""
    return [
        name
        for name, case in cohort.items()
        if LABEL in case.stages and is_unmeasured(case) and CaseFiles(case).packed_threshold is not None
    ]


def record(case: CaseWriter, numbers: Mapping[str, Any]) -> None:
    """Record the numbers of a masked case."""
    case.record_quality({"key": key_for(case), **numbers})


@dataclass(frozen=True)
class QualityStage:
    """Stage that measures masked cases for quality control."""

    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of valid numbers of the case; None without a mask."""
        return key_for(case) if mask.STAGE in case.stages else None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Measure the numbers of the case, unless the store holds them or lacks the packed air that they need."""
        case = CaseWriter(context.cohort[case_name])
        mask.check_masked(case)
        if numbers_of(case) or case.packed_threshold is None:
            return "kept"
        case_ref = CaseRef.of(context.cohort, case_name)
        (coarse,) = compute_in_order(context.client, [dask.delayed(regions.compute_coarse_regions)(case_ref)])
        record(case, coarse.quality)
        return "done"
