"""Posteriors of tissues voxel by voxel, with the normal distribution of scipy, and their sums over voxels."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm


def posteriors(hu, model):
    """Posterior of each component at each voxel: float64, last axis for the components."""
    parts = [
        np.log(weight) + norm.logpdf(hu.astype(np.float64), mean, np.sqrt(variance))
        for weight, mean, variance in zip(model.weights, model.means, model.variances, strict=True)
    ]
    joint = np.stack(parts, axis=-1)
    return np.exp(joint - logsumexp(joint, axis=-1, keepdims=True))


def expected_voxels(hu, mask, model):
    """Sum of the posteriors of each component over the voxels of a mask."""
    return posteriors(hu[mask > 0], model).sum(axis=0)
