"""Harmonise: writes an image with harmonised HU, which is masked, labelled and measured in place of the scan.

Runs on request, and depends on the image alone. The HU of the scan stay as they are: the harmonised image is an array
of its own. Kernel normalisation filters axial slices, each as a whole, so the result does not depend on chunks, workers
or the storage order of the scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import dask
import numpy as np

from lungmix.cluster.compute import compute_in_order
from lungmix.kernels.harmonisation import Harmonisation
from lungmix.parameters import NO_HARMONISATION, HarmoniseParameters
from lungmix.stages import convert
from lungmix.stages.axial_slices import batches, in_array, read_axial
from lungmix.stages.base import StageContext, Status
from lungmix.stages.harmonise_numbers import find_harmonisation
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts
from lungmix.store.schema import FILTERED, HARMONISE, HARMONISED

STAGE = HARMONISE

_VERSION = 1
_SLICES_OF_TASK = 32


def key_for(case: Case, parameters: HarmoniseParameters) -> str:
    """Return the cache key of the harmonised image of a converted case."""
    return cache_key(
        stage=STAGE, version=_VERSION, image=case.stages[convert.STAGE]["voxels_sha256"],
        geometry=case.geometry.to_dict(), **parameters.to_dict(),
    )  # fmt: skip


def is_left(case: Case) -> bool:
    """Return True if a case has a harmonised image, or what is left of one."""
    return STAGE in case.stages or STAGE in case.damage or case.is_started(HARMONISED)


def applied_to(case: Case) -> str | None:
    """Return the methods that were applied to a case, joined by ``+``; None for a case without harmonised image."""
    if STAGE not in case.stages:
        return None
    record = case.stages[STAGE]
    applied = [name for name in record["parameters"]["methods"] if name not in record.get("not_applied", {})]
    return "+".join(applied) or NO_HARMONISATION


def notes_of(case: Case) -> list[str]:
    """Return a sentence for each method that could not be applied to a harmonised case."""
    return [
        f"{method} harmonisation was not applied: {reason}"
        for method, reason in case.stages.get(STAGE, {}).get("not_applied", {}).items()
    ]


@dataclass(frozen=True)
class HarmoniseStage:
    """Stage that writes the harmonised images of converted cases.

    Attributes
    ----------
    parameters : HarmoniseParameters
        Methods of harmonisation.
    """

    parameters: HarmoniseParameters
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of a valid harmonised image of the case; None without an image."""
        return key_for(case, self.parameters) if convert.STAGE in case.stages else None

    def run(self, context: StageContext, case_name: str) -> Status:
        """Write the harmonised image of the case, unless the store holds it.

        Raises
        ------
        RoomError
            If workers have too little memory.
        """
        client = context.client
        case = CaseWriter(context.cohort[case_name])
        convert.check_converted(case)
        key = key_for(case, self.parameters)
        if case.stages.get(STAGE, {}).get("key") == key:
            return "kept"
        context.memory.check(case_name, case.geometry, case.layout.slab)
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key))
        # The packed air is that of the scan, or of an earlier harmonised image: the mask stage packs it again.
        case.record_packed(None)
        (harmonisation,) = compute_in_order(client, [dask.delayed(_find)(case_ref, self.parameters)])
        is_sliced = case.geometry.axis_order.cranial_axis == 0
        if not is_sliced:
            axial = case.geometry.axial.shape
            case.create_temporary(FILTERED, axial, _SLICES_OF_TASK)
            filter_slices = dask.delayed(_filter_slices)
            spans = batches(axial[0], _SLICES_OF_TASK)
            compute_in_order(client, [filter_slices(case_ref, harmonisation, *span) for span in spans])
        files = case.create_image(HARMONISED)
        write = dask.delayed(_write_slab)
        tasks = [write(case_ref, harmonisation, *span) for span in case.layout.slabs()]
        for slab_files in compute_in_order(client, tasks, context.progress(case_name, STAGE)):
            files |= slab_files
        if not is_sliced:
            case.delete_array(FILTERED)
        case.record(STAGE, {"key": key, "parameters": self.parameters.to_dict(), **harmonisation.to_dict()}, files)
        return "done"


def _find(case_ref: CaseRef, parameters: HarmoniseParameters) -> Harmonisation:
    return find_harmonisation(case_ref.open(), parameters)


def _filter_slices(case_ref: CaseRef, harmonisation: Harmonisation, first: int, stop: int) -> None:
    """Write harmonised HU of axial slices to a temporary array, for a scan that is not stored in axial slices."""
    case = case_ref.open("r+")
    hu = read_axial(case, first, stop, "ct").hu
    case.write_temporary(FILTERED, first, harmonisation.apply(hu, case.geometry.axial.spacing_zyx[1:]))


def _write_slab(case_ref: CaseRef, harmonisation: Harmonisation, start: int, stop: int) -> Receipts:
    """Write the harmonised image of a slab, and return receipts."""
    case = case_ref.open("r+")
    order = case.geometry.axis_order
    if order.cranial_axis != 0:
        return case.write(HARMONISED, start, in_array(case, FILTERED, start, stop))
    axial = np.ascontiguousarray(order.to_axial(case.read("ct", start, stop)))
    hu = order.from_axial(harmonisation.apply(axial, case.geometry.axial.spacing_zyx[1:]))
    return case.write(HARMONISED, start, np.ascontiguousarray(hu))
