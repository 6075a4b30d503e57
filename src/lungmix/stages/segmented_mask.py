"""Segmented masks: a segmenter labels axial slices in batches, and the mask is stored like one from a file.

Batches begin at the first axial slice from the feet and have the number of slices that the segmenter declares. So the
labels do not depend on chunks, workers or the storage order of the scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import dask
import numpy as np
import numpy.typing as npt

from lungmix.cluster.compute import compute_in_order
from lungmix.errors import LungmixError, RoomError, SegmenterError, mark_untrusted
from lungmix.geometry import Geometry
from lungmix.graphs.process import ENOUGH_WORKER_BYTES, limit_for
from lungmix.kernels.label_components import CleanUp, find_clean_up
from lungmix.parameters import MaskParameters
from lungmix.segmenters import AxialSlices, Segmenter, SegmenterSpec
from lungmix.segmenters.plugins import library_versions
from lungmix.stages import convert, regions
from lungmix.stages.axial_slices import batches, in_array, read_axial
from lungmix.stages.base import StageContext, Status
from lungmix.stages.mask import STAGE, check_hu, pack_air
from lungmix.stages.mask_labels import LABELS, LabelChoice
from lungmix.stages.mask_writing import WrittenMask, create_arrays, publish, write_mask
from lungmix.stages.plausibility import ACCEPTED
from lungmix.stages.reading import Readable, read_on_worker
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.schema import FROM_FILE, IMPORTED, SEGMENTED

SEGMENTER = "segmenter"
"""Kind in the record of a mask that a segmenter made."""

_TO_AUTHORS = "report it to its authors"
_SLICES_OF_TASK = 32
_VOXELS_OF_SLAB = 1 << 22


def key_for(case: Case, spec: SegmenterSpec, parameters: MaskParameters) -> str:
    """Return the cache key of a mask by a segmenter.

    The key contains the parameters of masks, because they determine right and left if the segmenter does not.
    """
    return cache_key(
        stage=STAGE, version=1, **convert.image_inputs(case), geometry=case.geometry.to_dict(),
        parameters=parameters.to_dict(), segmenter=spec.identity,
    )  # fmt: skip


@dataclass(frozen=True)
class SegmentedMaskStage:
    """Stage that makes the lung masks of cases by a segmenter.

    Attributes
    ----------
    spec : SegmenterSpec
        The segmenter.
    parameters : MaskParameters
        Parameters that determine how right and left are found if the segmenter does not label them.
    accept_hu : bool
        Make masks of scans whose values are not HU of a chest CT.
    """

    spec: SegmenterSpec
    parameters: MaskParameters
    accept_hu: bool = False
    name: str = STAGE

    def cache_key(self, case: Case) -> str | None:
        """Return the cache key of a valid mask of the case; None without an image."""
        return key_for(case, self.spec, self.parameters) if convert.STAGE in case.stages else None

    def air_hu(self, case_name: str, geometry: Geometry) -> int:
        """Return the HU below which the voxels of a case are air."""
        return convert.AIR_THRESHOLD

    def run(self, context: StageContext, case_name: str) -> Status:
        """Make the mask of the case, unless the store holds it.

        Raises
        ------
        RoomError
            If workers have too little memory.
        HuError
            If the values are not HU of a chest, and are accepted neither now nor in the record of the mask.
        SegmenterError
            If the segmenter fails or finds no lung. An earlier mask is kept if it fails in the trial on one batch.
        """
        client, spec, progress = context.client, self.spec, context.progress(case_name, STAGE)
        case = CaseWriter(context.cohort[case_name])
        convert.check_image(case)
        key = key_for(case, spec, self.parameters)
        accepted = check_hu(case, key, accept=self.accept_hu)
        is_complete = not regions.are_from_file(case) or regions.is_valid(case)
        if case.stages.get(STAGE, {}).get("key") == key and is_complete:
            return "kept"
        kind, geometry = spec.kind, case.geometry
        if not geometry.orientation_known:
            raise SegmenterError(
                f"its file does not say how its axes lie in the patient, which {spec.name} must know: give a file that "
                "says it",
                case=case_name,
            )
        context.memory.check(case_name, geometry, case.layout.slab)
        _check_memory(context, case_name, geometry, kind)
        if STAGE in case.stages:
            # Try the segmenter on one batch first, so that one that always fails does not replace the earlier mask.
            _compute(context, [dask.delayed(_try_out)(CaseRef.of(context.cohort, case_name), spec)], case_name)
        case_ref = CaseRef.of(context.cohort, case_name, case.start_stage(STAGE, key, (regions.STAGE,)))
        if case.packed_threshold != convert.AIR_THRESHOLD:
            pack_air(client, case, case_ref, convert.AIR_THRESHOLD)
        axial = geometry.axial.shape
        case.create_temporary(SEGMENTED, (axial[0], *(kind.plane or axial[1:])), kind.batch_slices)
        per_task = max(_SLICES_OF_TASK // kind.batch_slices, 1) * kind.batch_slices
        spans = list(batches(axial[0], per_task))
        _compute(context, [dask.delayed(_segment)(case_ref, spec, *span) for span in spans], case_name, progress)
        placed = SEGMENTED
        if kind.clean_up or kind.plane is not None:
            placed = IMPORTED
            case.create_temporary(IMPORTED, axial, kind.batch_slices)
            clean_up = None
            if kind.clean_up:
                (clean_up,) = _compute(context, [dask.delayed(_find_clean_up)(case_ref, kind.batch_slices)], case_name)
            _compute(context, [dask.delayed(_place)(case_ref, spec, *span, clean_up) for span in spans], case_name)
        choice = LabelChoice({number: LABELS[region] for number, region in kind.labels.items()})
        files, side_files = create_arrays(case, choice)
        written = read_on_worker(client, _write_labels, _Labels(case_name), case_ref, choice, placed)
        if not written.voxels:
            raise SegmenterError(f"{spec.name} found no lung: check that this is a chest CT", case=case_name)
        provenance = {"kind": SEGMENTER, **spec.identity, "libraries": library_versions(kind), **choice.to_dict()}
        record = {
            "key": key, "parameters": self.parameters.to_dict(), "voxels": written.voxels, FROM_FILE: provenance,
        }  # fmt: skip
        publish(case, {**record, **({ACCEPTED: True} if accepted else {})}, written, choice, files, side_files)
        for array in {SEGMENTED, placed}:
            case.delete_array(array)
        return "done"


@dataclass(frozen=True)
class _Labels:
    """Labels of a case as a source for `read_on_worker`; `path` is the name of the case."""

    path: str


def _check_memory(context: StageContext, case_name: str, geometry: Geometry, kind: type[Segmenter]) -> None:
    """Raise `RoomError` if the worker with least memory has too little for the segmenter."""
    memory, needed = context.memory, ENOUGH_WORKER_BYTES + kind.memory_bytes
    if memory.limit is not None and kind.memory_bytes and memory.limit * memory.share < needed:
        _, rows, columns = geometry.axial.shape
        enough = limit_for(needed, memory.share)
        raise RoomError(case_name, (rows, columns), memory.limit, enough, memory.is_local)


def _compute(context: StageContext, tasks: list[Any], case_name: str, progress: Any = None) -> list[Any]:
    """Return the results of tasks; raise the first result that is an error."""
    results = compute_in_order(context.client, tasks, progress)
    for result in results:
        if isinstance(result, SegmenterError):
            result.case = case_name
            raise result
    return results


def _try_out(case_ref: CaseRef, spec: SegmenterSpec) -> SegmenterError | None:
    """Segment the batch in the middle of a scan, and return the error of the segmenter; None if there is none."""
    case = case_ref.open()
    spans = list(batches(case.geometry.axial.shape[0], spec.kind.batch_slices))
    labels = _call(spec, "segment", read_axial(case, *spans[len(spans) // 2], case.measured_image))
    return labels if isinstance(labels, SegmenterError) else None


def _segment(case_ref: CaseRef, spec: SegmenterSpec, start: int, stop: int) -> SegmenterError | None:
    """Segment a range of axial slices and write the labels, batch by batch.

    An error of the segmenter is returned and not raised, because workers would log it.
    """
    case = case_ref.open("r+")
    for first, last in batches(stop, spec.kind.batch_slices, start):
        slices = read_axial(case, first, last, case.measured_image)
        labels = _call(spec, "segment", slices)
        if isinstance(labels, SegmenterError):
            return labels
        case_ref.open("r+").write_temporary(SEGMENTED, first, labels)
    return None


def _find_clean_up(case_ref: CaseRef, batch_slices: int) -> CleanUp:
    """Return the clean-up of the labels of a case, see `find_clean_up`; reads slabs of whole batches."""
    case = case_ref.open("r+")
    depth, *plane = case.temporary_shape(SEGMENTED)
    thickness = max(_VOXELS_OF_SLAB // (prod(plane) * batch_slices), 1) * batch_slices
    return find_clean_up(lambda start, stop: _read_segmented(case, start, stop), depth, thickness)


def _place(
    case_ref: CaseRef, spec: SegmenterSpec, start: int, stop: int, clean_up: CleanUp | None
) -> SegmenterError | None:
    """Clean labels of a range of axial slices, bring them to the grid of the scan, and write them.

    An error of the segmenter is returned and not raised, because workers would log it.
    """
    case = case_ref.open("r+")
    if clean_up is None:
        labels = _read_segmented(case, start, stop)
    else:
        # The clean-up lists components by slabs, so whole slabs are read.
        low = start // clean_up.thickness * clean_up.thickness
        depth = case.temporary_shape(SEGMENTED)[0]
        high = min(-(-stop // clean_up.thickness) * clean_up.thickness, depth)
        labels = clean_up.apply(low, _read_segmented(case, low, high))[start - low : stop - low]
    for first, last in batches(stop, spec.kind.batch_slices, start):
        placed: npt.NDArray[np.uint8] | SegmenterError = labels[first - start : last - start]
        if spec.kind.plane is not None:
            placed = _call(spec, "place", read_axial(case, first, last, case.measured_image), placed)
        if isinstance(placed, SegmenterError):
            return placed
        case_ref.open("r+").write_temporary(IMPORTED, first, placed)
    return None


def _call(
    spec: SegmenterSpec, method: str, slices: AxialSlices, *before: Any
) -> npt.NDArray[np.uint8] | SegmenterError:
    """Return the labels that a method of a segmenter returns, or an error if it fails or its labels are invalid."""
    kind = spec.kind
    shape = slices.hu.shape
    if method == "segment" and kind.plane is not None:
        shape = (shape[0], *kind.plane)
    try:
        with spec.loaded() as segmenter:
            labels = getattr(segmenter, method)(*before, slices)
    except SegmenterError as error:
        return error
    except (LungmixError, MemoryError):
        raise
    except Exception as error:
        return SegmenterError(
            f"the segmenter {spec.name} failed ({type(error).__name__}: {mark_untrusted(error)}): {_TO_AUTHORS}"
        )
    if not isinstance(labels, np.ndarray) or labels.shape != shape or labels.dtype != np.uint8:
        seen = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
        return SegmenterError(f"the segmenter {spec.name} returned {seen} instead of uint8 {shape}: {_TO_AUTHORS}")
    others = sorted({int(value) for value in np.flatnonzero(np.bincount(labels.reshape(-1)))} - {0, *kind.labels})
    if others:
        return SegmenterError(
            f"the segmenter {spec.name} returned the label {others[0]}, which it does not name: {_TO_AUTHORS}"
        )
    return labels


def _read_segmented(case: CaseWriter, start: int, stop: int) -> npt.NDArray[np.uint8]:
    return case.read_temporary(SEGMENTED, (slice(start, stop), slice(None), slice(None)))


def _write_labels(source: Readable, case_ref: CaseRef, choice: LabelChoice, array: str) -> WrittenMask:
    return write_mask(_slabs(case_ref, choice, array), case_ref, choice)


def _slabs(
    case_ref: CaseRef, choice: LabelChoice, array: str
) -> Iterator[tuple[CaseWriter, int, npt.NDArray[np.uint8]]]:
    """Yield the labels of a case in the storage order of its array, slab by slab, for `write_mask`."""
    values = np.zeros(256, np.uint8)
    for number, label in choice.values.items():
        values[number] = label
    case = case_ref.open("r+")
    for start, stop in case.layout.slabs():
        yield case_ref.open("r+"), start, values[in_array(case, array, start, stop)]
