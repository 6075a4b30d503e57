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
        Settings of the fits, of which `pool` and `weigh` are used.

    Returns
    -------
    ndarray, shape (65536,)
        uint64. If all scans count alike, float64: the histogram has the same sum, of which each scan has an equal part.

    Raises
    ------
    ModelError
        If no case has a voxel to pool.
    """
    pool = Pool(parameters)
    for name in names:
        pool.add(cohort[name])
    return pool.counts()


class Pool:
    """Sum of the histograms of cases, of which cases can be left out again.

    Parameters
    ----------
    parameters : FitParameters
        `pool` and `weigh`.
    """

    def __init__(self, parameters: FitParameters):
        self._parameters = parameters
        self._total = np.zeros(N_HU, np.uint64)
        self._shares = np.zeros(N_HU, np.float64)
        self._cases = self._filled = 0

    def add(self, case: Case) -> None:
        """Add the voxels of a masked case."""
        self.add_counts(counts_of(case, self._parameters.pool))

    def add_counts(self, counts: npt.NDArray[np.uint64]) -> None:
        """Add the pooled voxels of a case by their histogram, which `counts_of` returns."""
        voxels = int(counts.sum())
        self._total += counts
        self._cases += 1
        if voxels:
            self._shares += counts / voxels
            self._filled += 1

    def counts(self, left_out: Sequence[Case] = ()) -> Histogram:
        """Return the pooled histogram without some of the cases that were added; see `pooled_counts`."""
        without = Pool(self._parameters)
        for case in left_out:
            without.add(case)
        filled = self._filled - without._filled
        if not filled:
            raise ModelError(f"none of {count_of(self._cases - without._cases, 'case')} has a lung voxel to pool")
        total = self._total - without._total
        if self._parameters.weigh != WEIGH_SCANS:
            return total
        # Rounding of the difference leaves traces where no other scan has a voxel.
        shares = np.where(total > 0, self._shares - without._shares, 0.0)
        return shares * (float(total.sum()) / filled)


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
    """Return a sentence that names the cases whose whole mask is pooled, because right and left lung are unknown.

    There is no sentence if there are no such cases.
    """
    unknown = [name for name in names if not has_lungs(cohort[name])]
    if not unknown:
        return []
    return [
        f"the whole mask of {count_of(len(unknown), 'case')} ({first_of(unknown)}) is pooled: right and left lung are "
        "unknown, because the scan does not state its orientation"
    ]
