"""Counts per HU as intervals of the real line: rounding and the pile of clipped values, exactly.

A voxel of the integer value h stands for a density anywhere in ``(h - 1/2, h + 1/2]``. After clipping, the lowest value
stands for everything below its upper edge. A mixture therefore gives each interval a probability, and the likelihood
of counts is multinomial. It is bounded: no component gains by collapsing on one value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, logsumexp

from lungmix.errors import ModelError

Floats = npt.NDArray[np.float64]

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True, eq=False)
class Bins:
    """Disjoint intervals with the number of voxels in each.

    Attributes
    ----------
    lower, upper : ndarray of float64, shape (n,)
        Edges in HU, ascending; the first lower edge is minus infinity where values are clipped.
    counts : ndarray of float64, shape (n,)
        Voxels, positive.
    """

    lower: Floats
    upper: Floats
    counts: Floats

    @property
    def total(self) -> float:
        """All voxels."""
        return float(self.counts.sum())

    @property
    def pile(self) -> float:
        """Share of the voxels at or below the clip; 0 where nothing is clipped."""
        return float(self.counts[np.isneginf(self.lower)].sum() / self.total)


def bins_of(values: npt.NDArray[Any], counts: npt.NDArray[Any], clip: int | None = None) -> Bins:
    """Intervals of integer values.

    Parameters
    ----------
    values : ndarray of int, shape (n,)
        HU, distinct.
    counts : ndarray, shape (n,)
        Voxels of each; values of none are left out, for they tell a likelihood nothing.
    clip : int, optional
        HU; values at or below are one pile, which reaches to minus infinity. By default every value is taken as it
        is.

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
    present = voxels > 0
    if not present.any():
        raise ModelError("there are no voxels to fit: no case has a lung")
    lower, upper = hu - 0.5, hu + 0.5
    if clip is not None:
        lower[0] = -np.inf
    return Bins(lower[present], upper[present], voxels[present])


@dataclass(frozen=True, eq=False)
class Gaussians:
    """A mixture of k Gaussians in one dimension, in the coordinates of the fit.

    Attributes
    ----------
    log_weights : ndarray, shape (k,)
        Normalised.
    means : ndarray, shape (k,)
        HU.
    log_sds : ndarray, shape (k,)
        Log of the standard deviations in HU.
    """

    log_weights: Floats
    means: Floats
    log_sds: Floats

    def moved(self, step: Floats) -> Gaussians:
        """After a step of shape (3, k) in log weight, mean and log sd; the weights add up to 1 again."""
        weights = self.log_weights + step[0]
        return Gaussians(weights - logsumexp(weights), self.means + step[1], self.log_sds + step[2])


@dataclass(frozen=True, eq=False)
class Masses:
    """Probabilities of intervals under each Gaussian, with what their derivatives are made of.

    Attributes
    ----------
    log : ndarray, shape (n, k)
        Log of the probability of interval n under Gaussian k; weights are not in it.
    z_lower, z_upper : ndarray, shape (n, k)
        Standardised edges.
    """

    log: Floats
    z_lower: Floats
    z_upper: Floats


def masses(bins: Bins, mixture: Gaussians) -> Masses:
    """Probabilities of intervals; in logarithms, so that the farthest tail does not underflow."""
    sd = np.exp(mixture.log_sds)
    a = (bins.lower[:, None] - mixture.means) / sd
    b = (bins.upper[:, None] - mixture.means) / sd
    # On the right of the mean the complement is what carries digits: mirror to the left tail.
    right = a + b > 0
    high = log_ndtr(np.where(right, -a, b))
    low = log_ndtr(np.where(right, -b, a))
    with np.errstate(divide="ignore", under="ignore"):
        return Masses(high + np.log(-np.expm1(np.minimum(low - high, 0.0))), a, b)


def log_likelihood(bins: Bins, mixture: Gaussians) -> float:
    """Mean log-probability per voxel."""
    return _mean(bins, logsumexp(mixture.log_weights + masses(bins, mixture).log, axis=1))


def expansion(bins: Bins, mixture: Gaussians) -> tuple[float, Floats, Floats]:
    """Mean log-likelihood per voxel with its first and second derivatives.

    Parameters
    ----------
    bins : Bins
        Intervals, n of them.
    mixture : Gaussians
        Where to expand, k components.

    Returns
    -------
    value : float
        Mean log-probability per voxel.
    gradient : ndarray, shape (3 k,)
        By log weights (before they are normalised), means, log standard deviations.
    hessian : ndarray, shape (3 k, 3 k)
        Symmetric; the direction that adds one number to all log weights is in its kernel.
    """
    found = masses(bins, mixture)
    joint = mixture.log_weights + found.log
    each = logsumexp(joint, axis=1)
    share = bins.counts / bins.total
    r = np.exp(joint - each[:, None])
    sd = np.exp(mixture.log_sds)
    (a, fa), (b, fb) = _hazards(found.z_lower, found.log), _hazards(found.z_upper, found.log)
    # Derivatives of an interval's probability, divided by it. Powers stand before the normal density, so that the
    # infinite edge of the pile contributes nothing.
    m = (fa - fb) / sd
    s = a * fa - b * fb
    mm = s / sd**2
    ms = (a * a * fa - b * b * fb) / sd - m
    ss = (a**3 - a) * fa - (b**3 - b) * fb
    k = len(sd)
    score = np.concatenate([r, r * m, r * s], axis=1)
    weighted = share[:, None] * r
    weight, now = np.exp(mixture.log_weights), weighted.sum(axis=0)
    gradient = np.concatenate([now - weight, (weighted * m).sum(axis=0), (weighted * s).sum(axis=0)])
    hessian = -(score * share[:, None]).T @ score
    i = np.arange(k)
    for row, column, block in (
        (0, 0, now - weight), (0, 1, gradient[k : 2 * k]), (0, 2, gradient[2 * k :]),
        (1, 1, (weighted * mm).sum(axis=0)), (1, 2, (weighted * ms).sum(axis=0)), (2, 2, (weighted * ss).sum(axis=0)),
    ):  # fmt: skip
        hessian[row * k + i, column * k + i] += block
        if row != column:
            hessian[column * k + i, row * k + i] += block
    hessian[:k, :k] += np.outer(weight, weight)
    return _mean(bins, each), gradient, hessian


def _hazards(z: Floats, log_mass: Floats) -> tuple[Floats, Floats]:
    """An edge, and the normal density there over the probability of its interval; both 0 where it is infinite."""
    finite = np.isfinite(z)
    edge = np.where(finite, z, 0.0)
    with np.errstate(under="ignore"):
        return edge, np.exp(np.where(finite, -0.5 * edge * edge - _HALF_LOG_2PI - log_mass, -np.inf))


def _mean(bins: Bins, each: Floats) -> float:
    # numpy adds in pairs, so that the error does not grow with the number of values.
    return float((bins.counts * each).sum() / bins.total)
