"""Conjugate prior of a mixture in any number of dimensions, as pseudo-samples whose components are known.

The weights have a Dirichlet prior, mean and covariance of each component a normal-inverse-Wishart prior (Gauvain and
Lee 1994; Fraley and Raftery 2007), with hyperparameters whose mode is a given mixture. EM for the maximum of the
posterior then adds the statistics of the pseudo-samples to those of the samples before each M-step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungmix.mixture.parameters import State, factors_of
from lungmix.mixture.sufficient_statistics import Statistics, combine, expected


@dataclass(frozen=True, eq=False)
class Prior:
    """Prior of a mixture of k components in d dimensions.

    Attributes
    ----------
    state : State
        Mode of the prior. Component j has the share of its weight of the pseudo-samples.
    strength : float
        Weight of all pseudo-samples divided by the weight of all samples, 0 or more.
    """

    state: State
    strength: float

    def add_to(self, statistics: Statistics, reg_covar: float, covariance_type: str) -> Statistics:
        """Return statistics of samples with those of the pseudo-samples added, for each of the states."""
        if self.strength == 0:
            return statistics
        pseudo = expected([self.state] * len(statistics.counts), reg_covar, covariance_type)
        return combine(statistics, pseudo.scaled(self.strength * statistics.weight))

    def log_density(self, state: State, covariance_type: str) -> float:
        """Return the mean log-density of a pseudo-sample and its component under a mixture.

        Up to a constant, and divided by the number of pseudo-samples, it is the log-density of the prior.
        """
        factors, offsets = factors_of(state, covariance_type)
        k, d = state.means.shape
        gap = self.state.means - state.means
        covariances = self.state.covariances
        if factors.ndim == 3:
            spread = np.broadcast_to(covariances, (k, d, d))
            squares = np.einsum("kij,kil,klj->k", factors, spread, factors)
            squares = squares + (np.einsum("ki,kij->kj", gap, factors) ** 2).sum(axis=1)
        else:
            spread = np.broadcast_to(covariances.reshape(k, -1), (k, d))
            squares = ((gap**2 + spread) * factors**2).sum(axis=1)
        return float((self.state.weights * (offsets - squares / 2)).sum())

    def log_posterior(self, log_likelihood: float, state: State, covariance_type: str) -> float:
        """Return the mean log-posterior per unit of weight of samples and pseudo-samples, without its constant.

        Parameters
        ----------
        log_likelihood : float
            Mean log-likelihood per unit of sample weight.
        state : State
            Mixture that has this likelihood.
        covariance_type : {"full", "tied", "diag", "spherical"}
            Form of the covariances.
        """
        return (log_likelihood + self.strength * self.log_density(state, covariance_type)) / (1 + self.strength)
