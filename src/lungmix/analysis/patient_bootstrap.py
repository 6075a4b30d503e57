"""Confidence intervals by a bootstrap over patients, because several scans of one patient are not independent."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from lungmix.errors import UsageError

Floats = npt.NDArray[np.float64]
WithError = Callable[[Floats], tuple[Floats, Floats]]
"""Function of weights, shape (draws, patients), that returns a coefficient and its standard error per draw."""
Statistic = Callable[[Floats], Floats]
"""Function of weights, shape (draws, patients), that returns one value per draw; NaN where it is undefined."""

_MAX_UNDEFINED = 0.05
"""Largest fraction of draws for which a statistic may be undefined in an interval."""
_ROUNDING = 1e-9
"""Error, and distance from 1, up to which a coefficient is perfect."""
_BATCH = 2_000_000
"""Largest number of weights that are in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """Value with its confidence interval by a bootstrap over patients.

    Attributes
    ----------
    value : float
        Value for all scans; NaN if it is undefined.
    low, high : float
        Bounds of the interval; NaN if there is none.
    error : float
        Standard deviation over the draws; NaN if there is no interval.
    """

    value: float
    low: float
    high: float
    error: float


def check_draws(draws: int, level: float) -> None:
    """Raise a `UsageError` if a bootstrap cannot have this number of draws or this level of intervals."""
    if draws < 100 or not 0 < level < 100:
        raise UsageError(
            f"{draws} draws of patients at {level:g} % are not possible: give 100 or more draws, and a level between "
            "0 and 100 %"
        )


def estimate(statistic: Statistic, patients: int, *, draws: int = 2000, level: float = 95.0, seed: int = 0) -> Estimate:
    """Return a statistic with its confidence interval: BCa, or percentiles if BCa is undefined.

    BCa is the bias-corrected and accelerated bootstrap of Efron (1987), as in `scipy.stats.bootstrap`. It is undefined
    if the statistic is undefined for a draw or without one of the patients. Then percentiles are used of the draws that
    define the statistic, if these are 95 % or more. There is no interval if all draws give one value, as for perfect
    agreement, or for fewer than three patients.

    Parameters
    ----------
    statistic : callable
        Function of how often each patient was drawn, shape (draws, patients), that returns a value per draw.
    patients : int
        Number of patients.
    draws : int
        Number of cohorts that are drawn from the patients, with replacement.
    level : float
        Level of the interval, percent.
    seed : int
        Seed of the draws.
    """

    def of_indices(drawn: npt.NDArray[Any], axis: int = -1) -> Floats:
        flat = np.moveaxis(np.asarray(drawn, np.int64), axis, -1)
        rows = flat.reshape(-1, flat.shape[-1])
        offsets = patients * np.arange(len(rows))[:, None]
        weights = np.bincount((rows + offsets).ravel(), minlength=len(rows) * patients).reshape(len(rows), patients)
        return statistic(weights.astype(np.float64)).reshape(flat.shape[:-1])

    nan = float("nan")
    value = float(statistic(np.ones((1, patients)))[0])
    if patients < 3 or np.isnan(value):
        return Estimate(value, nan, nan, nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        result = stats.bootstrap(
            (np.arange(patients),), of_indices, n_resamples=draws, vectorized=True, axis=-1, method="BCa",
            confidence_level=level / 100, batch=max(_BATCH // patients, 1), random_state=np.random.default_rng(seed),
        )  # fmt: skip
    drawn = result.bootstrap_distribution
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < (1 - _MAX_UNDEFINED) * draws or np.ptp(drawn) <= _ROUNDING:
        return Estimate(value, nan, nan, nan)
    low, high = result.confidence_interval
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = np.percentile(drawn, [50 - level / 2, 50 + level / 2])
    return Estimate(value, float(low), float(high), float(np.std(drawn, ddof=1)))


def estimate_coefficient(
    statistic: WithError, patients: int, *, draws: int = 2000, level: float = 95.0, seed: int = 0
) -> Estimate:
    """Return a coefficient from -1 to 1 with its confidence interval by the studentized bootstrap of Fisher's z.

    For small cohorts, this interval contains the true value more often than BCa, because it takes the error of each
    draw into account. If the coefficient or its error is undefined for more than 5 % of the draws, as for nearly
    perfect agreement, the interval is that of `estimate`.

    Parameters
    ----------
    statistic : callable
        Function of how often each patient was drawn, shape (draws, patients), that returns the coefficient and its
        standard error per draw.
    patients, draws, level, seed
        See `estimate`.
    """
    value, error = (float(array[0]) for array in statistic(np.ones((1, patients))))
    if patients >= 3 and abs(value) < 1 and error > 0:
        random = np.random.default_rng(seed)
        parts = []
        for start in range(0, draws, max(_BATCH // patients, 1)):
            size = min(max(_BATCH // patients, 1), draws - start)
            parts.append(statistic(random.multinomial(patients, np.full(patients, 1 / patients), size).astype(float)))
        values, errors = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        usable = (np.abs(values) < 1 - _ROUNDING) & (errors > _ROUNDING)
        if usable.sum() >= (1 - _MAX_UNDEFINED) * draws:
            z = np.arctanh(values[usable])
            # The standard error of Fisher's z is that of the coefficient divided by 1 less its square.
            scaled = (z - np.arctanh(value)) / (errors[usable] / (1 - values[usable] ** 2))
            high, low = np.percentile(scaled, [50 - level / 2, 50 + level / 2])
            ends = np.tanh(np.arctanh(value) - np.array([low, high]) * error / (1 - value**2))
            return Estimate(value, float(ends[0]), float(ends[1]), float(np.std(values[usable], ddof=1)))
    return estimate(lambda weights: statistic(weights)[0], patients, draws=draws, level=level, seed=seed)
