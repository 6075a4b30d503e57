"""Starts of EM: k-means on weighted samples, or what the user gives.

Data of up to `FEW_ROWS` rows are clustered whole. Of more, a coreset is drawn: rows with a chance that grows with their
weight and their squared distance from the mean, and weights that make up for it, after Bachem, Lucic and Krause (2018),
"Scalable k-means clustering via lightweight coresets". It takes one pass for all starts, and honours sample weights.
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
    """What the first pass finds out.

    Attributes
    ----------
    rows : ndarray of int, shape (chunks,)
        Rows with a positive weight.
    weights : ndarray, shape (chunks,)
        Their weight.
    spread : ndarray, shape (chunks,)
        Weighted squared distances from `mean`.
    mean : ndarray, shape (d,)
        Weighted mean of all samples.
    """

    rows: npt.NDArray[np.int64]
    weights: Floats
    spread: Floats
    mean: Floats


def survey(source: Source, sizes: Sequence[float]) -> DataSummary:
    """Check all samples and weights, and measure them, in one pass.

    Parameters
    ----------
    source : Source
        Samples.
    sizes : sequence of float
        Rows of each chunk; NaN where unknown.

    Raises
    ------
    ModelError
        If a sample that counts is NaN or infinite, a weight impossible, or no sample counts.
    """
    firsts = np.concatenate([[0.0], np.cumsum(sizes)])[:-1]
    found = source.each(_measure, [None if np.isnan(first) else int(first) for first in firsts])
    total = combine_all([statistics for _, statistics in found])
    if total.weight <= 0:
        raise all_weights_zero()
    mean = total.means[0, 0]
    weights = np.array([s.weight for _, s in found])
    spread = np.array([s.scatter.sum() + s.weight * np.sum((s.means[0, 0] - mean) ** 2) for _, s in found])
    return DataSummary(np.array([rows for rows, _ in found]), weights, spread, mean)


def _measure(x: Any, weights: Any, index: int, first_row: int | None) -> Any:
    if weights is not None:
        weights = check_weights(weights, len(x))
    check_finite(x, weights, first_row, index)
    rows = len(x) if weights is None else int(np.count_nonzero(weights))
    return rows, assign(x, weights, np.zeros((1, 1, x.shape[1])), "diag")


def start_states(
    source: Source,
    found: DataSummary,
    method: str | Callable[..., Any],
    n_components: int,
    n_init: int,
    random_state: np.random.RandomState,
    reg_covar: float,
    covariance_type: str,
) -> list[State]:
    """States in which each sample belongs wholly to the nearest centre of a start, or to all components by chance.

    Parameters
    ----------
    source, found : Source, Survey
        Samples and what is known of them.
    method : {"kmeans", "k-means++", "k-means||", "random", "random_from_data"} or callable
        See `GaussianMixture`.
    n_components, n_init : int
        Centres of a start, and starts.
    random_state : RandomState
        Draws the centres, or the shares.
    reg_covar, covariance_type
        See `GaussianMixture`.
    """
    if method == "random":
        seeds = random_state.randint(np.iinfo(np.int32).max, size=n_init).tolist()
        statistics = random_pass(source, seeds, n_components, covariance_type)
        return [m_step(statistics, i, reg_covar, covariance_type) for i in range(n_init)]
    if callable(method) or method == "k-means||":
        find = method if callable(method) else _dask_ml
        centres = [_outside(find, source, n_components, random_state) for _ in range(n_init)]
    else:
        rows, weights = distinct(*gather(source, found, random_state))
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


def _outside(
    find: Callable[..., Any], source: Source, n_components: int, random_state: np.random.RandomState
) -> Floats:
    """Centres of a function that takes dask arrays as dask-ml does, in the face of scikit-learn's ``KMeans(init=)``."""
    if not isinstance(source, (Rows, Chunks)) or source.weights is not None:
        raise ModelError(
            "this way to start takes no sample_weight, and counts are weights: use init_params='kmeans', or samples "
            "of a float type without weights"
        )
    x = source.x if isinstance(source, Chunks) else da.from_array(source.x, chunks=(FEW_ROWS, -1))
    seed = int(random_state.randint(np.iinfo(np.int32).max))
    centres = np.asarray(find(x.astype(np.float64), n_components, random_state=seed), np.float64)
    if centres.shape != (n_components, source.n_features):
        raise ModelError(
            f"init_params gave centres of shape {centres.shape}, not {(n_components, source.n_features)}: "
            "return one row a component"
        )
    return centres


def _dask_ml(x: da.Array, n_clusters: int, random_state: int) -> Any:
    # Only who asks for it waits for dask-ml, which imports half of a machine learning stack.
    from dask_ml.cluster.k_means import k_init

    return k_init(x, n_clusters, random_state=random_state)


def distinct(rows: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Distinct rows in ascending order and their weights, the heaviest 1.

    Neither the order of samples nor whether copies come one by one or as weights can then tell on a start.
    """
    order = np.lexsort(rows.T[::-1])
    rows, weights = rows[order], weights[order]
    first = np.concatenate([[True], np.any(rows[1:] != rows[:-1], axis=1)])
    summed = np.add.reduceat(weights, np.flatnonzero(first))
    return rows[first], summed / summed.max()


def gather(source: Source, found: DataSummary, random_state: np.random.RandomState) -> tuple[Floats, Floats]:
    """All rows with their weights where they are few, else a coreset of them."""
    if found.rows.sum() <= FEW_ROWS:
        parts = source.each(_all_rows)
    else:
        spread = found.spread.sum()
        chance = found.weights / found.weights.sum()
        if spread > 0:
            chance = (chance + found.spread / spread) / 2
        draws = random_state.multinomial(CORESET_ROWS, chance / chance.sum())
        seeds = random_state.randint(np.iinfo(np.int32).max, size=len(draws))
        task = partial(_draw, mean=found.mean, weight=float(found.weights.sum()), spread=float(spread))
        parts = source.each(task, list(zip(draws.tolist(), seeds.tolist(), strict=True)))
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([weights for _, weights in parts])


def _all_rows(x: Any, weights: Any, index: int, sent: None) -> tuple[Floats, Floats]:
    blocks = list(rows_in_blocks(x, weights))
    rows = [block for block, _ in blocks] or [np.zeros((0, x.shape[1]))]
    return np.concatenate(rows), np.concatenate([share for _, share in blocks] or [np.zeros(0)])


def _draw(
    x: Any, weights: Any, index: int, sent: tuple[int, int], mean: Floats, weight: float, spread: float
) -> tuple[Floats, Floats]:
    draws, seed = sent
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
    # Draws by the running sum: k copies in a row and one row of weight k are hit alike.
    running = np.cumsum(chance)
    places = np.sort(np.random.RandomState(seed).uniform(size=draws)) * running[-1]
    hit = np.minimum(np.searchsorted(running, places, side="right"), len(running) - 1)
    original = hit if weights is None else np.flatnonzero(np.asarray(weights) > 0)[hit]
    return np.asarray(x[original], np.float64), share[hit] / chance[hit]
