"""Label: reads image, mask and model, writes both label maps; depends on the mask and the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.engine.connect import least_memory
from lungmix.engine.gather import gather_small
from lungmix.graphs import median_labels
from lungmix.graphs.memory import label_chunks
from lungmix.kernels.labels import count_labels, look_up
from lungmix.stages import mask
from lungmix.store import Case, CaseRef, Cohort
from lungmix.store.records import key_of

if TYPE_CHECKING:
    # Workers get a table: they need no mixtures and none of the libraries behind them.
    from lungmix.mixture import TissueModel

STAGE = "label"
MEDIAN_SIZE = 4

Labels = npt.NDArray[np.uint8]


def key_for(case: Case, model: TissueModel) -> str:
    """What label maps depend on."""
    return key_of(
        stage=STAGE, version=1, mask=case.stages[mask.STAGE]["key"], median=MEDIAN_SIZE,
        weights=model.weights, means=model.means, variances=model.variances,
    )  # fmt: skip


def label_case(
    client: Client,
    cohort: Cohort,
    name: str,
    model: TissueModel,
    watch: Callable[[int, int], None] | None = None,
) -> str:
    """Label the lung voxels of a case, unless they carry the labels of this model."""
    case = cohort[name]
    key = key_for(case, model)
    if case.stages.get(STAGE, {}).get("key") == key:
        return "kept"
    case.forget(STAGE)
    case.create("tissue")
    case.create("tissue_median")
    where = CaseRef(cohort.url, name)
    tissue = _tissue(case, where, model, least_memory(client))
    median = median_labels(tissue, MEDIAN_SIZE)
    assert isinstance(median, da.Array)
    starts = np.concatenate([[0], np.cumsum(tissue.chunks[0])[:-1]])
    blocks = zip(tissue.to_delayed().reshape(-1), median.to_delayed().reshape(-1), starts, strict=True)
    written = [dask.delayed(_finish_slab)(one, two, where, int(start)) for one, two, start in blocks]
    counts = np.sum(gather_small(client, written, watch), axis=0)
    case.record(STAGE, {"key": key, "median_voxels": [int(n) for n in counts]})
    return "done"


def _tissue(case: Case, where: CaseRef, model: TissueModel, memory_limit: int | None) -> da.Array:
    """Labels of a case, in slabs as thick as the workers' memory allows."""
    shape = case.geometry.shape
    thick = label_chunks(case.layout.stored, *shape[1:], MEDIAN_SIZE // 2, memory_limit)
    return da.map_blocks(
        _look_up_slab, table=model.table(), where=where, starts=np.cumsum([0, *thick]).tolist(),
        dtype=np.uint8, chunks=(thick, (shape[1],), (shape[2],)), meta=np.empty((0, 0, 0), np.uint8),
    )  # fmt: skip


def _look_up_slab(table: Labels, where: CaseRef, starts: list[int], block_id: tuple[int, ...] | None = None) -> Labels:
    if block_id is None:
        return np.empty((0, 0, 0), np.uint8)
    start, stop = starts[block_id[0] : block_id[0] + 2]
    case = where.open()
    out = np.zeros((stop - start, *case.geometry.shape[1:]), np.uint8)
    for begin, end in case.layout.within(start, stop):
        lung = case.read("lung", begin, end)
        hit = np.flatnonzero(lung.any(axis=(0, 2)))
        if hit.size:
            rows = slice(int(hit[0]), int(hit[-1]) + 1)
            out[begin - start : end - start, rows] = look_up(case.read("ct", begin, end, rows), lung[:, rows], table)
    return out


def _finish_slab(tissue: Labels, median: Labels, where: CaseRef, start: int) -> npt.NDArray[np.int64]:
    # Labels outside the lung are 0, so an empty slab can stay unwritten; the median may reach into it all the same.
    case = where.open("r+")
    counts = np.zeros(256, np.int64)
    for begin, end in case.layout.within(start, start + len(tissue)):
        for image, labels in (("tissue", tissue), ("tissue_median", median)):
            slab = labels[begin - start : end - start]
            if slab.any():
                case.write(image, begin, slab)
        counts += count_labels(slab)
    return counts
