"""Lung voxels of all cases as one dask array, read slab by slab when it is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.compute import compute_in_order
from lungmix.store import CaseRef, Cohort


def lung_voxels(
    client: Client,
    cohort: Cohort,
    names: Sequence[str],
    clip: int,
    progress: Callable[[int, int], None] | None = None,
) -> da.Array:
    """Return the HU of all lung voxels of cases as a dask array.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster that counts the lung voxels of each slab, which gives the length of the array.
    cohort : Cohort
        The store; workers must be able to read it under the same path.
    names : sequence of str
        Cases with a mask.
    clip : int
        Lower limit, HU; lower values are set to it.
    progress : callable, optional
        ``progress(done, total)`` after each slab is counted.

    Returns
    -------
    dask array of float64, shape (n,)
        HU, one block per slab that holds lung; only the block being computed is in memory.
    """
    slabs = [(CaseRef.of(cohort, name), *bounds) for name in names for bounds in cohort[name].layout.slabs()]
    lengths = compute_in_order(client, [dask.delayed(_count)(*slab) for slab in slabs], progress)
    blocks = [
        da.from_delayed(dask.delayed(_read)(*slab, clip), (length,), np.float64)
        for slab, length in zip(slabs, lengths, strict=True)
        if length
    ]
    return da.concatenate(blocks)


def _count(case_ref: CaseRef, start: int, stop: int) -> int:
    return int(np.count_nonzero(case_ref.open().read("lung", start, stop)))


def _read(case_ref: CaseRef, start: int, stop: int, clip: int) -> npt.NDArray[np.float64]:
    case = case_ref.open()
    hu = case.read(case.measured_image, start, stop)[case.read("lung", start, stop) > 0]
    return np.maximum(hu, clip).astype(np.float64)
