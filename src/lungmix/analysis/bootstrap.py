"""Bootstrap over scans: uncertainty of parameters and thresholds that comes from the choice of patients.

Scans are drawn with replacement, not voxels, because voxels of one scan are correlated and scans of different patients
are independent. The histogram of a drawn cohort is a sum of the histograms of its scans, so no voxel is read.
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
from lungmix.kernels.data_dictionary import EXPECTED
from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.kernels.measures import component_keys, expected_shares
from lungmix.mixture import ANCHORED, PAPER, TissueModel, fit_anchored, fit_converged, fit_paper
from lungmix.parameters import FitParameters
from lungmix.stages.fit import HU, add_counts, fit_counts, prior_of
from lungmix.tissue import TISSUES

Counts = npt.NDArray[np.uint64]

LEAST_SCANS = 20
"""Smallest number of scans for reliable intervals.

In Figure 4 of the publication, mixtures of random groups of scans coincide from 20 scans per group on.
"""

INVOLVEMENT, EXPECTED_INVOLVEMENT = "lung_involvement", f"lung_involvement{EXPECTED}"
"""Names of the quantities of the pooled lung involvement, by labels and by posteriors."""

_MARGIN = 0.01


@dataclass(frozen=True)
class Interval:
    """Estimate of one quantity with its confidence interval.

    Attributes
    ----------
    name : str
        Name of the quantity: ``weight``, ``mean`` or ``sd`` of a component, ``threshold`` between two components,
        ``lung_involvement`` by labels, or ``lung_involvement_expected`` by posteriors.
    of : str
        Name of the component, or of two components with an arrow between them; ``pooled`` for the lung involvement.
    unit : str
        ``HU``, ``%``, or empty.
    estimate : float
        Value of the fit of all scans.
    low, high : float
        Bounds of the interval: quantiles of the refits.
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
        """True if the estimate is outside its interval, or nearer to a bound than 1 % of the interval's width."""
        margin = _MARGIN * (self.high - self.low)
        return not self.low + margin < self.estimate < self.high - margin


@dataclass(frozen=True)
class Bootstrap:
    """Result of a bootstrap over scans.

    Attributes
    ----------
    fit : {"paper", "converged", "anchored"}
        Name of the fit that was repeated.
    scans, refits : int
        Number of scans, and number of cohorts drawn from them.
    level : float
        Percent of refits within an interval.
    intervals : list of Interval
        Intervals of parameters, then of thresholds, then of the lung involvement, by labels and by posteriors, if
        there are five components.
    model : TissueModel
        Fit of all scans.
    models : tuple of TissueModel
        Fits of the drawn cohorts.
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
        """Sentences about intervals that are not reliable."""
        notes = []
        if self.scans < LEAST_SCANS:
            notes.append(
                f"{self.scans} scans are too few: {distinct_draws(self.scans):,} different cohorts can be drawn from "
                f"them, and intervals tend to be too narrow; use {LEAST_SCANS} scans or more"
            )
        ends = [f"{interval.name} of {interval.of}" for interval in self.intervals if interval.is_at_end]
        if ends:
            notes.append(
                f"{', '.join(ends)}: the estimate is at a bound of its interval, so the interval does not show its "
                "uncertainty in that direction"
            )
        return notes


def check_refits(refits: int, level: float) -> None:
    """Raise a `UsageError` if a bootstrap cannot have this number of refits or this level of intervals."""
    if refits < 2 or not 0 < level < 100:
        raise UsageError(
            f"{refits} refits at {level:g} % are not possible: give 2 or more refits, and a level between 0 and 100 %"
        )


def distinct_draws(scans: int) -> int:
    """Return the number of different cohorts that can be drawn with replacement from this many scans."""
    return comb(2 * scans - 1, scans)


def bootstrap(
    counts: Mapping[str, Counts],
    parameters: FitParameters,
    *,
    refits: int = 200,
    level: float = 95.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Bootstrap:
    """Return confidence intervals from fits of cohorts that are drawn from the scans with replacement.

    Parameters
    ----------
    counts : mapping of str to ndarray of uint64, shape (65536,)
        Histograms by case, from -32768 HU on.
    parameters : FitParameters
        Settings; ``fit`` is the fit to repeat. A refit of ``converged`` starts at the fit of all scans, a refit of
        ``anchored`` also at the prior. A refit of ``paper`` starts with k-means, as its result depends on the start.
    refits : int
        Number of cohorts to draw.
    level : float
        Percent of refits within an interval.
    seed : int
        Seed of the draws.
    progress : callable, optional
        Called as ``progress(done, total)`` after each refit.

    Raises
    ------
    UsageError
        If there are fewer than two scans, or a number is out of range.
    """
    if len(counts) < 2:
        raise UsageError(f"a bootstrap over scans needs two scans or more, got {len(counts)}: add scans first")
    check_refits(refits, level)
    pooled = add_counts(counts)
    present = np.flatnonzero(pooled)
    hu, histograms = HU[present], np.stack([histogram[present].astype(np.float64) for histogram in counts.values()])
    fit_of_all = fit_counts(pooled, parameters)[parameters.fit]
    random = np.random.default_rng(seed)
    models, rows = [], []
    for done in range(1, refits + 1):
        drawn = random.multinomial(len(histograms), np.full(len(histograms), 1 / len(histograms))) @ histograms
        model = refit(hu, drawn, fit_of_all, parameters)
        models.append(model)
        rows.append([value for _, _, _, value in _estimates(model, hu, drawn)])
        if progress is not None:
            progress(done, refits)
    tail = (100 - level) / 2
    low, high = np.percentile(rows, [tail, 100 - tail], axis=0)
    error = np.std(rows, axis=0, ddof=1)
    intervals = [
        Interval(name, of, unit, value, float(low[i]), float(high[i]), float(error[i]))
        for i, (name, of, unit, value) in enumerate(_estimates(fit_of_all, hu, histograms.sum(axis=0)))
    ]
    return Bootstrap(parameters.fit, len(histograms), refits, level, intervals, fit_of_all, tuple(models))


def refit(
    hu: npt.NDArray[np.int64], drawn: npt.NDArray[np.float64], fit_of_all: TissueModel, parameters: FitParameters
) -> TissueModel:
    """Return the fit of a cohort that was drawn from the scans of another cohort.

    Parameters
    ----------
    hu, drawn : ndarray, shape (n,)
        Distinct HU, and the number of voxels of each in the drawn cohort.
    fit_of_all : TissueModel
        Fit of the other cohort, the start of the refits ``converged`` and ``anchored``.
    parameters : FitParameters
        Settings; ``fit`` is the fit to repeat.
    """
    if parameters.fit == PAPER:
        return fit_paper(hu, drawn, clip=parameters.clip, **parameters.of_em())
    limits: dict[str, Any] = {"clip": parameters.clip, "reg_covar": parameters.reg_covar}
    if parameters.fit == ANCHORED:
        prior, strength = prior_of(parameters), parameters.prior_strength
        return fit_anchored(hu, drawn, [fit_of_all], prior=prior, strength=strength, **limits)
    return fit_converged(hu, drawn, [fit_of_all], afresh=False, **limits)


def _estimates(
    model: TissueModel, hu: npt.NDArray[np.int64], drawn: npt.NDArray[np.float64]
) -> list[tuple[str, str, str, float]]:
    """Return name, component, unit and value of each quantity that intervals are computed for."""
    keys = component_keys(model.n_components)
    out = [("weight", key, "", value) for key, value in zip(keys, model.weights, strict=True)]
    out += [("mean", key, "HU", value) for key, value in zip(keys, model.means, strict=True)]
    out += [("sd", key, "HU", value**0.5) for key, value in zip(keys, model.variances, strict=True)]
    pairs = zip(keys[:-1], keys[1:], model.map_thresholds(), strict=True)
    out += [("threshold", f"{lower} → {upper}", "HU", value) for lower, upper, value in pairs]
    if model.n_components == len(TISSUES):
        counts = np.zeros(N_HU, np.uint64)
        counts[hu - FIRST_HU] = drawn.astype(np.uint64)
        out.append((INVOLVEMENT, "pooled", "%", involvement(model, counts)))
        shares = expected_shares(drawn, model.predict_proba(hu))
        out.append((EXPECTED_INVOLVEMENT, "pooled", "%", float(shares["lung_involvement"])))
    return out


def rows_of(result: Bootstrap) -> list[dict[str, Any]]:
    """Return the intervals of a bootstrap as rows of a table."""
    return list(map(row_of, result.intervals))


def row_of(interval: Interval) -> dict[str, Any]:
    """Return an interval as a row of a table."""
    return {
        "quantity": interval.name, "of": interval.of, "unit": interval.unit, "estimate": interval.estimate,
        "low": interval.low, "high": interval.high, "standard_error": interval.error,
        "estimate_at_end": int(interval.is_at_end),
    }  # fmt: skip
