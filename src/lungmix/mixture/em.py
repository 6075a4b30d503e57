"""EM (expectation maximisation) over the chunks of a source; all starts are fitted in the same passes over the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lungmix.errors import ModelError
from lungmix.mixture.parameters import State, precisions_cholesky
from lungmix.mixture.prior import Prior
from lungmix.mixture.sources import Source, e_step
from lungmix.mixture.sufficient_statistics import m_step


@dataclass(frozen=True, eq=False)
class Fit:
    """Result of EM from one start.

    Attributes
    ----------
    state : State
        Parameters after the last M-step.
    lower_bounds : list of float
        Mean log-likelihood per unit of sample weight before the M-step of each iteration; with a prior, the mean
        log-posterior.
    converged : bool
        True if the last iteration gained less than the tolerance.
    """

    state: State
    lower_bounds: list[float]
    converged: bool

    @property
    def lower_bound(self) -> float:
        """Last lower bound; minus infinity before the first iteration."""
        return self.lower_bounds[-1] if self.lower_bounds else -np.inf


@dataclass(frozen=True)
class Progress:
    """Progress of a fit, passed to listeners after each pass over the data.

    Attributes
    ----------
    iteration, max_iter : int
        Number of passes so far, and the largest number of passes.
    lower_bounds : dict of int to float
        Mean log-likelihood of each start that was fitted in this pass, by the number of the start.
    """

    iteration: int
    max_iter: int
    lower_bounds: dict[int, float]


Callback = Callable[[Progress], None]


def run_em(
    source: Source,
    states: Sequence[State],
    *,
    tol: float,
    max_iter: int,
    reg_covar: float,
    covariance_type: str,
    previous: float = -np.inf,
    listener: Callback | None = None,
    prior: Prior | None = None,
) -> list[Fit]:
    """Fit a mixture from each start, until an iteration increases its mean log-likelihood by less than `tol`.

    Parameters
    ----------
    source : Source
        Samples.
    states : sequence of State
        Starting values: one state per start.
    tol, max_iter, reg_covar, covariance_type
        See `lungmix.GaussianMixture`.
    previous : float
        Lower bound before the first iteration, for a warm start.
    listener : callable, optional
        Called with `Progress` after each pass.
    prior : Prior, optional
        Prior of the parameters; the lower bounds are then mean log-posteriors.

    Returns
    -------
    list of Fit
        Results, in the order of the starts, of all starts that did not collapse. A start collapses if a covariance is
        no longer positive definite.

    Raises
    ------
    ModelError
        If all starts collapse.
    """
    fits: dict[int, Fit] = {}
    failure: ModelError | None = None
    for i, state in enumerate(states):
        fits[i] = Fit(state, [], False)
    running = sorted(fits)
    for iteration in range(max_iter + 1):
        for i in running:
            try:
                precisions_cholesky(fits[i].state.covariances, covariance_type)
            except ModelError as error:
                failure = error
                del fits[i]
        running = [i for i in running if i in fits and not fits[i].converged]
        if not running or iteration == max_iter:
            break
        statistics = e_step(source, [fits[i].state for i in running], covariance_type)
        for index, i in enumerate(running):
            bound = float(statistics.log_likelihood[index] / statistics.weight)
            if prior is not None:
                bound = prior.log_posterior(bound, fits[i].state, covariance_type)
            last = fits[i].lower_bounds[-1] if fits[i].lower_bounds else previous
            maximize = m_step if prior is None else prior.m_step
            state = maximize(statistics, index, reg_covar, covariance_type)
            fits[i] = Fit(state, [*fits[i].lower_bounds, bound], abs(bound - last) < tol)
        if listener is not None:
            listener(Progress(iteration + 1, max_iter, {i: fits[i].lower_bounds[-1] for i in running}))
    if not fits:
        raise failure if failure is not None else ModelError("there is no start: give n_init of 1 or more")
    return [fits[i] for i in sorted(fits)]


def unconverged(bounds: Sequence[float], tol: float, unit: str) -> str:
    """Return the text of the warning for a fit that ended at `max_iter`; `bounds` has one lower bound per `unit`."""
    end = (
        f"{unit} {len(bounds)} still gained {bounds[-1] - bounds[-2]:.3g}"
        if len(bounds) > 1
        else f"one {unit} shows no gain"
    )
    return (
        f"the mixture did not converge: {end}, tol is {tol:g}. Raise max_iter or tol, or check whether fewer "
        "components suit the data"
    )


def best_of(fits: Sequence[Fit]) -> Fit:
    """Return the fit with the highest lower bound; of fits that differ by rounding only, the first."""
    return fits[first_of_best([fit.lower_bound for fit in fits])]


def first_of_best(bounds: Sequence[float]) -> int:
    """Return the index of the highest bound; of bounds that differ by rounding only, the first."""
    numbers = np.nan_to_num(np.asarray(bounds, np.float64), nan=-np.inf, neginf=-np.inf)
    slack = 1e-10 * max(1.0, abs(numbers.max())) if np.isfinite(numbers.max()) else 0.0
    return int(np.argmax(numbers >= numbers.max() - slack))
