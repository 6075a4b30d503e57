"""Harmonise: writes an image with harmonised HU, which is masked, labelled and measured in place of the scan.

Runs on request, and depends on the image alone. The HU of the scan stay as they are: the harmonised image is an array
of its own. Kernel normalisation filters axial slices, each as a whole, so the result does not depend on chunks, workers
or the storage order of the scan.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import dask
import numpy as np

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import StoreError
from lungmix.kernels.harmonisation import Harmonisation
from lungmix.kernels.packed_masks import pack_below
from lungmix.parameters import KERNEL, HarmoniseParameters
from lungmix.stages import convert
from lungmix.stages.axial_slices import batches, in_array, read_axial
from lungmix.stages.base import StageContext, Status
from lungmix.stages.given_mask import is_given
from lungmix.stages.harmonise_numbers import find_harmonisation
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.models import record_of
from lungmix.store.objects import Receipts
from lungmix.store.schema import FILTERED, HARMONISE, HARMONISED, PACKED

STAGE = HARMONISE

_VERSION = 1
_SLICES_OF_TASK = 32
_REACHED = 0.05
"""Largest difference of a standard deviation to that of the reference, as a share of it, that has no note."""


def key_for(case: Case, parameters: HarmoniseParameters) -> str:
    """Return the cache key of the harmonised image of a converted case."""
    return cache_key(
        stage=STAGE, version=_VERSION, image=case.stages[convert.STAGE]["voxels_sha256"],
        geometry=case.geometry.to_dict(), **parameters.to_dict(),
    )  # fmt: skip


def notes_of(case: Case) -> list[str]:
    """Return sentences on methods that could not be applied to a harmonised case, or not completely."""
    record = case.stages.get(STAGE, {})
    notes = [
        f"{method} harmonisation was not applied: {reason}" for method, reason in record.get("not_applied", {}).items()
    ]
    after, reference = record.get(KERNEL, {}).get("sd_after", []), record.get("parameters", {}).get("reference", [])
    if any(abs(sd - goal) > _REACHED * goal for sd, goal in zip(after, reference, strict=False)):
        texts = (" and ".join(f"{sd:.3g}" for sd in values) for values in (after, reference))
        notes.append("its frequency bands have {} HU after kernel normalisation, not {}".format(*texts))
    return notes


@dataclass(frozen=True)
class HarmoniseStage:
    """Stage that writes the harmonised images of converted cases.

    Attributes
    ----------
    parameters : HarmoniseParameters
        Methods of harmonisation.
    remade : collection of str, optional
        Cases whose masks are made again in this run; by default all. A mask that came from a file is not given up for
        other HU unless it is.
    """

    parameters: HarmoniseParameters
    remade: Collection[str] | None = None
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
        StoreError
            If the mask of the case came from a file or a segmenter, and would be lost.
        """
        client = context.client
        case = CaseWriter(context.cohort[case_name])
        convert.check_converted(case)
        key = key_for(case, self.parameters)
        if case.stages.get(STAGE, {}).get("key") == key:
            return "kept"
        is_new = record_of(case, STAGE).get("key") != key
        if is_new and is_given(case) and self.remade is not None and case_name not in self.remade:
            raise StoreError(
                f"case {case_name}: its mask came from a file or a segmenter, and its voxels are counted again by "
                "other HU: give it again with `Pipeline.run(sources, masks=PLACE)`, or make it with `mask_with=NAME`",
                case=case_name,
            )
        context.memory.check(case_name, case.geometry, case.layout.slab)
        below_hu = convert.AIR_THRESHOLD if case.packed_threshold is None else case.packed_threshold
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key))
        # The packed air is that of the scan, or of an earlier harmonised image.
        case.record_packed(None)
        (harmonisation,) = compute_in_order(client, [dask.delayed(_find)(case_ref, self.parameters)])
        is_sliced = case.geometry.axis_order.cranial_axis == 0
        if not is_sliced:
            axial = case.geometry.axial.shape
            case.create_temporary(FILTERED, axial, _SLICES_OF_TASK)
            filter_slices = dask.delayed(_filter_slices)
            spans = batches(axial[0], _SLICES_OF_TASK)
            compute_in_order(client, [filter_slices(case_ref, harmonisation, *span) for span in spans])
        files, packed = case.create_image(HARMONISED), case.create_packed(PACKED)
        write = dask.delayed(_write_slab)
        tasks = [write(case_ref, harmonisation, below_hu, *span) for span in case.layout.slabs()]
        for slab_files, slab_packed in compute_in_order(client, tasks, context.progress(case_name, STAGE)):
            files |= slab_files
            packed |= slab_packed
        if not is_sliced:
            case.delete_array(FILTERED)
        case.record_packed(below_hu, packed)
        case.record(STAGE, {"key": key, "parameters": self.parameters.to_dict(), **harmonisation.to_dict()}, files)
        return "done"


def _find(case_ref: CaseRef, parameters: HarmoniseParameters) -> Harmonisation:
    return find_harmonisation(case_ref.open(), parameters)


def _filter_slices(case_ref: CaseRef, harmonisation: Harmonisation, first: int, stop: int) -> None:
    """Write harmonised HU of axial slices to a temporary array, for a scan that is not stored in axial slices."""
    case = case_ref.open("r+")
    hu = read_axial(case, first, stop, "ct").hu
    case.write_temporary(FILTERED, first, harmonisation.apply(hu, case.geometry.axial.spacing_zyx[1:]))


def _write_slab(
    case_ref: CaseRef, harmonisation: Harmonisation, below_hu: int, start: int, stop: int
) -> tuple[Receipts, Receipts]:
    """Write the harmonised image of a slab, and its air; return receipts of both."""
    case = case_ref.open("r+")
    order = case.geometry.axis_order
    if order.cranial_axis != 0:
        hu = in_array(case, FILTERED, start, stop)
    else:
        axial = np.ascontiguousarray(order.to_axial(case.read("ct", start, stop)))
        hu = np.ascontiguousarray(order.from_axial(harmonisation.apply(axial, case.geometry.axial.spacing_zyx[1:])))
    return case.write(HARMONISED, start, hu), case.write_packed(PACKED, start, pack_below(hu, below_hu))
