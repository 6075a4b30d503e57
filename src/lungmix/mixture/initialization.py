"""Starting values of EM, by k-means on weighted samples or by another method of the user's choice.

Up to `FEW_ROWS` rows are clustered directly. If there are more, a random sample of them is clustered, a coreset
(Bachem, Lucic and Krause 2018, "Scalable k-means clustering via lightweight coresets"). Its rows are drawn with a
probability that grows with their weight and their squared distance from the mean, and get weights that compensate for
this probability. A coreset takes one pass over the data for all starts, and respects sample weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning

from lungmix.errors import ModelError
from lungmix.mixture.checks import all_weights_zero, check_finite, check_weights
from lungmix.mixture.em_kernels import assign, rows_in_blocks
from lungmix.mixture.parameters import Floats, State
from lungmix.mixture.sources import Chunks, Rows, Source, hard_pass, random_pass
from lungmix.mixture.sufficient_statistics import combine_all, m_step

FEW_ROWS = 1 << 17
CORESET_ROWS = 50_000
METHODS = ("kmeans", "k-means++", "k-means||", "random", "random_from_data")


@dataclass(frozen=True, eq=False)
class DataSummary:
    """Numbers of rows, weights and moments of the samples, from the first pass over the data.

    Attributes
    ----------
    rows : ndarray of int, shape (chunks,)
        Number of rows with a weight above 0 in each chunk.
    weights : ndarray, shape (chunks,)
        Sum of the weights of the rows of each chunk.
    spread : ndarray, shape (chunks,)
        Sum, over the rows of each chunk, of the squared distance from `mean` times the weight.
    mean : ndarray, shape (d,)
        Weighted mean of all samples.
    """

    rows: npt.NDArray[np.int64]
    weights: Floats
    spread: Floats
    mean: Floats


def summarize(source: Source, sizes: Sequence[float]) -> DataSummary:
    """Return a summary of all samples and weights after checking them, in one pass.

    Parameters
    ----------
    source : Source
        Samples.
    sizes : sequence of float
        Number of rows of each chunk; NaN if unknown.

    Raises
    ------
    ModelError
        If a sample of positive weight is NaN or infinite, a weight is invalid, or all weights are zero.
    """
    firsts = np.concatenate([[0.0], np.cumsum(sizes)])[:-1]
    parts = source.each(_summarize_chunk, [None if np.isnan(first) else int(first) for first in firsts])
    total = combine_all([statistics for _, statistics in parts])
    if total.weight <= 0:
        raise all_weights_zero()
    mean = total.means[0, 0]
    weights = np.array([s.weight for _, s in parts])
    spread = np.array([s.scatter.sum() + s.weight * np.sum((s.means[0, 0] - mean) ** 2) for _, s in parts])
    return DataSummary(np.array([rows for rows, _ in parts]), weights, spread, mean)


def _summarize_chunk(x: Any, weights: Any, index: int, first_row: int | None) -> Any:
    if weights is not None:
        weights = check_weights(weights, len(x))
    check_finite(x, weights, first_row, index)
    rows = len(x) if weights is None else int(np.count_nonzero(weights))
    return rows, assign(x, weights, np.zeros((1, 1, x.shape[1])), "diag")


def start_states(
    source: Source,
    summary: DataSummary,
    method: str | Callable[..., Any],
    n_components: int,
    n_init: int,
    random_state: np.random.RandomState,
    reg_covar: float,
    covariance_type: str,
) -> list[State]:
    """Return the starting values of EM, one state per start.

    They follow from an M-step after each sample is assigned to the nearest centre or, for the method ``"random"``, to
    all components in random proportions.

    Parameters
    ----------
    source, summary : Source, DataSummary
        Samples and their summary.
    method : {"kmeans", "k-means++", "k-means||", "random", "random_from_data"} or callable
        See `GaussianMixture`.
    n_components, n_init : int
        Number of centres of a start; number of starts.
    random_state : RandomState
        Random generator for the centres or the proportions.
    reg_covar, covariance_type
        See `GaussianMixture`.
    """
    if method == "random":
        seeds = random_state.randint(np.iinfo(np.int32).max, size=n_init).tolist()
        statistics = random_pass(source, seeds, n_components, covariance_type)
        return [m_step(statistics, i, reg_covar, covariance_type) for i in range(n_init)]
    if callable(method) or method == "k-means||":
        find = method if callable(method) else _dask_ml
        centres = [_external_centres(find, source, n_components, random_state) for _ in range(n_init)]
    else:
        rows, weights = distinct(*gather(source, summary, random_state))
        if len(rows) < n_components:
            warnings.warn(
                f"{n_components} components for {len(rows)} distinct samples: {n_components - len(rows)} of them stay "
                "empty; use fewer components",
                ConvergenceWarning,
                stacklevel=2,
            )
            centres = [np.concatenate([rows, np.repeat(rows[:1], n_components - len(rows), axis=0)])]
        else:
            centres = [_centres(method, rows, weights, n_components, random_state) for _ in range(n_init)]
    statistics = hard_pass(source, np.stack(centres), covariance_type)
    return [m_step(statistics, i, reg_covar, covariance_type) for i in range(len(centres))]


def _centres(
    method: str, rows: Floats, weights: Floats, n_components: int, random_state: np.random.RandomState
) -> Floats:
    if method == "kmeans":
        means = KMeans(n_components, n_init=1, random_state=random_state)
        return np.asarray(means.fit(rows, sample_weight=weights).cluster_centers_)
    if method == "k-means++":
        return np.asarray(kmeans_plusplus(rows, n_components, sample_weight=weights, random_state=random_state)[0])
    chosen = random_state.choice(len(rows), n_components, replace=False, p=weights / weights.sum())
    return np.asarray(rows[chosen])


def _external_centres(
    find: Callable[..., Any], source: Source, n_components: int, random_state: np.random.RandomState
) -> Floats:
    """Return the centres that a function finds in a dask array; its arguments are those of a callable `init_params`."""
    if not isinstance(source, (Rows, Chunks)) or source.weights is not None:
        raise ModelError(
            "a function as init_params accepts no weights, but sample_weight was given, or integer samples were "
            "reduced to counts, which are weights: use init_params='kmeans', or samples of a float type without weights"
        )
    x = source.x if isinstance(source, Chunks) else da.from_array(source.x, chunks=(FEW_ROWS, -1))
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    centres = np.asarray(find(x.astype(np.float64), n_components, random_state=seed), np.float64)
    if centres.shape != (n_components, source.n_features):
        raise ModelError(
            f"init_params returned centres of shape {centres.shape}, not {(n_components, source.n_features)}: "
            "return one row per component"
        )
    return centres


def _dask_ml(x: da.Array, n_clusters: int, random_state: int) -> Any:
    # Import dask-ml on use only, since it takes seconds.
    from dask_ml.cluster.k_means import k_init

    return k_init(x, n_clusters, random_state=random_state)


def distinct(rows: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the distinct rows in ascending order, and the total weight of each, divided by the largest of these.

    So starting values do not depend on the order of samples. Nor does it matter whether duplicates are given as
    separate rows or as one row with a higher weight.
    """
    order = np.lexsort(rows.T[::-1])
    rows, weights = rows[order], weights[order]
    first = np.concatenate([[True], np.any(rows[1:] != rows[:-1], axis=1)])
    summed = np.add.reduceat(weights, np.flatnonzero(first))
    return rows[first], summed / summed.max()


def gather(source: Source, summary: DataSummary, random_state: np.random.RandomState) -> tuple[Floats, Floats]:
    """Return all rows with their weights if there are at most `FEW_ROWS`, otherwise the rows of a coreset."""
    if summary.rows.sum() <= FEW_ROWS:
        parts = source.each(_all_rows)
    else:
        spread = summary.spread.sum()
        chance = summary.weights / summary.weights.sum()
        if spread > 0:
            chance = (chance + summary.spread / spread) / 2
        draws = random_state.multinomial(CORESET_ROWS, chance / chance.sum())
        seeds = random_state.randint(np.iinfo(np.int32).max, size=len(draws))
        task = partial(_draw, mean=summary.mean, weight=float(summary.weights.sum()), spread=float(spread))
        parts = source.each(task, list(zip(draws.tolist(), seeds.tolist(), strict=True)))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([weights for _, weights in parts])


def _all_rows(x: Any, weights: Any, index: int, args: None) -> tuple[Floats, Floats]:
    blocks = list(rows_in_blocks(x, weights))
    rows = [block for block, _ in blocks] or [np.zeros((0, x.shape[1]))]
    return np.concatenate(rows), np.concatenate([share for _, share in blocks] or [np.zeros(0)])


def _draw(
    x: Any, weights: Any, index: int, args: tuple[int, int], mean: Floats, weight: float, spread: float
) -> tuple[Floats, Floats]:
    draws, seed = args
    chances, shares = [], []
    for rows, share in rows_in_blocks(x, weights):
        chance = share / weight
        if spread > 0:
            chance = (chance + share * np.sum((rows - mean) ** 2, axis=1) / spread) / 2
        chances.append(chance)
        shares.append(share)
    if not draws or not chances:
        return np.zeros((0, len(mean))), np.zeros(0)
    chance, share = np.concatenate(chances), np.concatenate(shares)
    # Draw by the cumulative sum, in which k consecutive duplicates have the same probability as one row of weight k.
    running = np.cumsum(chance)
    positions = np.sort(np.random.RandomState(seed).uniform(size=draws)) * running[-1]
    drawn = np.minimum(np.searchsorted(running, positions, side="right"), len(running) - 1)
    original = drawn if weights is None else np.flatnonzero(np.asarray(weights) > 0)[drawn]
    return np.asarray(x[original], np.float64), share[drawn] / chance[drawn]
