"""Conjugate prior of a mixture in any number of dimensions, whose mode is a given mixture.

The weights have a Dirichlet prior; mean and covariance of each component have a normal-inverse-Wishart prior (Gauvain
and Lee 1994; Fraley and Raftery 2007). The prior acts like pseudo-samples, which are imaginary samples whose components
are known. Pseudo-samples of the same total weight hold the weights together, and mean and covariance of each component.
To maximize the posterior, EM adds the statistics of the pseudo-samples to those of the samples before each M-step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lungmix.mixture.parameters import State, factors_of
from lungmix.mixture.sufficient_statistics import Statistics, combine, expected, m_step


@dataclass(frozen=True, eq=False)
class Prior:
    """Prior of a mixture of k components in d dimensions.

    Attributes
    ----------
    state : State
        Mode of the prior.
    strength : float
        Total weight of the pseudo-samples divided by that of the samples, 0 or more.
    """

    state: State
    strength: float

    def m_step(self, statistics: Statistics, index: int, reg_covar: float, covariance_type: str) -> State:
        """Return the parameters that maximize the posterior for statistics of samples.

        Parameters are those of `lungmix.mixture.sufficient_statistics.m_step`, which has no prior.
        """
        if self.strength == 0:
            return m_step(statistics, index, reg_covar, covariance_type)
        samples, total = statistics.only([index]), self.strength * statistics.weight
        k = len(self.state.weights)
        centre = expected([replace(self.state, weights=np.ones(k))], reg_covar, covariance_type)
        state = m_step(combine(samples, centre.scaled(total)), 0, reg_covar, covariance_type)
        counts = samples.counts[0] + total * self.state.weights
        return replace(state, weights=counts / counts.sum())

    def log_density(self, state: State, covariance_type: str) -> float:
        """Return the log-density of the prior at a mixture without its constant, divided by the weight of the prior."""
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
        with np.errstate(divide="ignore"):
            log_weights = np.log(state.weights)
        return float((self.state.weights * log_weights + offsets - log_weights - squares / 2).sum())

    def log_posterior(self, log_likelihood: float, state: State, covariance_type: str) -> float:
        """Return the log-posterior without its constant, divided by the weight of samples and pseudo-samples.

        Parameters
        ----------
        log_likelihood : float
            Mean log-likelihood per unit of sample weight.
        state : State
            Parameters of the mixture that has this likelihood.
        covariance_type : {"full", "tied", "diag", "spherical"}
            Form of the covariances.
        """
        return (log_likelihood + self.strength * self.log_density(state, covariance_type)) / (1 + self.strength)
