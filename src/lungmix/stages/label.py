"""Label: reads image, mask and model, writes both label maps and the sides; depends on the mask and the model.

Sides are looked up in the same pass as labels, so that HU are read once for both; new labels of a mask whose sides are
known leave those alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import dask
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed
from distributed import Client

from lungmix.cluster.compute import compute_in_order
from lungmix.cluster.connect import min_worker_memory
from lungmix.cluster.worker_memory import WorkerMemory
from lungmix.graphs.memory import label_chunks
from lungmix.kernels.labels import count_labels, look_up
from lungmix.kernels.median import median_labels, window_of
from lungmix.stages import convert, mask, regions
from lungmix.stages.base import Stage, StageContext, Status
from lungmix.store import Case, CaseRef, Cohort
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts

if TYPE_CHECKING:
    # Workers get a table: they need no mixtures and none of the libraries behind them.
    from lungmix.mixture import TissueModel

STAGE = "label"
MEDIAN_SIZE = 4
_HALO = MEDIAN_SIZE // 2
"""Slices that the window of the median reaches at most, back or on."""

Labels = npt.NDArray[np.uint8]


def key_for(case: Case, model: TissueModel) -> str:
    """Return what label maps depend on; axes that run against the axial array's are named only where there are any."""
    flipped = case.geometry.axis_order.flipped
    axes = {"flipped": list(flipped)} if any(flipped) else {}
    return cache_key(
        stage=STAGE, version=1, mask=case.stages[mask.STAGE]["key"], median=MEDIAN_SIZE,
        weights=model.weights, means=model.means, variances=model.variances, **axes,
    )  # fmt: skip


def label_case(
    client: Client,
    cohort: Cohort,
    name: str,
    model: TissueModel,
    watch: Callable[[int, int], None] | None = None,
    model_name: str = "given",
    room: WorkerMemory | None = None,
) -> Status:
    """Label the lung voxels of a case and tell its lungs apart, unless it carries the labels of this model.

    Raises
    ------
    RoomError
        If workers have too little memory; `room` says how much they have.
    """
    case = cohort[name]
    mask.check_masked(case)
    key = key_for(case, model)
    known = regions.is_valid(case)
    if known and case.stages.get(STAGE, {}).get("key") == key:
        return "kept"
    convert.check_converted(case)
    if room is not None:
        room.check(name, case.geometry, case.layout.slab)
    where = cohort.ref(name, case.start_stage(STAGE, key, () if known else (regions.STAGE,)))
    small = None
    if not known:
        of_sides = case.create_image("side")
        # One task, whose answer is small: with it in hand, no task that follows depends on a worker.
        (small,) = compute_in_order(client, [dask.delayed(regions.compute_coarse_regions)(where)])
    files = case.create_image("tissue") | case.create_image("tissue_median")
    written = _tasks(case, where, model.lookup_table(), small, min_worker_memory(client))
    finished = compute_in_order(client, written, watch)
    if small is not None:
        regions.publish(case, [share for one in finished for share in one.sides], of_sides, small.rejected)
    for one in finished:
        files |= one.files
    counts = np.sum([one.counts for one in finished], axis=0)
    voxels = [int(n) for n in counts[: model.n_components + 1]]
    parameters = {name: list(getattr(model, name)) for name in ("weights", "means", "variances")}
    record = {"key": key, "model": parameters, "model_name": model_name, "median_voxels": voxels}
    case.record(STAGE, record, files)
    return "done"


@dataclass(frozen=True)
class LabelStage:
    """Labels the lung voxels of masked cases.

    Attributes
    ----------
    model : TissueModel
        The mixture.
    model_name : str
        Name that is recorded with the labels.
    before : sequence of Stage
        Stages that are run first for a case whose mask was found to be corrupt.
    """

    model: TissueModel
    model_name: str = "given"
    before: Sequence[Stage] = ()
    name: str = STAGE

    def cache_key(self, case: Case) -> str:
        """Return the key of valid labels of the case."""
        return key_for(case, self.model)

    def run(self, context: StageContext, case_name: str) -> Status:
        """Label the case; see `label_case`."""
        if self.before and mask.STAGE not in context.cohort[case_name].stages:
            for stage in self.before:
                stage.run(context, case_name)
        return label_case(
            context.client,
            context.cohort,
            case_name,
            self.model,
            context.progress(case_name, STAGE),
            self.model_name,
            context.memory,
        )


def without_sides(cohort: Cohort) -> list[str]:
    """Labelled cases that lack the sides of their mask."""
    return [name for name, case in cohort.items() if STAGE in case.stages and not regions.is_valid(case)]


@dataclass(frozen=True, eq=False)
class _Looked:
    """Labels of some slices, uint8 ``[z, y, x]``, and what their slabs hold of each side."""

    tissue: Labels
    sides: tuple[regions.SlabRegionCounts, ...]


@dataclass(frozen=True, eq=False)
class _Finished:
    """What written slices gave: voxels by label after the median, sides, and receipts of the shards."""

    counts: npt.NDArray[np.int64]
    sides: tuple[regions.SlabRegionCounts, ...]
    files: Receipts


def _tasks(
    case: Case, where: CaseRef, table: Labels, small: regions.CompressedLabels | None, memory_limit: int | None
) -> list[Delayed]:
    """One value for each run of slices: label, then filter with the ends of the neighbours, then write."""
    shape = case.geometry.shape
    edges = np.cumsum([0, *label_chunks(case.layout.stored, *shape[1:], _HALO, memory_limit)]).tolist()
    looked = [dask.delayed(_look_up_slab)(table, where, *span, small) for span in pairwise(edges)]
    back, on = window_of(MEDIAN_SIZE, case.geometry.axis_order.flipped)[0]
    ends = [dask.delayed(_ends)(one, on, back) for one in looked] if len(looked) > 1 else []
    finish = dask.delayed(_finish_slab)
    return [
        finish(one, ends[i - 1] if i else None, ends[i + 1] if i + 1 < len(looked) else None, where, edges[i])
        for i, one in enumerate(looked)
    ]


def _look_up_slab(
    table: Labels, where: CaseRef, start: int, stop: int, small: regions.CompressedLabels | None
) -> _Looked:
    case = where.open("r+")
    out = np.zeros((stop - start, *case.geometry.shape[1:]), np.uint8)
    finder = None if small is None else regions.RegionLookup(case, small)
    found = []
    for begin, end in case.layout.within(start, stop):
        lung = case.read("lung", begin, end)
        hit = np.flatnonzero(lung.any(axis=(0, 2)))
        if hit.size:
            rows = slice(int(hit[0]), int(hit[-1]) + 1)
            hu = case.read("ct", begin, end, rows)
            out[begin - start : end - start, rows] = look_up(hu, lung[:, rows], table)
            if finder is not None:
                found.append(finder.write(begin, rows, hu, lung))
    return _Looked(out, tuple(found))


def _ends(looked: _Looked, first: int, last: int) -> tuple[Labels, Labels]:
    """Return what the filter needs of a neighbour: its first slices and its last."""
    return looked.tissue[:first].copy(), looked.tissue[-last:].copy()


def _finish_slab(
    looked: _Looked,
    before: tuple[Labels, Labels] | None,
    after: tuple[Labels, Labels] | None,
    where: CaseRef,
    start: int,
) -> _Finished:
    tissue = looked.tissue
    around = [*([] if before is None else [before[1]]), tissue, *([] if after is None else [after[0]])]
    first = 0 if before is None else len(before[1])
    case = where.open("r+")
    flipped = case.geometry.axis_order.flipped
    median = median_labels(np.concatenate(around) if len(around) > 1 else tissue, MEDIAN_SIZE, flipped)
    median = median[first : first + len(tissue)]
    # Labels outside the lung are 0, so an empty slab can stay unwritten; the median may reach into it all the same.
    counts = np.zeros(256, np.int64)
    files: Receipts = {}
    for begin, end in case.layout.within(start, start + len(tissue)):
        for image, labels in (("tissue", tissue), ("tissue_median", median)):
            slab = labels[begin - start : end - start]
            if slab.any():
                files |= case.write(image, begin, slab)
        counts += count_labels(slab)
    return _Finished(counts, looked.sides, files)
