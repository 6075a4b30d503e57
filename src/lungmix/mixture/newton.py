"""EM that arrives: steps between those of EM and those of Newton, until the gradient is small.

EM's step is, to first order, the gradient divided by the information of the complete data, in which each voxel's
component is known (Lange 1995). Where components overlap, the observed information is a small part of that, and EM
crawls. With one feature both are small matrices that one pass over the counts provides. So each step here solves

    (observed information + damping * complete information) step = gradient

whose damping falls as steps succeed, from EM's caution to Newton's speed, and rises where the log-likelihood would
fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lungmix.mixture.binned_likelihood import Bins, Gaussians, log_likelihood, value_gradient_hessian

Floats = npt.NDArray[np.float64]

GRADIENT_TOL = 1e-9
ROUNDING_VARIANCE = 1 / 12
"""HU²; a Gaussian narrower than the rounding of HU cannot be told from one value."""

_LONGEST = 0.7
_LEAST_DAMPING = 1e-12
_MOST_DAMPING = 1e8
_ROUND_OFF = 1e-14
_PATIENCE = 10
_NOTHING = 1e-12
_HEAT = 40


@dataclass(frozen=True, eq=False)
class NewtonResult:
    """Where the ascent ended.

    Attributes
    ----------
    mixture : Gaussians
        Parameters.
    log_likelihoods : list of float
        Mean per voxel, at the start and after each step; never falling.
    gradient : float
        Length of the gradient of the mean log-likelihood, in units in which moving a component's mean by one of its
        standard deviations has the length of the root of its weight.
    converged : bool
        Whether `gradient` is below the tolerance, or below its root with nothing left to gain: where there are more
        components than the data can tell apart, the maximum is a ridge.
    """

    mixture: Gaussians
    log_likelihoods: list[float]
    gradient: float
    converged: bool


def maximize_likelihood(
    bins: Bins, start: Gaussians, *, gradient_tol: float = GRADIENT_TOL, max_iter: int = 1000, reg_covar: float = 1e-6
) -> NewtonResult:
    """Climb from `start` to a maximum of the likelihood of intervals.

    Parameters
    ----------
    bins : Bins
        The data.
    start : Gaussians
        Where to begin.
    gradient_tol : float
        The ascent ends when the gradient, per voxel and in the units of `NewtonResult`, is shorter.
    max_iter : int
        Steps at most.
    reg_covar : float
        HU²; least variance of a component, if it exceeds that of rounding, 1/12 HU².

    Returns
    -------
    Arrival
        The log-likelihood is never below that of the start.
    """
    floor = 0.5 * np.log(max(reg_covar, ROUNDING_VARIANCE))
    here = Gaussians(start.log_weights, start.means, np.maximum(start.log_sds, floor))
    values: list[float] = []
    damping, length = 1.0, np.inf
    for _ in range(max_iter + 1):
        value, gradient, hessian = value_gradient_hessian(bins, here)
        values.append(value)
        free = _free(here, gradient, floor)
        scale = _complete_information(here)
        steep = np.where(free, gradient / scale, 0.0)
        length = float(np.linalg.norm(steep))
        if length < gradient_tol or len(values) > max_iter:
            break
        curvature = np.where(np.outer(free, free), -hessian / np.outer(scale, scale), 0.0)
        moved = _step(bins, here, value, (steep, curvature, scale), damping, floor)
        if moved is None:
            break
        here, damping = moved
        if _stands_still(values):
            break
    arrived = length < gradient_tol or (_stands_still(values) and length < gradient_tol**0.5)
    return NewtonResult(here, values, length, arrived)


def best_of(bins: Bins, starts: Sequence[Gaussians], *, max_iter: int = 1000, reg_covar: float = 1e-6) -> NewtonResult:
    """The maximum that the best start leads to: the one that is highest after a few steps; the first of equals."""
    heats = [maximize_likelihood(bins, start, max_iter=min(max_iter, _HEAT), reg_covar=reg_covar) for start in starts]
    first = max(heats, key=lambda arrival: arrival.log_likelihoods[-1])
    if first.converged or len(first.log_likelihoods) > max_iter:
        return first
    rest = maximize_likelihood(bins, first.mixture, max_iter=max_iter - _HEAT, reg_covar=reg_covar)
    return replace(rest, log_likelihoods=first.log_likelihoods[:-1] + rest.log_likelihoods)


def quantile_start(bins: Bins, n_components: int) -> Gaussians:
    """Components over equal shares of the voxels, each with the mean and spread of its share."""
    centre = np.where(np.isfinite(bins.lower), (bins.lower + bins.upper) / 2, bins.upper - 0.5)
    place = (np.cumsum(bins.counts) - bins.counts / 2) / bins.total
    means, sds = [], []
    whole = float(np.sqrt(np.average((centre - np.average(centre, weights=bins.counts)) ** 2, weights=bins.counts)))
    for k in range(n_components):
        # A soft window, so that a value with most of the voxels leaves no component empty.
        window = bins.counts * np.exp(-0.5 * ((place - (k + 0.5) / n_components) * 2 * n_components) ** 2)
        window = window + bins.counts * 1e-12
        mean = float(np.average(centre, weights=window))
        means.append(mean)
        sds.append(float(np.sqrt(np.average((centre - mean) ** 2, weights=window))))
    spread = np.maximum(sds, max(1e-3 * whole, ROUNDING_VARIANCE**0.5))
    return Gaussians(np.full(n_components, -np.log(n_components)), np.array(means), np.log(spread))


def _stands_still(values: list[float]) -> bool:
    return len(values) > _PATIENCE and values[-1] - values[-1 - _PATIENCE] < _NOTHING


def _complete_information(mixture: Gaussians) -> Floats:
    """Root of the diagonal of the information per voxel, were the components known; shape (3 k,)."""
    # A component that dies keeps a share that divisions bear; at this size it touches no label.
    weight = np.exp(np.maximum(mixture.log_weights, -60.0) / 2)
    return np.concatenate([weight, weight / np.exp(mixture.log_sds), np.sqrt(2) * weight])


def _free(mixture: Gaussians, gradient: Floats, floor: float) -> npt.NDArray[np.bool_]:
    """Which coordinates may move: a component as narrow as allowed may only widen."""
    k = len(mixture.means)
    held = (mixture.log_sds <= floor + 1e-12) & (gradient[2 * k :] <= 0)
    return ~np.concatenate([np.zeros(2 * k, bool), held])


def _step(
    bins: Bins, here: Gaussians, value: float, local: tuple[Floats, Floats, Floats], damping: float, floor: float
) -> tuple[Gaussians, float] | None:
    """The next mixture and the next damping; None where no step gains anything that numbers can show."""
    steep, curvature, scale = local
    along, axes = np.linalg.eigh(curvature)
    slope = axes.T @ steep
    k = len(here.means)
    # Where the likelihood curves upwards, the step goes uphill all the same, as far as the curvature suggests.
    stiff = np.maximum(np.abs(along), 1e-13)
    while damping < _MOST_DAMPING:
        step = ((axes @ (slope / (stiff + damping))) / scale).reshape(3, k)
        reach = max(np.abs(step[0]).max() / 2, np.abs(step[1] / np.exp(here.log_sds)).max(), np.abs(step[2]).max())
        if reach <= _LONGEST:
            there = here.moved(step)
            there = Gaussians(there.log_weights, there.means, np.maximum(there.log_sds, floor))
            gain = log_likelihood(bins, there) - value
            expected = float(slope @ (slope / (stiff + damping)) / 2)
            if gain > 0.1 * expected or (gain > -_ROUND_OFF * abs(value) and expected < 100 * _ROUND_OFF * abs(value)):
                return there, max(damping / 8, _LEAST_DAMPING) if gain > 0.5 * expected else damping
        damping = max(damping * 4, 1e-8)
    return None
