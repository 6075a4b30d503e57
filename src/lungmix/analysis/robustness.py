"""Robustness study as in Zaffino et al. 2021, Figure 4: mixtures of random groups of 10, 20, 30 and more scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError
from lungmix.mixture import Fits
from lungmix.mixture.distance import total_variation
from lungmix.parameters import FitParameters
from lungmix.stages.fit import add_histograms, fit_counts

Counts = npt.NDArray[np.uint64]

STEP = 10
"""Difference between the sizes of groups in the publication, in scans."""

GROUPS = 3


@dataclass(frozen=True)
class Group:
    """Random group of scans and its mixtures.

    Attributes
    ----------
    size : int
        Number of scans.
    cases : tuple of str
        Names of the cases in the group.
    fits : Fits
        Fits of the pooled voxels of these cases.
    """

    size: int
    cases: tuple[str, ...]
    fits: Fits


@dataclass(frozen=True)
class Robustness:
    """Random groups of scans, and the distances between the densities of their mixtures.

    Attributes
    ----------
    scans : int
        Number of scans in the cohort.
    groups : list of Group
        The groups, in ascending order of size.
    cohort_fits : Fits
        Fits of all scans.
    rows : list of dict
        One row per size: ``size``, ``groups`` (number of groups), ``shared`` (mean percent of scans that two groups of
        this size have in common). For each fit ``FIT.distance`` and ``FIT.largest`` are the mean and the largest total
        variation distance between two groups of this size, and ``FIT.to_whole`` is the mean distance between a group
        and all scans. Distances range from 0 (equal) to 1 (disjoint).
    """

    scans: int
    groups: list[Group]
    cohort_fits: Fits
    rows: list[dict[str, Any]]


def study(
    counts: Mapping[str, Counts],
    parameters: FitParameters,
    *,
    sizes: Sequence[int] | None = None,
    groups: int = GROUPS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Return fits of random groups of scans, for several sizes of groups.

    Parameters
    ----------
    counts : mapping of str to ndarray of uint64, shape (65536,)
        Histograms by case; the first bin is -32768 HU.
    parameters : FitParameters
        Settings of the fits.
    sizes : sequence of int, optional
        Numbers of scans per group; by default those of `default_sizes`.
    groups : int
        Number of groups per size. Groups are drawn independently; no group contains a scan twice.
    seed : int
        Seed of the draws.
    progress : callable, optional
        Called as ``progress(done, total)`` after each group.

    Raises
    ------
    UsageError
        If a size is larger than the cohort, or a number is too small.
    """
    names = list(counts)
    chosen = default_sizes(len(names)) if sizes is None else list(sizes)
    if groups < 2 or not chosen or min(chosen) < 1 or max(chosen) > len(names):
        raise UsageError(
            f"groups of {', '.join(map(str, chosen)) or 'no'} scans, {groups} of each size, cannot be drawn from "
            f"{len(names)} scans: give two groups or more, of 1 to {len(names)} scans"
        )
    random = np.random.default_rng(seed)
    drawn = []
    for size in chosen:
        for _ in range(groups):
            cases = tuple(names[i] for i in sorted(random.choice(len(names), size, replace=False)))
            drawn.append(Group(size, cases, fit_counts(_pool(counts, cases), parameters)))
            if progress is not None:
                progress(len(drawn), len(chosen) * groups)
    cohort_fits = fit_counts(_pool(counts, names), parameters)
    rows = [_row(size, [group for group in drawn if group.size == size], cohort_fits) for size in chosen]
    return Robustness(len(names), drawn, cohort_fits, rows)


def default_sizes(scans: int) -> list[int]:
    """Return sizes of groups: 10, 20, 30 and so on, below the size of the cohort.

    Cohorts of 30 or fewer scans have smaller steps, about a sixth of their size.

    >>> default_sizes(62), default_sizes(12), default_sizes(3)
    ([10, 20, 30, 40, 50, 60], [2, 4, 6, 8, 10], [1, 2])
    """
    step = STEP if scans > 3 * STEP else max(1, round(scans / 6))
    return list(range(step, scans, step))


def _pool(counts: Mapping[str, Counts], cases: Sequence[str]) -> Counts:
    return add_histograms(counts[name] for name in cases)


def _row(size: int, groups: list[Group], cohort_fits: Fits) -> dict[str, Any]:
    pairs = list(combinations(groups, 2))
    shared = np.mean([len({*a.cases} & {*b.cases}) / size for a, b in pairs])
    row: dict[str, Any] = {"size": size, "groups": len(groups), "shared": 100 * float(shared)}
    for name in cohort_fits:
        distances = [total_variation(a.fits[name], b.fits[name]) for a, b in pairs]
        row[f"{name}.distance"] = float(np.mean(distances))
        row[f"{name}.largest"] = max(distances)
        row[f"{name}.to_whole"] = float(np.mean([total_variation(g.fits[name], cohort_fits[name]) for g in groups]))
    return row
