"""The robustness study of Zaffino et al. 2021, Figure 4: mixtures of random groups of scans, by size of the group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError
from lungmix.mixture import Fits, TissueModel
from lungmix.parameters import FITS, FitParameters
from lungmix.stages.fit import add_counts, fit_counts

Counts = npt.NDArray[np.uint64]

STEP = 10
"""Scans by which the groups of the publication grow."""

GROUPS = 3
_GRID = np.arange(-4000, 4001)


@dataclass(frozen=True)
class Group:
    """A random part of the cohort and its mixtures.

    Attributes
    ----------
    size : int
        Scans.
    cases : tuple of str
        Which ones.
    fits : Fits
        Of their pooled voxels.
    """

    size: int
    cases: tuple[str, ...]
    fits: Fits


@dataclass(frozen=True)
class Robustness:
    """All groups, and how far their densities differ.

    Attributes
    ----------
    scans : int
        Of the cohort.
    groups : list of Group
        By size.
    whole : Fits
        Of the whole cohort.
    rows : list of dict
        One a size: ``size``, ``groups``, ``shared`` (mean percent of a group's scans that another group of its size has
        too), and by fit, after its name and a dot, ``distance`` and ``largest`` (mean and largest total variation
        distance between groups of this size) and ``to_whole`` (mean distance to the fit of all scans). Distances go
        from 0, equal, to 1, apart.
    """

    scans: int
    groups: list[Group]
    whole: Fits
    rows: list[dict[str, Any]]


def study(
    counts: Mapping[str, Counts],
    parameters: FitParameters,
    *,
    sizes: Sequence[int] | None = None,
    groups: int = GROUPS,
    seed: int = 0,
    watch: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Fit random groups of scans of growing size.

    Parameters
    ----------
    counts : mapping of str to ndarray of uint64, shape (65536,)
        By case, from -32768 HU on.
    parameters : FitParameters
        Of the mixtures.
    sizes : sequence of int, optional
        Scans in a group; by default those of `default_sizes`.
    groups : int
        Random groups of each size. A group holds no scan twice; groups are drawn independently.
    seed : int
        Of the draws.
    watch : callable, optional
        ``watch(done, total)`` after each group.

    Raises
    ------
    UsageError
        If the cohort is too small for the sizes.
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
            if watch is not None:
                watch(len(drawn), len(chosen) * groups)
    whole = fit_counts(_pool(counts, names), parameters)
    rows = [_row(size, [group for group in drawn if group.size == size], whole) for size in chosen]
    return Robustness(len(names), drawn, whole, rows)


def default_sizes(scans: int) -> list[int]:
    """Sizes of groups: 10, 20, 30 ... below the whole cohort; about six steps where it is small.

    >>> default_sizes(62), default_sizes(12), default_sizes(3)
    ([10, 20, 30, 40, 50, 60], [2, 4, 6, 8, 10], [1, 2])
    """
    step = STEP if scans > 3 * STEP else max(1, round(scans / 6))
    return list(range(step, scans, step))


def total_variation(one: TissueModel, two: TissueModel) -> float:
    """Half the integral of the difference of two densities: 0 where they are equal, 1 where they are apart."""
    return float(np.abs(one.density(_GRID) - two.density(_GRID)).sum() / 2)


def _pool(counts: Mapping[str, Counts], cases: Sequence[str]) -> Counts:
    return add_counts({name: counts[name] for name in cases})


def _row(size: int, groups: list[Group], whole: Fits) -> dict[str, Any]:
    pairs = list(combinations(groups, 2))
    shared = np.mean([len({*a.cases} & {*b.cases}) / size for a, b in pairs])
    row: dict[str, Any] = {"size": size, "groups": len(groups), "shared": 100 * float(shared)}
    for name in FITS:
        distances = [total_variation(a.fits[name], b.fits[name]) for a, b in pairs]
        row[f"{name}.distance"] = float(np.mean(distances))
        row[f"{name}.largest"] = max(distances)
        row[f"{name}.to_whole"] = float(np.mean([total_variation(g.fits[name], whole[name]) for g in groups]))
    return row
