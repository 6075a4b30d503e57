"""Maximization of a likelihood or posterior by steps that lie between those of EM and those of Newton's method.

To first order, a step of EM is the gradient divided by the Fisher information of the complete data, in which the
component of each voxel is known (Lange 1995). If components overlap, the observed information is a small part of the
complete information, and EM converges slowly. With one feature, both are small matrices, computed in one pass over the
histogram. Each step solves

    (observed information + damping * complete information) step = gradient

With a large damping this is a step of EM, with a small one a step of Newton's method. The damping decreases as steps
succeed, and increases where the log-likelihood would decrease. A prior adds pseudo-voxels whose components are known,
so the same holds for the log-posterior.
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
"""Norm of the gradient below which a maximum is reached: per voxel, and in the units of `NewtonResult.gradient`."""

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
    """Result of a maximization from one start.

    Attributes
    ----------
    mixture : Gaussians
        Mixture after the last step.
    log_likelihoods : list of float
        Mean log-likelihood per voxel at the start and after each step, never decreasing. With a prior, the values of
        `lungmix.mixture.binned_posterior.log_posterior`.
    gradient : float
        Norm of the gradient at the end. Its units are such that moving the mean of a component by its standard
        deviation has the length of the square root of the weight of the component.
    converged : bool
        True if `gradient` is below the tolerance. Also true if it is below the square root of the tolerance and the
        last ten steps gained nothing: with more components than the data can distinguish, the maximum is a ridge.
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
    """Maximize the likelihood of intervals from one start; with a prior, maximize the posterior.

    Parameters
    ----------
    bins : Bins
        The histogram, as intervals.
    start : Gaussians
        Starting values.
    max_iter : int
        Largest number of steps.
    reg_covar : float
        Smallest variance of a component in HU². It is at least 1/12, the variance of rounding.
    prior : PseudoVoxels, optional
        Prior with as many components as the start, in the same order.

    Returns
    -------
    NewtonResult
        Result, whose log-likelihood, or log-posterior, is at least that of the start.
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
    """Return the maximum that is reached from each start.

    First, 40 steps are taken from each start. The start that is then best may take `max_iter` steps; the others stop
    after 240 steps in total, which is enough unless a maximum is a ridge.
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
    """Return the index of the highest maximum; of equally high ones, the first."""
    return max(range(len(results)), key=lambda i: (results[i].log_likelihoods[-1], -i))


def quantile_start(bins: Bins, n_components: int) -> Gaussians:
    """Return starting values whose components lie at quantiles of the voxels.

    Each component has the mean and the standard deviation of the voxels near its quantile, and all have equal weights.
    """
    centre = np.where(np.isfinite(bins.lower), (bins.lower + bins.upper) / 2, bins.upper - 0.5)
    rank = (np.cumsum(bins.counts) - bins.counts / 2) / bins.total
    means, sds = [], []
    total_sd = float(np.sqrt(np.average((centre - np.average(centre, weights=bins.counts)) ** 2, weights=bins.counts)))
    for k in range(n_components):
        # Weight voxels by a smooth window: no component is empty, even if a single value has most of the voxels.
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
    """Return the square root of the diagonal of the complete information per voxel, shape (3 k,)."""
    # Give empty components a small weight, so that divisions are finite; no label depends on it.
    weight = np.exp(np.maximum(mixture.log_weights, -60.0) / 2)
    return np.concatenate([weight, weight / np.exp(mixture.log_sds), np.sqrt(2) * weight])


def _free(mixture: Gaussians, gradient: Floats, floor: float) -> npt.NDArray[np.bool_]:
    """Return True for each parameter that may change.

    All may, except for standard deviations that are as small as allowed and would become smaller.
    """
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
    """Return the mixture after the next step, and the next damping; None if no step gains more than rounding errors."""
    gradient, curvature, scale = local
    along, axes = np.linalg.eigh(curvature)
    slope = axes.T @ gradient
    k = len(mixture.means)
    # Use the absolute values of the curvature, so that steps go uphill even where the likelihood is convex.
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
