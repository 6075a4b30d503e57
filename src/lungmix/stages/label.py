"""Label: reads image, mask and model, writes both label maps; depends on the mask and the model."""

from __future__ import annotations

from collections.abc import Callable

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.engine.gather import gather_small
from lungmix.graphs import median_labels, tissue_labels
from lungmix.mixture import TissueModel
from lungmix.stages import mask
from lungmix.store import Case, Cohort, open_cohort
from lungmix.store.records import key_of

STAGE = "label"
MEDIAN_SIZE = 4


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
    tissue = tissue_labels(case.ct, case.lung, model)
    median = median_labels(tissue, MEDIAN_SIZE)
    assert isinstance(tissue, da.Array)
    assert isinstance(median, da.Array)
    starts = np.concatenate([[0], np.cumsum(tissue.chunks[0])[:-1]])
    blocks = zip(tissue.to_delayed().reshape(-1), median.to_delayed().reshape(-1), starts, strict=True)
    written = [dask.delayed(_finish_slab)(one, two, cohort.url, name, int(start)) for one, two, start in blocks]
    counts = np.sum(gather_small(client, written, watch), axis=0)
    case.record(STAGE, {"key": key, "median_voxels": [int(n) for n in counts]})
    return "done"


def _finish_slab(
    tissue: npt.NDArray[np.uint8], median: npt.NDArray[np.uint8], url: str, name: str, start: int
) -> npt.NDArray[np.int64]:
    # Labels outside the lung are 0, so an empty slab can stay unwritten; the median may reach into it all the same.
    case = open_cohort(url, "r+")[name]
    for image, slab in (("tissue", tissue), ("tissue_median", median)):
        if slab.any():
            case.write(image, start, slab)
    return np.bincount(median.reshape(-1), minlength=256)
