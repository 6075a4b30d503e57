"""EM of weighted samples, slow and obvious: all responsibilities at once, and moments in exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal


def covariance_of(covariances, covariance_type, component, d):
    """Return the covariance matrix of one component, for any covariance type."""
    if covariance_type == "full":
        return covariances[component]
    if covariance_type == "tied":
        return covariances
    if covariance_type == "diag":
        return np.diag(covariances[component])
    return np.eye(d) * covariances[component]


def statistics(x, w, weights, means, covariances, covariance_type):
    """Return log-likelihood, counts, means and scatter matrices of one E-step; means are computed before scatter."""
    k, d = means.shape
    logs = np.stack(
        [
            np.log(weights[c])
            + multivariate_normal(means[c], covariance_of(covariances, covariance_type, c, d)).logpdf(x).reshape(-1)
            for c in range(k)
        ],
        axis=1,
    )
    total = logsumexp(logs, axis=1)
    r = np.exp(logs - total[:, None]) * w[:, None]
    counts = r.sum(axis=0)
    local = r.T @ x / counts[:, None]
    scatter = np.stack([(r[:, c] * (x - local[c]).T) @ (x - local[c]) for c in range(k)])
    return float(w @ total), counts, local, scatter


def exact_moments(values, weights):
    """Return total weight, mean and variance of weighted numbers, computed in rational arithmetic."""
    pairs = [(Fraction(v), Fraction(w)) for v, w in zip(values, weights, strict=True)]
    total = sum(w for _, w in pairs)
    mean = sum(v * w for v, w in pairs) / total
    return total, mean, sum((v - mean) ** 2 * w for v, w in pairs) / total
