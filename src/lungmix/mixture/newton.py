"""Maximum of a likelihood or posterior by steps between those of EM and Newton, until the gradient is small.

To first order a step of EM is the gradient divided by the information of the complete data, in which each voxel's
component is known (Lange 1995). Where components overlap, the observed information is a small part of that, and EM
converges slowly. With one feature both are small matrices, computed in one pass over the histogram. Each step solves

    (observed information + damping * complete information) step = gradient

The damping decreases as steps succeed, from EM to Newton, and increases where the log-likelihood would decrease. A
prior adds pseudo-voxels whose components are known, so the same holds for the log-posterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lungmix.mixture.binned_likelihood import Bins, Gaussians
from lungmix.mixture.binned_posterior import PseudoVoxels, log_posterior, posterior_derivatives

Floats = npt.NDArray[np.float64]

_GRADIENT_TOL = 1e-9
"""Norm of the gradient, per voxel and in the units of `NewtonResult`, below which a maximum is reached."""

ROUNDING_VARIANCE = 1 / 12
"""Variance of rounding in HU²; a narrower Gaussian is indistinguishable from a single value."""

_MAX_STEP_NORM = 0.7
_MIN_DAMPING = 1e-12
_MAX_DAMPING = 1e8
_ROUND_OFF = 1e-14
_WINDOW = 10
_NO_GAIN = 1e-12
_TRIAL_STEPS = 40
_OTHER_STEPS = 240


@dataclass(frozen=True, eq=False)
class NewtonResult:
    """Result of the maximization.

    Attributes
    ----------
    mixture : Gaussians
        Mixture at the end.
    log_likelihoods : list of float
        Mean log-likelihood per voxel, at the start and after each step; never decreasing. With a prior, the value of
        `log_posterior`.
    gradient : float
        Norm of the gradient of the last of these, in units in which moving a component's mean by its standard
        deviation has the length of the square root of its weight.
    converged : bool
        True if `gradient` is below the tolerance, or below its square root without any gain in the last steps: with
        more components than the data can distinguish, the maximum is a ridge.
    """

    mixture: Gaussians
    log_likelihoods: list[float]
    gradient: float
    converged: bool


def maximize_likelihood(
    bins: Bins,
    start: Gaussians,
    *,
    max_iter: int = 1000,
    reg_covar: float = 1e-6,
    prior: PseudoVoxels | None = None,
) -> NewtonResult:
    """Maximize the likelihood of intervals from a start; with a prior, the posterior.

    Parameters
    ----------
    bins : Bins
        Histogram as intervals.
    start : Gaussians
        Mixture at the start.
    max_iter : int
        Largest number of steps.
    reg_covar : float
        Smallest variance of a component in HU², but at least 1/12, that of rounding.
    prior : PseudoVoxels, optional
        Prior of as many components as the start, in the same order.

    Returns
    -------
    NewtonResult
        Result, with a log-likelihood, or log-posterior, not below that of the start.
    """
    floor = 0.5 * np.log(max(reg_covar, ROUNDING_VARIANCE))
    mixture = Gaussians(start.log_weights, start.means, np.maximum(start.log_sds, floor))
    values: list[float] = []
    damping, length = 1.0, np.inf
    for _ in range(max_iter + 1):
        value, gradient, hessian = posterior_derivatives(bins, mixture, prior)
        values.append(value)
        free = _free(mixture, gradient, floor)
        scale = _complete_information(mixture)
        scaled_gradient = np.where(free, gradient / scale, 0.0)
        length = float(np.linalg.norm(scaled_gradient))
        if length < _GRADIENT_TOL or len(values) > max_iter:
            break
        curvature = np.where(np.outer(free, free), -hessian / np.outer(scale, scale), 0.0)
        result = _step(bins, mixture, value, (scaled_gradient, curvature, scale), damping, floor, prior)
        if result is None:
            break
        mixture, damping = result
        if _is_stationary(values):
            break
    converged = length < _GRADIENT_TOL or (_is_stationary(values) and length < _GRADIENT_TOL**0.5)
    return NewtonResult(mixture, values, length, converged)


def maximize_from(
    bins: Bins,
    starts: Sequence[Gaussians],
    *,
    max_iter: int = 1000,
    reg_covar: float = 1e-6,
    prior: PseudoVoxels | None = None,
) -> list[NewtonResult]:
    """Return the maximum reached from each start.

    The start that is best after a few steps may take `max_iter` steps; the others stop after 200 more, which is enough
    unless a maximum is a ridge.
    """
    few = min(max_iter, _TRIAL_STEPS)
    results = [maximize_likelihood(bins, start, max_iter=few, reg_covar=reg_covar, prior=prior) for start in starts]
    leader = first_best(results)
    for i, trial in enumerate(results):
        more = (max_iter if i == leader else min(max_iter, _OTHER_STEPS)) - few
        if more > 0 and not trial.converged and len(trial.log_likelihoods) > few:
            end = maximize_likelihood(bins, trial.mixture, max_iter=more, reg_covar=reg_covar, prior=prior)
            results[i] = replace(end, log_likelihoods=trial.log_likelihoods[:-1] + end.log_likelihoods)
    return results


def first_best(results: Sequence[NewtonResult]) -> int:
    """Return the index of the highest maximum; of equal ones, the first."""
    return max(range(len(results)), key=lambda i: (results[i].log_likelihoods[-1], -i))


def quantile_start(bins: Bins, n_components: int) -> Gaussians:
    """Return components at quantiles of the voxels, each with the mean and spread of its part."""
    centre = np.where(np.isfinite(bins.lower), (bins.lower + bins.upper) / 2, bins.upper - 0.5)
    rank = (np.cumsum(bins.counts) - bins.counts / 2) / bins.total
    means, sds = [], []
    total_sd = float(np.sqrt(np.average((centre - np.average(centre, weights=bins.counts)) ** 2, weights=bins.counts)))
    for k in range(n_components):
        # A soft window leaves no component empty if a single value has most of the voxels.
        window = bins.counts * np.exp(-0.5 * ((rank - (k + 0.5) / n_components) * 2 * n_components) ** 2)
        window = window + bins.counts * 1e-12
        mean = float(np.average(centre, weights=window))
        means.append(mean)
        sds.append(float(np.sqrt(np.average((centre - mean) ** 2, weights=window))))
    spread = np.maximum(sds, max(1e-3 * total_sd, ROUNDING_VARIANCE**0.5))
    return Gaussians(np.full(n_components, -np.log(n_components)), np.array(means), np.log(spread))


def _is_stationary(values: list[float]) -> bool:
    return len(values) > _WINDOW and values[-1] - values[-1 - _WINDOW] < _NO_GAIN


def _complete_information(mixture: Gaussians) -> Floats:
    """Return the root of the diagonal of the complete-data information per voxel: shape (3 k,)."""
    # Bound the weight of empty components from below, so that divisions are finite; no label depends on it.
    weight = np.exp(np.maximum(mixture.log_weights, -60.0) / 2)
    return np.concatenate([weight, weight / np.exp(mixture.log_sds), np.sqrt(2) * weight])


def _free(mixture: Gaussians, gradient: Floats, floor: float) -> npt.NDArray[np.bool_]:
    """Return True for each coordinate that may change: a component of minimal width may only widen."""
    k = len(mixture.means)
    held = (mixture.log_sds <= floor + 1e-12) & (gradient[2 * k :] <= 0)
    return ~np.concatenate([np.zeros(2 * k, bool), held])


def _step(
    bins: Bins,
    mixture: Gaussians,
    value: float,
    local: tuple[Floats, Floats, Floats],
    damping: float,
    floor: float,
    prior: PseudoVoxels | None,
) -> tuple[Gaussians, float] | None:
    """Return the next mixture and damping; None if no step gains more than rounding."""
    gradient, curvature, scale = local
    along, axes = np.linalg.eigh(curvature)
    slope = axes.T @ gradient
    k = len(mixture.means)
    # Use the absolute curvature, so that steps go uphill also where the likelihood is convex.
    stiff = np.maximum(np.abs(along), 1e-13)
    while damping < _MAX_DAMPING:
        step = ((axes @ (slope / (stiff + damping))) / scale).reshape(3, k)
        step_norm = max(
            np.abs(step[0]).max() / 2, np.abs(step[1] / np.exp(mixture.log_sds)).max(), np.abs(step[2]).max()
        )
        if step_norm <= _MAX_STEP_NORM:
            proposal = mixture.moved(step)
            proposal = Gaussians(proposal.log_weights, proposal.means, np.maximum(proposal.log_sds, floor))
            gain = log_posterior(bins, proposal, prior) - value
            expected = float(slope @ (slope / (stiff + damping)) / 2)
            if gain > 0.1 * expected or (gain > -_ROUND_OFF * abs(value) and expected < 100 * _ROUND_OFF * abs(value)):
                return proposal, max(damping / 8, _MIN_DAMPING) if gain > 0.5 * expected else damping
        damping = max(damping * 4, 1e-8)
    return None
