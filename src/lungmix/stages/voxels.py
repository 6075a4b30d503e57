"""The pooled lung voxels of cases as one lazy array, read slab by slab where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.compute import compute_in_order
from lungmix.store import Case, CaseRef, Cohort


def lung_voxels(
    client: Client,
    cohort: Cohort,
    names: Sequence[str],
    clip: int,
    watch: Callable[[int, int], None] | None = None,
) -> da.Array:
    """HU of every lung voxel of cases.

    Parameters
    ----------
    client : distributed.Client
        Counts the lung voxels of each slab, so that the array knows its length.
    cohort : Cohort
        The store, under a path that the workers have too.
    names : sequence of str
        Cases with a mask.
    clip : int
        HU; lower values become this one.
    watch : callable, optional
        ``watch(done, total)`` after each slab is counted.

    Returns
    -------
    dask array of float64, shape (n,)
        HU, one block a slab that holds lung; nothing but the block that is worked on is in memory.
    """
    slabs = [(cohort.ref(name), *cut) for name in names for cut in _cuts(cohort[name])]
    lengths = compute_in_order(client, [dask.delayed(_count)(*slab) for slab in slabs], watch)
    blocks = [
        da.from_delayed(dask.delayed(_read)(*slab, clip), (length,), np.float64)
        for slab, length in zip(slabs, lengths, strict=True)
        if length
    ]
    return da.concatenate(blocks)


def _cuts(case: Case) -> list[tuple[int, int]]:
    return [(int(start), int(stop)) for start, stop in case.layout.slabs()]


def _count(where: CaseRef, start: int, stop: int) -> int:
    return int(np.count_nonzero(where.open().read("lung", start, stop)))


def _read(where: CaseRef, start: int, stop: int, clip: int) -> npt.NDArray[np.float64]:
    case = where.open()
    hu = case.read("ct", start, stop)[case.read("lung", start, stop) > 0]
    return np.maximum(hu, clip).astype(np.float64)
