"""Pool: which voxels of a cohort the fits ``converged`` and ``anchored`` see, and how much each scan counts.

The fit ``paper`` pools as the publication does: all voxels of all masks, each voxel alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.errors import ModelError, count_of, first_of
from lungmix.kernels.histogram import N_HU, ShareSum, SparseHistogram
from lungmix.parameters import POOL_LUNGS, WEIGH_SCANS, FitParameters
from lungmix.stages import regions
from lungmix.stages.batches import over_batches
from lungmix.store import Case, Cohort
from lungmix.tissue import LUNGS

Histogram = npt.NDArray[Any]


def pool_cohort(
    cohort: Cohort,
    names: Sequence[str],
    parameters: FitParameters,
    client: Client | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[npt.NDArray[np.uint64], Histogram]:
    """Return the pooled histograms of cases for the fit ``paper``, and for the fits ``converged`` and ``anchored``.

    The sums are exact, so they do not depend on batches, workers or the order of cases.

    Parameters
    ----------
    cohort : Cohort
        The store.
    names : sequence of str
        Masked cases; with ``pool="lungs"`` their regions have been found.
    parameters : FitParameters
        Settings of the fits, of which `pool` and `weigh` are used.
    client : distributed.Client, optional
        Client of the cluster that reads the histograms of a large cohort.
    progress : callable, optional
        Called as ``progress(done, total)`` with the number of cases that were read.

    Returns
    -------
    alike : ndarray of uint64, shape (65536,)
        Sum of the histograms of the masks.
    pooled : ndarray, shape (65536,)
        uint64; the same array as `alike` if all fits pool alike. If all scans count alike, float64: the histogram has
        the same sum, of which each scan has an equal part.

    Raises
    ------
    ModelError
        If no case has a voxel to pool, and the fits pool differently.
    """
    pools = _pools(parameters)
    for parts in over_batches(client, cohort, names, _pool_batch, parameters, progress=progress):
        for pool, part in zip(pools, parts, strict=True):
            pool.add_part(part)
    alike = pools[0].total
    return alike, alike if len(pools) == 1 else pools[1].counts()


def _pools(parameters: FitParameters) -> list[Pool]:
    """Return empty pools of the fit ``paper`` and of the other fits; only the former if they pool alike."""
    # The fit of the paper pools whole masks and voxels alike, whatever the others pool.
    pools = [Pool(FitParameters())]
    return pools if parameters.pools_as_published else [*pools, Pool(parameters)]


def _pool_batch(cohort: Cohort, names: Sequence[str], parameters: FitParameters) -> list[PoolPart]:
    """Return the sums of a batch of cases, of which one histogram at a time is in memory."""
    pools = _pools(parameters)
    for name in names:
        case = cohort[name]
        mask = case.hu_counts
        pools[0].add_counts(mask)
        for pool in pools[1:]:
            pool.add_counts(mask if parameters.pool != POOL_LUNGS else counts_of(case, parameters.pool))
    return [pool.part() for pool in pools]


@dataclass(frozen=True, eq=False)
class PoolPart:
    """Sums of some cases, of bins that are not empty: small enough for a task to return to the client.

    Attributes
    ----------
    total : SparseHistogram
        Sum of the histograms.
    limbs : ndarray of uint64, shape (4, n) or (0, n)
        Sums of shares in these bins, see `ShareSum`; empty if voxels count alike.
    cases, filled : int
        Number of cases, and of those with a voxel.
    """

    total: SparseHistogram
    limbs: npt.NDArray[np.uint64]
    cases: int
    filled: int


class Pool:
    """Sum of the histograms of cases, of which cases can be left out again.

    Parameters
    ----------
    parameters : FitParameters
        `pool` and `weigh`.
    """

    def __init__(self, parameters: FitParameters):
        self._parameters = parameters
        self.total = np.zeros(N_HU, np.uint64)
        self._shares = ShareSum() if parameters.weigh == WEIGH_SCANS else None
        self._cases = self._filled = 0

    def add(self, case: Case) -> None:
        """Add the voxels of a masked case."""
        self.add_counts(counts_of(case, self._parameters.pool))

    def add_counts(self, counts: npt.NDArray[np.uint64]) -> None:
        """Add the pooled voxels of a case by their histogram, which `counts_of` returns."""
        self.total += counts
        self._cases += 1
        if counts.any():
            self._filled += 1
            if self._shares is not None:
                self._shares.add(counts)

    def part(self) -> PoolPart:
        """Return the sums of the cases that were added."""
        total = SparseHistogram.of(self.total)
        limbs = np.zeros((0, len(total.index)), np.uint64) if self._shares is None else self._shares.limbs
        return PoolPart(total, limbs[:, total.index] if len(limbs) else limbs, self._cases, self._filled)

    def add_part(self, part: PoolPart) -> None:
        """Add the cases of another pool with the same parameters."""
        part.total.add_to(self.total)
        if self._shares is not None:
            self._shares.limbs[:, part.total.index] += part.limbs
        self._cases += part.cases
        self._filled += part.filled

    def counts(self, left_out: Sequence[Case] = ()) -> Histogram:
        """Return the pooled histogram without some of the cases that were added; see `pool_cohort`."""
        without = Pool(self._parameters)
        for case in left_out:
            without.add(case)
        filled = self._filled - without._filled
        if not filled:
            raise ModelError(f"none of {count_of(self._cases - without._cases, 'case')} has a lung voxel to pool")
        total = self.total - without.total
        if self._shares is None or without._shares is None:
            return total
        shares = ShareSum()
        shares.limbs = self._shares.limbs - without._shares.limbs
        return shares.values() * (float(total.sum()) / filled)


def involved_percents(
    cohort: Cohort,
    names: Sequence[str],
    involved: Mapping[str, npt.NDArray[np.bool_]],
    client: Client | None = None,
) -> dict[str, dict[str, float]]:
    """Return the percent of the voxels of each mask that lie in chosen HU, by case.

    Parameters
    ----------
    cohort : Cohort
        The store.
    names : sequence of str
        Masked cases.
    involved : mapping of str to ndarray of bool, shape (65536,)
        The chosen HU by name, such as those that a fit labels GGO, consolidation or other.
    client : distributed.Client, optional
        Client of the cluster that reads the histograms of a large cohort.

    Returns
    -------
    dict of str to dict
        Percent by name of `involved`, for each case in the order of `names`; NaN for an empty mask.
    """
    percents: dict[str, dict[str, float]] = {name: {} for name in names}
    packed = {name: np.packbits(chosen) for name, chosen in involved.items()}
    for rows in over_batches(client, cohort, names, _percents_of_batch, packed):
        percents |= rows
    return percents


def _percents_of_batch(
    cohort: Cohort, names: Sequence[str], packed: Mapping[str, npt.NDArray[np.uint8]]
) -> dict[str, dict[str, float]]:
    involved = {name: np.unpackbits(bits).astype(bool) for name, bits in packed.items()}
    rows = {}
    for name in names:
        counts = cohort[name].hu_counts
        rows[name] = {key: percent_of(chosen, counts) for key, chosen in involved.items()}
    return rows


def percent_of(chosen: npt.NDArray[np.bool_], counts: npt.NDArray[np.uint64]) -> float:
    """Return the percent of voxels in the chosen bins of a histogram; NaN for an empty histogram."""
    total = int(counts.sum())
    return 100.0 * int(counts[chosen].sum()) / total if total else float("nan")


def counts_of(case: Case, pool: str) -> npt.NDArray[np.uint64]:
    """Return the histogram of the voxels of a case that are pooled, uint64 of shape (65536,).

    With the pool ``lungs`` these are right and left lung. A case without known orientation has neither; all its mask is
    pooled.
    """
    if pool != POOL_LUNGS or not has_lungs(case):
        return case.hu_counts
    return case.side_counts[[lung.label - 1 for lung in LUNGS]].sum(axis=0, dtype=np.uint64)


def has_lungs(case: Case) -> bool:
    """Return True if right or left lung of a masked case is known and has voxels."""
    return regions.is_valid(case) and bool(case.side_counts[[lung.label - 1 for lung in LUNGS]].any())


def without_lungs(cohort: Cohort, names: Sequence[str], client: Client | None = None) -> list[str]:
    """Return a sentence that names the cases whose whole mask is pooled, because right and left lung are unknown.

    There is no sentence if there are no such cases. Workers of `client` read a large cohort.
    """
    names_of_batches = {name for batch in over_batches(client, cohort, names, _without_lungs) for name in batch}
    unknown = [name for name in names if name in names_of_batches]
    if not unknown:
        return []
    return [
        f"the whole mask of {count_of(len(unknown), 'case')} ({first_of(unknown)}) is pooled: right and left lung are "
        "unknown, because the scan does not state its orientation"
    ]


def _without_lungs(cohort: Cohort, names: Sequence[str]) -> list[str]:
    return [name for name in names if not has_lungs(cohort[name])]
