"""Bootstrap over scans: how far parameters and thresholds would move had other patients come.

Voxels of one scan are not independent of each other, scans are: whole scans are drawn with replacement, and a drawn
cohort is a sum of counts, so that no voxel is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.analysis.comparison import involvement
from lungmix.errors import UsageError
from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.kernels.measures import component_keys
from lungmix.mixture import PAPER, TissueModel, fit_converged, fit_paper
from lungmix.parameters import FitParameters
from lungmix.stages.fit import HU, add_counts, fit_counts
from lungmix.tissue import TISSUES

Counts = npt.NDArray[np.uint64]

LEAST_SCANS = 20
"""Fewer scans give intervals not to rely on: in the paper's Figure 4 mixtures of groups overlap from 20 on."""

_MARGIN = 0.01


@dataclass(frozen=True)
class Interval:
    """One number with its uncertainty.

    Attributes
    ----------
    name : str
        ``weight``, ``mean``, ``sd`` of a component, ``threshold`` between two, or ``lung_involvement``.
    of : str
        The component, or both with an arrow between; ``pooled`` for the lung involvement.
    unit : str
        ``HU``, ``%``, or nothing.
    estimate : float
        From all scans.
    low, high : float
        Ends of the interval: quantiles of the refits.
    error : float
        Standard deviation of the refits.
    """

    name: str
    of: str
    unit: str
    estimate: float
    low: float
    high: float
    error: float

    @property
    def is_at_end(self) -> bool:
        """True if the estimate lies outside its interval or within 1 % of its width from an end."""
        margin = _MARGIN * (self.high - self.low)
        return not self.low + margin < self.estimate < self.high - margin


@dataclass(frozen=True)
class Bootstrap:
    """Intervals over scans.

    Attributes
    ----------
    fit : {"paper", "converged"}
        What was refitted.
    scans, refits : int
        Cases, and cohorts drawn from them.
    level : float
        Percent of refits within an interval.
    intervals : list of Interval
        Parameters, then thresholds, then the lung involvement where there are five components.
    model : TissueModel
        The fit of all scans.
    models : tuple of TissueModel
        The refits.
    """

    fit: str
    scans: int
    refits: int
    level: float
    intervals: list[Interval]
    model: TissueModel
    models: tuple[TissueModel, ...]

    @property
    def notes(self) -> list[str]:
        """Reasons not to rely on the intervals, for people; empty where there are none."""
        notes = []
        if self.scans < LEAST_SCANS:
            notes.append(
                f"{self.scans} scans are too few: {distinct_draws(self.scans):,} different cohorts can be drawn from "
                f"them, and intervals tend to be too narrow; use {LEAST_SCANS} scans or more"
            )
        ends = [f"{one.name} of {one.of}" for one in self.intervals if one.is_at_end]
        if ends:
            notes.append(
                f"{', '.join(ends)}: the estimate lies at an end of its interval, so the interval does not say how far "
                "it may move to that side"
            )
        return notes


def distinct_draws(scans: int) -> int:
    """Number of different cohorts that can be drawn from as many scans with replacement."""
    return comb(2 * scans - 1, scans)


def bootstrap(
    counts: Mapping[str, Counts],
    parameters: FitParameters,
    *,
    refits: int = 200,
    level: float = 95.0,
    seed: int = 0,
    watch: Callable[[int, int], None] | None = None,
) -> Bootstrap:
    """Refit cohorts of scans drawn with replacement.

    Parameters
    ----------
    counts : mapping of str to ndarray of uint64, shape (65536,)
        By case, from -32768 HU on.
    parameters : FitParameters
        ``fit`` says which one: ``converged`` starts at the fit of all scans; ``paper`` starts afresh with k-means each
        time, because its result depends on the start.
    refits : int
        Cohorts to draw.
    level : float
        Percent within an interval.
    seed : int
        Of the draws.
    watch : callable, optional
        ``watch(done, total)`` after each refit.

    Raises
    ------
    UsageError
        If there are fewer than two scans, or numbers make no sense.
    """
    if len(counts) < 2:
        raise UsageError(f"a bootstrap over scans needs two scans or more, here is {len(counts)}: add scans first")
    if refits < 2 or not 0 < level < 100:
        raise UsageError(f"{refits} refits at {level:g} % are not possible: give 2 or more, and 0 to 100 %")
    table = np.stack(list(counts.values())).astype(np.float64)
    present = np.flatnonzero(table.sum(axis=0))
    hu, table = HU[present], table[:, present]
    first = fit_counts(add_counts(counts), parameters)[parameters.fit]
    random = np.random.default_rng(seed)
    models, rows = [], []
    for done in range(1, refits + 1):
        drawn = random.multinomial(len(table), np.full(len(table), 1 / len(table))) @ table
        model = _refit(hu, drawn, first, parameters)
        models.append(model)
        rows.append([value for _, _, _, value in _numbers(model, hu, drawn)])
        if watch is not None:
            watch(done, refits)
    tail = (100 - level) / 2
    low, high = np.percentile(rows, [tail, 100 - tail], axis=0)
    error = np.std(rows, axis=0, ddof=1)
    intervals = [
        Interval(name, of, unit, value, float(low[i]), float(high[i]), float(error[i]))
        for i, (name, of, unit, value) in enumerate(_numbers(first, hu, table.sum(axis=0)))
    ]
    return Bootstrap(parameters.fit, len(table), refits, level, intervals, first, tuple(models))


def _refit(
    hu: npt.NDArray[np.int64], drawn: npt.NDArray[np.float64], first: TissueModel, parameters: FitParameters
) -> TissueModel:
    if parameters.fit == PAPER:
        return fit_paper(hu, drawn, clip=parameters.clip, **parameters.of_em())
    return fit_converged(hu, drawn, [first], clip=parameters.clip, reg_covar=parameters.reg_covar, afresh=False)


def _numbers(
    model: TissueModel, hu: npt.NDArray[np.int64], drawn: npt.NDArray[np.float64]
) -> list[tuple[str, str, str, float]]:
    """Name, component, unit and value of all that gets an interval."""
    keys = component_keys(model.n_components)
    out: list[tuple[str, str, str, float]] = []
    out += [("weight", key, "", value) for key, value in zip(keys, model.weights, strict=True)]
    out += [("mean", key, "HU", value) for key, value in zip(keys, model.means, strict=True)]
    out += [("sd", key, "HU", value**0.5) for key, value in zip(keys, model.variances, strict=True)]
    pairs = zip(keys[:-1], keys[1:], model.map_thresholds(), strict=True)
    out += [("threshold", f"{one} → {two}", "HU", value) for one, two, value in pairs]
    if model.n_components == len(TISSUES):
        counts = np.zeros(N_HU, np.uint64)
        counts[hu - FIRST_HU] = drawn.astype(np.uint64)
        out.append(("lung_involvement", "pooled", "%", involvement(model, counts)))
    return out


def rows_of(result: Bootstrap) -> list[dict[str, Any]]:
    """Intervals as rows of a table."""
    return [
        {"quantity": i.name, "of": i.of, "unit": i.unit, "estimate": i.estimate, "low": i.low, "high": i.high,
         "standard_error": i.error, "estimate_at_end": int(i.is_at_end)}
        for i in result.intervals
    ]  # fmt: skip
