"""Stepwise EM: parameters that move with each minibatch.

Cappé and Moulines (2009), "On-line expectation-maximization algorithm for latent data models"; Liang and Klein (2009),
"Online EM for unsupervised models". Statistics per unit of weight are moved towards those of a minibatch by the step
``(t + t0) ** -kappa``, and parameters follow by the ordinary M-step.
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
"""Chunks whose rows are shuffled together: what a worker holds at a time."""


@dataclass(frozen=True)
class StepSchedule:
    """Rules of stepwise EM.

    Attributes
    ----------
    kappa : float
        How fast steps shrink, above 0.5 and at most 1.
    t0 : float
        Delay, at least 0: the larger, the smaller the first steps.
    reg_covar, covariance_type
        See `lungmix.GaussianMixture`.
    """

    kappa: float
    t0: float
    reg_covar: float
    covariance_type: str

    def step_size(self, t: int) -> float:
        """Share of minibatch number `t`, counted from 0, which decides alone."""
        return 1.0 if t == 0 else float((t + self.t0) ** -self.kappa)


def move(states: Sequence[State], batch: Statistics, t: int, schedule: StepSchedule) -> list[State]:
    """States after minibatch number `t`, whose statistics are given; a batch of weight 0 moves nothing."""
    if batch.weight <= 0:
        return list(states)
    share = schedule.step_size(t)
    moved = batch.scaled(1 / batch.weight)
    if share < 1:
        before = expected(states, schedule.reg_covar, schedule.covariance_type)
        moved = combine(before.scaled(1 - share), moved.scaled(share))
    return [m_step(moved, i, schedule.reg_covar, schedule.covariance_type) for i in range(len(states))]


@dataclass(frozen=True, eq=False)
class StepwiseState:
    """Where stepwise EM stands within a pass: states, steps taken, and the sum of the statistics it has seen."""

    states: list[State]
    t: int
    seen: Statistics | None = None


def walk(
    walk: StepwiseState, chunks: Sequence[Any], batch_size: int, seed: int, schedule: StepSchedule
) -> StepwiseState:
    """Take one step a minibatch over the rows of some chunks in random order.

    Parameters
    ----------
    walk : Walk
        Where to begin.
    chunks : sequence of (ndarray, ndarray or None)
        Rows and their weights; what one worker can hold.
    batch_size : int
        Rows of a minibatch; the last one may have up to half as many again or half as few.
    seed : int
        Of the order of rows.
    schedule : Schedule
        Step sizes.
    """
    states, t, parts = walk.states, walk.t, [] if walk.seen is None else [walk.seen]
    for x, weights in _minibatches(chunks, batch_size, seed):
        batch = e_step_statistics(x, weights, states, schedule.covariance_type)
        states = move(states, batch, t, schedule)
        parts.append(batch)
        t += batch.weight > 0
        if len(parts) == 64:
            parts = [combine_all(parts)]
    return StepwiseState(states, t, combine_all(parts) if parts else None)


def _minibatches(chunks: Sequence[Any], batch_size: int, seed: int) -> Iterator[tuple[npt.NDArray[Any], Any]]:
    kept = []
    for x, weights in chunks:
        check_finite(x, weights, None)
        # Rows of weight 0 must not tell on the order of the others.
        present = np.arange(len(x)) if weights is None else np.flatnonzero(check_weights(weights, len(x)))
        kept.append(present)
    sizes = [len(present) for present in kept]
    firsts = np.concatenate([[0], np.cumsum(sizes)])
    order = np.random.default_rng(seed).permutation(int(firsts[-1]))
    for piece in np.array_split(order, max(1, round(len(order) / batch_size))):
        rows, shares = [], []
        for (x, weights), present, first, size in zip(chunks, kept, firsts, sizes, strict=False):
            mine = present[piece[(piece >= first) & (piece < first + size)] - first]
            rows.append(np.asarray(x)[mine])
            if weights is not None:
                shares.append(np.asarray(weights)[mine])
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
    """Pass over the data in minibatches until a pass gains less than `tol`.

    Each pass ends with an M-step on the mean of all its statistics, those of the first half of the first pass left
    out: it undoes the weight that the last chunks have in the last states.

    Parameters
    ----------
    source : Source
        Samples.
    states : sequence of State
        Starts; all walk over the same minibatches.
    batch_size : int
        Rows of a minibatch.
    schedule : Schedule
        Step sizes.
    tol, max_iter
        Least gain in mean log-likelihood from pass to pass, and passes at most.
    random_state : RandomState
        Order of chunks and rows.
    t : int
        Minibatches that the states have seen already.
    listener : callable, optional
        Hears `Progress` after each pass.

    Returns
    -------
    fits : list of Fit
        One a start; a lower bound is the mean, over a pass, of what each minibatch had before its step.
    steps : int
        Minibatches in all.
    """
    fits = [Fit(state, [], False) for state in states]
    for iteration in range(max_iter):
        here = StepwiseState([fit.state for fit in fits], t)
        groups = _groups(source, random_state)
        for number, (group, seed) in enumerate(groups):
            half = iteration == 0 and number == len(groups) // 2
            here = _take(source, replace(here, seen=None) if half else here, group, batch_size, seed, schedule)
        t = here.t
        seen = here.seen
        if seen is None or seen.weight <= 0:
            break
        bounds = seen.log_likelihood / seen.weight
        fits = [
            Fit(
                m_step(seen, i, schedule.reg_covar, schedule.covariance_type),
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
    """Chunks, or rows in memory, in random order, in groups, each with a seed."""
    if isinstance(source, Rows):
        order = random_state.permutation(len(source.x))
        pieces = np.array_split(order, max(2, -(-len(order) // (1 << 20))))
    elif isinstance(source, Chunks):
        order = random_state.permutation(source.x.numblocks[0])
        pieces = np.array_split(order, max(1, -(-len(order) // CHUNKS_TOGETHER)))
    else:
        raise TypeError(type(source).__name__)
    return [(piece, int(random_state.randint(np.iinfo(np.int32).max))) for piece in pieces]


def _take(
    source: Source, here: StepwiseState, group: npt.NDArray[Any], batch_size: int, seed: int, schedule: StepSchedule
) -> StepwiseState:
    if isinstance(source, Rows):
        weights = None if source.weights is None else source.weights[group]
        return walk(here, [(source.x[group], weights)], batch_size, seed, schedule)
    assert isinstance(source, Chunks)
    blocks, shares = (list(column) for column in zip(*(source.block(int(i)) for i in group), strict=True))
    task = dask.delayed(partial(_walk_on, batch_size=batch_size, seed=seed, schedule=schedule), pure=False)
    (result,) = dask.compute(task(dask.delayed(here, traverse=False), blocks, shares))
    return result


def _walk_on(here: StepwiseState, blocks: Sequence[Any], shares: Sequence[Any], **rules: Any) -> StepwiseState:
    return walk(here, list(zip(blocks, shares, strict=True)), **rules)


def first_rows(source: Source, random_state: np.random.RandomState) -> Rows:
    """Some rows of some chunks, to find a start in."""
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
    found = dask.compute(*parts)
    weights = None if source.weights is None else np.concatenate([share for _, share in found])
    return Rows(np.concatenate([rows for rows, _ in found]), weights)


def _some_rows(x: Any, weights: Any, count: int, seed: int) -> tuple[npt.NDArray[Any], Any]:
    present = np.arange(len(x)) if weights is None else np.flatnonzero(check_weights(weights, len(x)))
    chosen = np.random.default_rng(seed).permutation(present)[:count]
    return np.asarray(x)[chosen], None if weights is None else np.asarray(weights)[chosen]
