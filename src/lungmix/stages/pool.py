"""Pool: which voxels of a cohort the fits ``converged`` and ``anchored`` see, and how much each scan counts.

The fit ``paper`` pools as the publication does: all voxels of all masks, each voxel alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import ModelError, count_of, first_of
from lungmix.kernels.histogram import N_HU
from lungmix.parameters import POOL_LUNGS, WEIGH_SCANS, FitParameters
from lungmix.stages import regions
from lungmix.store import Case, Cohort
from lungmix.tissue import LUNGS

Histogram = npt.NDArray[Any]


def pooled_counts(cohort: Cohort, names: Sequence[str], parameters: FitParameters) -> Histogram:
    """Return the pooled histogram of cases for the fits ``converged`` and ``anchored``.

    Parameters
    ----------
    cohort : Cohort
        The store.
    names : sequence of str
        Masked cases; with ``pool="lungs"`` their regions have been found.
    parameters : FitParameters
        `pool` and `weigh`.

    Returns
    -------
    ndarray, shape (65536,)
        uint64, or float64 where scans count alike: these histograms have as many voxels in all, and each scan has the
        same number of them.

    Raises
    ------
    ModelError
        If the pool has no voxel.
    """
    total = np.zeros(N_HU, np.uint64)
    shares = np.zeros(N_HU, np.float64)
    filled = 0
    for name in names:
        counts = counts_of(cohort[name], parameters.pool)
        voxels = int(counts.sum())
        total += counts
        if voxels:
            shares += counts / voxels
            filled += 1
    if not filled:
        raise ModelError(f"none of {count_of(len(names), 'case')} has a lung voxel to pool")
    return shares * (float(total.sum()) / filled) if parameters.weigh == WEIGH_SCANS else total


def counts_of(case: Case, pool: str) -> npt.NDArray[np.uint64]:
    """Return the histogram of the voxels of a case that are pooled, uint64 of shape (65536,).

    With the pool ``lungs`` these are right and left lung. A case without known orientation has neither; all its mask is
    pooled.
    """
    if pool != POOL_LUNGS or not has_lungs(case):
        return case.hu_counts
    return sum((case.side_counts[lung.label - 1] for lung in LUNGS), np.zeros(N_HU, np.uint64))


def has_lungs(case: Case) -> bool:
    """Return True if right or left lung of a masked case is known and has voxels."""
    return regions.is_valid(case) and any(case.side_counts[lung.label - 1].any() for lung in LUNGS)


def without_lungs(cohort: Cohort, names: Sequence[str]) -> list[str]:
    """Return a sentence that names the cases whose whole mask is pooled, as its lungs are unknown; none without any."""
    unknown = [name for name in names if not has_lungs(cohort[name])]
    if not unknown:
        return []
    return [
        f"the whole mask of {count_of(len(unknown), 'case')} ({first_of(unknown)}) is pooled: right and left lung are "
        "unknown, because the scan does not state its orientation"
    ]
