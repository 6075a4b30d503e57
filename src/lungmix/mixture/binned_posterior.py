"""Posterior of a mixture given a histogram, under a conjugate prior whose mode is a given mixture.

The weights have a Dirichlet prior; mean and variance of each component have a normal-inverse-gamma prior (Gauvain and
Lee 1994; Fraley and Raftery 2007). Up to a constant, the log-density of the prior is the log-likelihood of
pseudo-voxels, which are imaginary voxels whose components are known. The weights together, and mean and variance of
each component, are held by the same number of pseudo-voxels. So a component with few voxels is held as firmly as the
others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.mixture.binned_likelihood import Bins, Gaussians, log_likelihood, value_gradient_hessian

Floats = npt.NDArray[np.float64]

_HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True, eq=False)
class PseudoVoxels:
    """Conjugate prior of a mixture in one dimension.

    Attributes
    ----------
    mixture : Gaussians
        Mode of the prior: k components.
    strength : float
        Number of pseudo-voxels divided by the number of voxels, 0 or more. So many pseudo-voxels hold the weights
        together, and as many hold mean and variance of each component.
    """

    mixture: Gaussians
    strength: float

    def log_density(self, mixture: Gaussians) -> float:
        """Return the log-density of the prior without its constant, divided by the number of pseudo-voxels.

        Parameters
        ----------
        mixture : Gaussians
            Mixture of as many components as the prior, in the same order.
        """
        gap, ratio = self._moments(mixture)
        each = np.exp(self.mixture.log_weights) * mixture.log_weights - mixture.log_sds - (gap**2 + ratio) / 2
        return float(each.sum() - len(each) * _HALF_LOG_2PI)

    def derivatives(self, mixture: Gaussians) -> tuple[float, Floats, Floats]:
        """Return `log_density`, its gradient (3 k,) and its Hessian (3 k, 3 k), as in `value_gradient_hessian`."""
        gap, ratio = self._moments(mixture)
        sd, current = np.exp(mixture.log_sds), np.exp(mixture.log_weights)
        square = gap**2 + ratio
        k = len(sd)
        gradient = np.concatenate([np.exp(self.mixture.log_weights) - current, gap / sd, square - 1])
        hessian = np.zeros((3 * k, 3 * k))
        hessian[:k, :k] = np.outer(current, current) - np.diag(current)
        i = np.arange(k)
        hessian[k + i, k + i] = -1 / sd**2
        hessian[k + i, 2 * k + i] = hessian[2 * k + i, k + i] = -2 * gap / sd
        hessian[2 * k + i, 2 * k + i] = -2 * square
        return self.log_density(mixture), gradient, hessian

    def _moments(self, mixture: Gaussians) -> tuple[Floats, Floats]:
        """Return, for each component, the distance of the means in standard deviations, and the ratio of variances."""
        gap = (self.mixture.means - mixture.means) / np.exp(mixture.log_sds)
        ratio = np.exp(2 * (self.mixture.log_sds - mixture.log_sds))
        return gap, ratio


def log_posterior(bins: Bins, mixture: Gaussians, prior: PseudoVoxels | None) -> float:
    """Return the log-posterior without its constant, divided by the number of voxels plus ``strength`` times as many.

    Without a prior it is the mean log-likelihood per voxel.
    """
    value = log_likelihood(bins, mixture)
    return value if prior is None else (value + prior.strength * prior.log_density(mixture)) / (1 + prior.strength)


def posterior_derivatives(bins: Bins, mixture: Gaussians, prior: PseudoVoxels | None) -> tuple[float, Floats, Floats]:
    """Return `log_posterior`, its gradient (3 k,) and its Hessian (3 k, 3 k); see `value_gradient_hessian`."""
    value, gradient, hessian = value_gradient_hessian(bins, mixture)
    if prior is None:
        return value, gradient, hessian
    strength, (prior_value, prior_gradient, prior_hessian) = prior.strength, prior.derivatives(mixture)
    return (
        (value + strength * prior_value) / (1 + strength),
        (gradient + strength * prior_gradient) / (1 + strength),
        (hessian + strength * prior_hessian) / (1 + strength),
    )
