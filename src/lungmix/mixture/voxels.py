"""EM over the voxels themselves, as dask arrays, from the start that wins on counts.

Counts are an exact sufficient statistic, so these two ways give what the counts give. They are for those who want to
see it, and the pattern for data that have no counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from lungmix.mixture.em import State, e_step, m_step
from lungmix.mixture.estimator import GaussianMixture
from lungmix.mixture.fits import PAPER
from lungmix.mixture.model import TissueModel
from lungmix.mixture.starts import kmeans_responsibilities

Floats = npt.NDArray[np.float64]

BATCHES = 16
PASSES = 2


@dataclass(frozen=True)
class EmOptions:
    """How EM runs; the names are those of `lungmix.GaussianMixture`."""

    n_components: int = 5
    n_init: int = 6
    tol: float = 1e-3
    reg_covar: float = 1e-6
    max_iter: int = 100
    random_state: int = 0


def winning_start(values: npt.NDArray[Any], counts: npt.NDArray[Any], options: EmOptions) -> State:
    """The k-means start whose EM on counts ends highest: k-means on counts is k-means on all voxels.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU and the voxels of each.
    options : EmOptions
        Starts, components, seed.
    """
    x, weights = np.asarray(values, np.float64)[:, None], np.asarray(counts, np.float64)
    random = check_random_state(options.random_state)
    starts = [
        m_step(x, kmeans_responsibilities(x, weights, options.n_components, random), weights, options.reg_covar, "full")
        for _ in range(options.n_init)
    ]
    bounds = [_mixture(options, start).fit(np.asarray(values, np.int64), sample_weight=weights) for start in starts]
    return starts[int(np.argmax([mixture.lower_bound_ for mixture in bounds]))]


def fit_batch(x: da.Array, start: State, options: EmOptions) -> TissueModel:
    """Full-batch EM: every iteration passes over all voxels.

    Parameters
    ----------
    x : dask array of float64, shape (n,)
        HU, clipped.
    start : State
        From `winning_start`.
    options : EmOptions
        When EM ends.
    """
    mixture = _mixture(options, start).fit(x)
    return _named(TissueModel.from_sklearn(mixture), "em", int(x.shape[0]), options)


def fit_minibatch(
    x: da.Array, start: State, options: EmOptions, *, batches: int = BATCHES, passes: int = PASSES
) -> TissueModel:
    """Incremental EM: parameters move after every batch of blocks, which the seed puts in order.

    The statistics of a batch replace those that it had on the pass before (Neal and Hinton 1998), so the sums are
    always those of the whole, and only three numbers a component and batch are kept.

    Parameters
    ----------
    x : dask array of float64, shape (n,)
        HU, clipped; a block is read as a whole.
    start : State
        From `winning_start`.
    options : EmOptions
        Seed and least variance.
    batches : int
        Parts into which the blocks are dealt.
    passes : int
        Over all voxels.
    """
    blocks = list(x.to_delayed().reshape(-1))
    order = np.random.default_rng(options.random_state).permutation(len(blocks))
    dealt = [part for part in np.array_split(order, min(batches, len(blocks))) if len(part)]
    kept: list[Floats] = []
    state, bounds = start, [0.0]
    for _ in range(passes):
        now = []
        for number, part in enumerate(dealt):
            found = dask.compute([dask.delayed(_statistics)(blocks[i], state) for i in part])[0]
            sums = reduce(np.add, [one for one, _ in found])
            now.append(sum(value for _, value in found))
            if number < len(kept):
                kept[number] = sums
            else:
                kept.append(sums)
            state = _from_statistics(reduce(np.add, kept), options.reg_covar)
        bounds.append(float(np.sum(now)) / float(x.shape[0]))
    model = TissueModel(
        tuple(state.weights.tolist()), tuple(state.means[:, 0].tolist()), tuple(state.covariances[:, 0, 0].tolist()),
        {"n_iter": passes * len(dealt), "log_likelihood": bounds[-1], "converged": True},
    )  # fmt: skip
    return _named(model, "minibatch", int(x.shape[0]), options)


def _mixture(options: EmOptions, start: State) -> Any:
    return GaussianMixture(
        options.n_components, "full", 1, options.tol, options.reg_covar, options.max_iter, options.random_state,
        weights_init=start.weights, means_init=start.means, covariances_init=start.covariances,
    )  # fmt: skip


def _named(model: TissueModel, method: str, voxels: int, options: EmOptions) -> TissueModel:
    extra = {"voxels": voxels, "n_init": options.n_init, "tol": options.tol, "random_state": options.random_state}
    return replace(model, fit={"name": PAPER, "method": method, **model.fit, **extra})


def _statistics(block: Floats, state: State) -> tuple[Floats, float]:
    """Sums of responsibilities times 1, HU and HU²: shape (3, k); and the log-likelihood of the block."""
    x = np.asarray(block, np.float64)[:, None]
    if not len(x):
        return np.zeros((3, len(state.weights))), 0.0
    log_likelihood, log_r = e_step(x, state, "full")
    r = np.exp(log_r)
    return np.stack([r.sum(axis=0), (r * x).sum(axis=0), (r * x * x).sum(axis=0)]), float(log_likelihood.sum())


def _from_statistics(sums: Floats, reg_covar: float) -> State:
    n = sums[0] + 10 * np.finfo(np.float64).eps
    means = sums[1] / n
    variances = np.maximum(sums[2] / n - means**2, 0.0) + reg_covar
    return State(n / n.sum(), means[:, None], variances[:, None, None])
