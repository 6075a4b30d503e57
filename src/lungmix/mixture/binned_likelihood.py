"""Likelihood of a histogram of HU under a mixture, exact for values that are rounded to integers and clipped.

A voxel of the integer value h represents any HU in the interval ``(h - 1/2, h + 1/2]``. If values are clipped, the
lowest value represents all HU below its upper edge. A mixture gives each interval a probability, and the likelihood of
the histogram is multinomial. It is bounded: it does not grow without limit if a component collapses on a single value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp, ndtr

from lungmix.errors import ModelError

Floats = npt.NDArray[np.float64]

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)
_UNDERFLOW = 1e-280
_LARGEST_LOG = 700.0
_FAR = 1e9
_NOTHING = 1e-17
_TOO_SMALL = 1e-100


@dataclass(frozen=True, eq=False)
class Bins:
    """Disjoint intervals of HU, and the number of voxels in each.

    Attributes
    ----------
    lower, upper : ndarray of float64, shape (n,)
        Edges of the intervals in HU, ascending; the first lower edge is minus infinity if values are clipped.
    counts : ndarray of float64, shape (n,)
        Number of voxels in each interval, above 0.
    """

    lower: Floats
    upper: Floats
    counts: Floats

    @cached_property
    def edges(self) -> Floats:
        """Distinct edges of all intervals, ascending: shape (m,)."""
        return np.unique(np.concatenate([self.lower, self.upper]))

    @cached_property
    def edge_indices(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Index in `edges` of the lower edge of each interval, and of the upper edge of each."""
        return np.searchsorted(self.edges, self.lower), np.searchsorted(self.edges, self.upper)

    @cached_property
    def total(self) -> float:
        """Number of voxels."""
        return float(self.counts.sum())

    @property
    def clipped_fraction(self) -> float:
        """Fraction of the voxels in the interval of clipped values; 0 if values are not clipped."""
        return float(self.counts[np.isneginf(self.lower)].sum() / self.total)


def bins_of(values: npt.NDArray[Any], counts: npt.NDArray[Any], clip: int | None = None) -> Bins:
    """Return the intervals of integer values.

    Parameters
    ----------
    values : ndarray of int, shape (n,)
        Distinct HU.
    counts : ndarray, shape (n,)
        Number of voxels of each value. Values without voxels do not affect the likelihood and are dropped. So are
        values with less than 1e-17 of all voxels, such as the far tails of expected counts: no sum changes by them.
    clip : int, optional
        HU at which values are clipped: values at or below it form one interval from minus infinity. By default values
        are not clipped.

    Raises
    ------
    ModelError
        If there are no voxels, or counts are negative or not finite.
    """
    hu, voxels = np.asarray(values, np.float64), np.asarray(counts, np.float64)
    if not np.isfinite(voxels).all() or (voxels < 0).any():
        raise ModelError("counts hold negative, NaN or infinite numbers: they must be 0 or more")
    order = np.argsort(hu, kind="stable")
    hu, voxels = hu[order], voxels[order]
    if clip is not None:
        below = hu <= clip
        hu = np.concatenate([[float(clip)], hu[~below]])
        voxels = np.concatenate([[voxels[below].sum()], voxels[~below]])
    present = voxels > _NOTHING * voxels.sum()
    if not present.any():
        raise ModelError("there are no voxels to fit: no case has lung voxels")
    lower, upper = hu - 0.5, hu + 0.5
    if clip is not None:
        lower[0] = -np.inf
    return Bins(lower[present], upper[present], voxels[present])


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Mixture of k Gaussians in one dimension, by the parameters in which fits are computed.

    Attributes
    ----------
    log_weights : ndarray, shape (k,)
        Log of the weights, which add up to 1.
    means : ndarray, shape (k,)
        Means in HU.
    log_sds : ndarray, shape (k,)
        Log of the standard deviations in HU.
    """

    log_weights: Floats
    means: Floats
    log_sds: Floats

    def moved(self, step: Floats) -> Gaussians:
        """Return the mixture after a step of shape (3, k): changes of log weights, means and log standard deviations.

        The weights are divided by their sum after the step.
        """
        weights = self.log_weights + step[0]
        return Gaussians(weights - logsumexp(weights), self.means + step[1], self.log_sds + step[2])


@dataclass(frozen=True, eq=False)
class IntervalProbabilities:
    """Probabilities of n intervals under each of k Gaussians, with the terms of their derivatives.

    Attributes
    ----------
    log : ndarray, shape (k, n)
        Log of the probability of each interval under each Gaussian, without the weights of the Gaussians.
    lower, upper : ndarray, shape (k, n)
        Edges minus mean, divided by the standard deviation; 0 where an edge is infinite.
    at_lower, at_upper : ndarray, shape (k, n)
        Standard normal density at the edges, divided by the probability; 0 where an edge is infinite.
    """

    log: Floats
    lower: Floats
    upper: Floats
    at_lower: Floats
    at_upper: Floats


def interval_probabilities(bins: Bins, mixture: Gaussians) -> IntervalProbabilities:
    """Return the probabilities of intervals under each Gaussian, accurate even in the far tails."""
    z = (bins.edges - mixture.means[:, None]) / np.exp(mixture.log_sds)[:, None]
    # Compute the tail from each edge away from the mean: it is small, and its relative precision is high.
    with np.errstate(under="ignore"):
        tail, finite = ndtr(-np.abs(z)), np.isfinite(z)
        z = np.where(finite, z, np.copysign(_FAR, z))
        density = np.exp(-0.5 * z * z - _HALF_LOG_2PI)
    first, last = bins.edge_indices
    a, b, from_a, from_b = z[:, first], z[:, last], tail[:, first], tail[:, last]
    mass = np.where(a >= 0, from_a - from_b, np.where(b <= 0, from_b - from_a, 1.0 - from_a - from_b))
    low = mass < _UNDERFLOW
    if not low.any():
        log, at_a, at_b = np.log(mass), density[:, first] / mass, density[:, last] / mass
    else:
        mass[low] = 1.0
        log, at_a, at_b = np.log(mass), density[:, first] / mass, density[:, last] / mass
        log[low] = _log_mass(a[low], b[low])
        for at, edge in ((at_a, a), (at_b, b)):
            at[low] = np.exp(np.minimum(-0.5 * edge[low] ** 2 - _HALF_LOG_2PI - log[low], _LARGEST_LOG))
    return IntervalProbabilities(log, _near(a), _near(b), at_a, at_b)


def log_likelihood(bins: Bins, mixture: Gaussians) -> float:
    """Return the mean log-probability per voxel of a histogram under a mixture."""
    return _mean(bins, _mix(mixture.log_weights[:, None] + interval_probabilities(bins, mixture).log)[0])


def value_gradient_hessian(bins: Bins, mixture: Gaussians) -> tuple[float, Floats, Floats]:
    """Return the mean log-likelihood per voxel with its first and second derivatives.

    Parameters
    ----------
    bins : Bins
        The n intervals.
    mixture : Gaussians
        Mixture of k components at which the derivatives are taken.

    Returns
    -------
    value : float
        Mean log-probability per voxel.
    gradient : ndarray, shape (3 k,)
        Derivatives with respect to log weights (before they are normalised), means and log standard deviations.
    hessian : ndarray, shape (3 k, 3 k)
        Second derivatives. They are 0 in the direction that adds the same number to all log weights, because weights
        are normalised.
    """
    intervals = interval_probabilities(bins, mixture)
    each, r = _mix(mixture.log_weights[:, None] + intervals.log)
    share = bins.counts / bins.total
    sd = np.exp(mixture.log_sds)[:, None]
    a, b, fa, fb = intervals.lower, intervals.upper, intervals.at_lower, intervals.at_upper
    # Derivatives of the probability of each interval, divided by the probability. Powers of the edges are multiplied by
    # the normal density, so that the infinite edge of clipped values contributes nothing.
    m = (fa - fb) / sd
    s = a * fa - b * fb
    mm = s / sd**2
    ms = (a * a * fa - b * b * fb) / sd - m
    ss = (a * a * a - a) * fa - (b * b * b - b) * fb
    k = len(sd)
    score = np.concatenate([r, r * m, r * s], axis=0)
    weighted = share * r
    weight, weight_sum = np.exp(mixture.log_weights), weighted.sum(axis=1)
    gradient = np.concatenate([weight_sum - weight, (weighted * m).sum(axis=1), (weighted * s).sum(axis=1)])
    hessian = -(score * share) @ score.T
    i = np.arange(k)
    for row, column, block in (
        (0, 0, weight_sum - weight), (0, 1, gradient[k : 2 * k]), (0, 2, gradient[2 * k :]),
        (1, 1, (weighted * mm).sum(axis=1)), (1, 2, (weighted * ms).sum(axis=1)), (2, 2, (weighted * ss).sum(axis=1)),
    ):  # fmt: skip
        hessian[row * k + i, column * k + i] += block
        if row != column:
            hessian[column * k + i, row * k + i] += block
    hessian[:k, :k] += np.outer(weight, weight)
    return _mean(bins, each), gradient, hessian


def _log_mass(a: Floats, b: Floats) -> Floats:
    """Return the log-probability of intervals from a to b whose probability underflows."""
    right = a + b > 0
    high, low = log_ndtr(np.where(right, -a, b)), log_ndtr(np.where(right, -b, a))
    with np.errstate(divide="ignore", under="ignore"):
        return np.asarray(high + np.log(-np.expm1(np.minimum(low - high, 0.0))))


def _mix(joint: Floats) -> tuple[Floats, Floats]:
    """Return log-probabilities and responsibilities of intervals from the log of weight times probability."""
    top = joint.max(axis=0)
    with np.errstate(under="ignore"):
        parts = np.exp(joint - top)
    # Set negligible parts to 0: their products would be subnormal numbers, which are slow.
    parts[parts < _TOO_SMALL] = 0.0
    total = parts.sum(axis=0)
    return top + np.log(total), parts / total


def _near(edge: Floats) -> Floats:
    return np.where(np.abs(edge) < _FAR, edge, 0.0)


def _mean(bins: Bins, each: Floats) -> float:
    # numpy sums pairwise, so the error does not grow with the number of values.
    return float((bins.counts * each).sum() / bins.total)
