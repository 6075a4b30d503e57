"""Sufficient statistics of samples for a mixture, their sums, and the M-step.

Second moments are centred at the mean of each component in the samples that the statistics describe, and are added by
the formula of Chan, Golub and LeVeque (1983). So no precision is lost if samples are far from 0, or if starting values
are far from the samples. Statistics are added pairwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lungmix.mixture.parameters import Floats, State

_TINY = 10 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of samples for s sets of parameters (states) of a mixture of k components in d dimensions.

    Attributes
    ----------
    weight : float
        Sum of the sample weights.
    log_likelihood : ndarray, shape (s,)
        Sum over the samples of weight times log-likelihood.
    counts : ndarray, shape (s, k)
        Sum over the samples of weight times responsibility, which is the probability of a component for a sample.
    means : ndarray, shape (s, k, d)
        Mean of the samples, weighted like ``counts``; arbitrary but finite if ``counts`` is 0.
    scatter : ndarray, shape (s, k, d, d) or (s, k, d)
        Sum of the products of all pairs of features, or of their squares only, weighted like ``counts``; ``means`` are
        subtracted first.
    """

    weight: float
    log_likelihood: Floats
    counts: Floats
    means: Floats
    scatter: Floats

    def scaled(self, factor: float) -> Statistics:
        """Return the statistics with all sample weights multiplied by `factor`."""
        return Statistics(
            self.weight * factor,
            self.log_likelihood * factor,
            self.counts * factor,
            self.means,
            self.scatter * factor,
        )

    def only(self, states: Sequence[int]) -> Statistics:
        """Return the statistics of some of the states."""
        pick = list(states)
        return replace(
            self,
            log_likelihood=self.log_likelihood[pick],
            counts=self.counts[pick],
            means=self.means[pick],
            scatter=self.scatter[pick],
        )


def combine(a: Statistics, b: Statistics) -> Statistics:
    """Return the statistics of the union of two sets of samples."""
    counts = a.counts + b.counts
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(b.counts > 0, b.counts / counts, 0.0)[..., None]
    gap = b.means - a.means
    # The mean of an empty set is arbitrary: use that of the other set.
    means = np.where((a.counts > 0)[..., None], a.means + gap * share, b.means)
    between = gap * np.sqrt(a.counts[..., None] * share)
    if a.scatter.ndim == 4:
        scatter = a.scatter + b.scatter + between[..., :, None] * between[..., None, :]
    else:
        scatter = a.scatter + b.scatter + between**2
    return Statistics(a.weight + b.weight, a.log_likelihood + b.log_likelihood, counts, means, scatter)


def combine_all(parts: Sequence[Statistics]) -> Statistics:
    """Return the sum of the statistics of all parts, added pairwise in an order that depends only on their number."""
    level = list(parts)
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        level = [combine(a, b) for a, b in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]


def m_step(statistics: Statistics, index: int, reg_covar: float, covariance_type: str) -> State:
    """Return the parameters that maximize the likelihood of samples, given their statistics (M-step).

    Parameters
    ----------
    statistics : Statistics
        Statistics of all samples.
    index : int
        Index of the state in the statistics.
    reg_covar : float
        Number that is added to the diagonal of covariances.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.

    Notes
    -----
    As in scikit-learn, a component without samples has a weight near 0, mean 0 and covariance `reg_covar`.
    """
    counts, local, scatter = statistics.counts[index], statistics.means[index], statistics.scatter[index]
    # Scale the constant with the total weight if that is below 1; otherwise it is the constant of scikit-learn.
    padded = counts + _TINY * min(1.0, statistics.weight)
    kept = (counts / padded)[:, None]
    means = local * kept
    missing = 1.0 - kept
    d = local.shape[1]
    if covariance_type == "full":
        gone = local * missing
        covariances = scatter + counts[:, None, None] * gone[:, :, None] * gone[:, None, :]
        covariances /= padded[:, None, None]
        covariances[:, range(d), range(d)] += reg_covar
    elif covariance_type == "tied":
        lost = (counts[:, None] * missing * local).T @ local
        covariances = (scatter.sum(axis=0) + lost) / padded.sum()
        covariances[range(d), range(d)] += reg_covar
    else:
        covariances = scatter / padded[:, None] + local**2 * kept * missing + reg_covar
        if covariance_type == "spherical":
            covariances = covariances.mean(axis=1)
    return State(padded / padded.sum(), means, covariances)


def expected(states: Sequence[State], reg_covar: float, covariance_type: str) -> Statistics:
    """Return the statistics, of total weight 1, from which `m_step` computes these states."""
    counts, means = np.stack([s.weights for s in states]), np.stack([s.means for s in states])
    s, k, d = means.shape
    if covariance_type in ("full", "tied"):
        sigma = np.stack([np.broadcast_to(state.covariances, (k, d, d)) for state in states]) - reg_covar * np.eye(d)
        scatter = sigma * counts[..., None, None]
    else:
        sigma = np.stack([np.broadcast_to(state.covariances.reshape(k, -1), (k, d)) for state in states]) - reg_covar
        scatter = sigma * counts[..., None]
    return Statistics(1.0, np.zeros(s), counts, means, scatter)
