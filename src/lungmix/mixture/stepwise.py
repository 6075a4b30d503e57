"""Stepwise EM: the parameters are updated after each minibatch, which is a small part of the samples.

The sufficient statistics per unit of weight become a weighted mean: that of minibatch ``t`` has the weight ``(t + t0)
** -kappa``, the step size, and the statistics so far have the rest. The ordinary M-step follows. Sources: Cappé and
Moulines (2009), "On-line expectation-maximization algorithm for latent data models"; Liang and Klein (2009), "Online EM
for unsupervised models".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask
import numpy as np
import numpy.typing as npt

from lungmix.mixture.checks import check_finite, check_weights
from lungmix.mixture.em import Callback, Fit, Progress, best_of
from lungmix.mixture.em_kernels import e_step_statistics
from lungmix.mixture.initialization import FEW_ROWS
from lungmix.mixture.parameters import State
from lungmix.mixture.sources import Chunks, Rows, Source
from lungmix.mixture.sufficient_statistics import Statistics, combine, combine_all, expected, m_step

CHUNKS_TOGETHER = 8
"""Number of chunks whose rows are shuffled together; they must fit in the memory of one worker."""


@dataclass(frozen=True)
class StepSchedule:
    """Step sizes and M-step settings of stepwise EM.

    Attributes
    ----------
    kappa : float
        Exponent with which step sizes decrease, above 0.5 and at most 1.
    t0 : float
        Delay, 0 or more. Larger values make the first steps smaller.
    reg_covar, covariance_type
        See `lungmix.GaussianMixture`.
    """

    kappa: float
    t0: float
    reg_covar: float
    covariance_type: str

    def step_size(self, t: int) -> float:
        """Return the step size of minibatch `t`, counted from 0; that of the first minibatch is 1."""
        return 1.0 if t == 0 else float((t + self.t0) ** -self.kappa)


def step(states: Sequence[State], batch: Statistics, t: int, schedule: StepSchedule) -> list[State]:
    """Return the states after the step for minibatch number `t`, given its statistics.

    A minibatch of weight 0 changes nothing.
    """
    if batch.weight <= 0:
        return list(states)
    share = schedule.step_size(t)
    statistics = batch.scaled(1 / batch.weight)
    if share < 1:
        before = expected(states, schedule.reg_covar, schedule.covariance_type)
        statistics = combine(before.scaled(1 - share), statistics.scaled(share))
    return [m_step(statistics, i, schedule.reg_covar, schedule.covariance_type) for i in range(len(states))]


@dataclass(frozen=True, eq=False)
class StepwiseState:
    """State of stepwise EM within a pass: parameters of each start, number of steps, and sum of statistics so far."""

    states: list[State]
    t: int
    total: Statistics | None = None


def run_minibatches(
    current: StepwiseState, chunks: Sequence[Any], batch_size: int, seed: int, schedule: StepSchedule
) -> StepwiseState:
    """Return the state after one step for each minibatch of the rows of some chunks, in random order.

    Parameters
    ----------
    current : StepwiseState
        State before the first step.
    chunks : sequence of (ndarray, ndarray or None)
        Rows and weights of each chunk, in memory.
    batch_size : int
        Approximate number of rows in a minibatch. The rows are divided evenly, so that all minibatches have equally
        many.
    seed : int
        Seed of the order of rows.
    schedule : StepSchedule
        Step sizes.
    """
    states, t, parts = current.states, current.t, [] if current.total is None else [current.total]
    for x, weights in _minibatches(chunks, batch_size, seed):
        batch = e_step_statistics(x, weights, states, schedule.covariance_type)
        states = step(states, batch, t, schedule)
        parts.append(batch)
        t += batch.weight > 0
        if len(parts) == 64:
            parts = [combine_all(parts)]
    return StepwiseState(states, t, combine_all(parts) if parts else None)


def _minibatches(chunks: Sequence[Any], batch_size: int, seed: int) -> Iterator[tuple[npt.NDArray[Any], Any]]:
    kept = []
    for x, weights in chunks:
        check_finite(x, weights, None)
        # Drop rows of weight 0 first, so that the order of the other rows does not depend on them.
        present = np.arange(len(x)) if weights is None else np.flatnonzero(check_weights(weights, len(x)))
        kept.append(present)
    sizes = [len(present) for present in kept]
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    order = np.random.default_rng(seed).permutation(int(firsts[-1]))
    for piece in np.array_split(order, max(1, round(len(order) / batch_size))):
        rows, shares = [], []
        for (x, weights), present, first, size in zip(chunks, kept, firsts, sizes, strict=False):
            selected = present[piece[(piece >= first) & (piece < first + size)] - first]
            rows.append(np.asarray(x)[selected])
            if weights is not None:
                shares.append(np.asarray(weights)[selected])
        yield np.concatenate(rows), np.concatenate(shares) if shares else None


def run_stepwise(
    source: Source,
    states: Sequence[State],
    *,
    batch_size: int,
    schedule: StepSchedule,
    tol: float,
    max_iter: int,
    random_state: np.random.RandomState,
    t: int = 0,
    listener: Callback | None = None,
) -> tuple[list[Fit], int]:
    """Pass over the data in minibatches, until a pass increases the mean log-likelihood by less than `tol`.

    The last minibatches have more influence on the parameters than others. Therefore each pass ends with an M-step on
    the sum of the statistics of all its minibatches. In the first pass, this sum leaves out the first half of the
    minibatches, whose parameters are still far from the maximum.

    Parameters
    ----------
    source : Source
        Samples.
    states : sequence of State
        Starting values, one state per start. All are updated by the same minibatches.
    batch_size : int
        Approximate number of rows in a minibatch.
    schedule : StepSchedule
        Step sizes.
    tol, max_iter
        Smallest gain in mean log-likelihood from one pass to the next, and largest number of passes.
    random_state : RandomState
        Generator of the order of chunks and rows.
    t : int
        Number of minibatches that the states are based on.
    listener : callable, optional
        Called with `Progress` after each pass.

    Returns
    -------
    fits : list of Fit
        One fit per start. A lower bound is the mean log-likelihood in a pass, in which each minibatch is evaluated
        before its step.
    steps : int
        Number of all minibatches, including the `t` before.
    """
    fits = [Fit(state, [], False) for state in states]
    for iteration in range(max_iter):
        current = StepwiseState([fit.state for fit in fits], t)
        groups = _groups(source, random_state)
        for number, (group, seed) in enumerate(groups):
            half = iteration == 0 and number == len(groups) // 2
            current = replace(current, total=None) if half else current
            current = _run_group(source, current, group, batch_size, seed, schedule)
        t = current.t
        total = current.total
        if total is None or total.weight <= 0:
            break
        bounds = total.log_likelihood / total.weight
        fits = [
            Fit(
                m_step(total, i, schedule.reg_covar, schedule.covariance_type),
                [*fit.lower_bounds, float(bounds[i])],
                bool(fit.lower_bounds) and abs(float(bounds[i]) - fit.lower_bounds[-1]) < tol,
            )
            for i, fit in enumerate(fits)
        ]
        if listener is not None:
            listener(Progress(iteration + 1, max_iter, {i: fit.lower_bound for i, fit in enumerate(fits)}))
        if best_of(fits).converged:
            break
    return fits, t


def _groups(source: Source, random_state: np.random.RandomState) -> list[tuple[npt.NDArray[Any], int]]:
    """Return groups of chunks, or groups of rows in memory, in random order, and a seed for each group."""
    if isinstance(source, Rows):
        order = random_state.permutation(len(source.x))
        pieces = np.array_split(order, max(2, -(-len(order) // (1 << 20))))
    elif isinstance(source, Chunks):
        order = random_state.permutation(source.x.numblocks[0])
        pieces = np.array_split(order, max(1, -(-len(order) // CHUNKS_TOGETHER)))
    else:
        raise TypeError(f"{type(source).__name__} is no source of samples")
    return [(piece, int(random_state.randint(np.iinfo(np.int32).max))) for piece in pieces]


def _run_group(
    source: Source, current: StepwiseState, group: npt.NDArray[Any], batch_size: int, seed: int, schedule: StepSchedule
) -> StepwiseState:
    if isinstance(source, Rows):
        weights = None if source.weights is None else source.weights[group]
        return run_minibatches(current, [(source.x[group], weights)], batch_size, seed, schedule)
    assert isinstance(source, Chunks)
    blocks, shares = (list(column) for column in zip(*(source.block(int(i)) for i in group), strict=True))
    task = dask.delayed(partial(_run_blocks, batch_size=batch_size, seed=seed, schedule=schedule), pure=False)
    (result,) = dask.compute(task(dask.delayed(current, traverse=False), blocks, shares))
    return result


def _run_blocks(current: StepwiseState, blocks: Sequence[Any], shares: Sequence[Any], **rules: Any) -> StepwiseState:
    return run_minibatches(current, list(zip(blocks, shares, strict=True)), **rules)


def first_rows(source: Source, random_state: np.random.RandomState) -> Rows:
    """Return a random sample of rows, in which starting values are searched."""
    if isinstance(source, Rows):
        chosen = random_state.permutation(len(source.x))[:FEW_ROWS]
        return Rows(source.x[chosen], None if source.weights is None else source.weights[chosen])
    assert isinstance(source, Chunks)
    order = random_state.permutation(source.x.numblocks[0])[:CHUNKS_TOGETHER]
    seeds = random_state.randint(np.iinfo(np.int32).max, size=len(order))
    parts = [
        dask.delayed(_some_rows, pure=False)(*source.block(int(i)), FEW_ROWS // len(order), int(seed))
        for i, seed in zip(order, seeds, strict=True)
    ]
    samples = dask.compute(*parts)
    weights = None if source.weights is None else np.concatenate([share for _, share in samples])
    return Rows(np.concatenate([rows for rows, _ in samples]), weights)


def _some_rows(x: Any, weights: Any, count: int, seed: int) -> tuple[npt.NDArray[Any], Any]:
    present = np.arange(len(x)) if weights is None else np.flatnonzero(check_weights(weights, len(x)))
    chosen = np.random.default_rng(seed).permutation(present)[:count]
    return np.asarray(x)[chosen], None if weights is None else np.asarray(weights)[chosen]
