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
from sklearn.cluster import KMeans

from lungmix.mixture.estimator import GaussianMixture
from lungmix.mixture.fits import PAPER
from lungmix.mixture.model import TissueModel
from lungmix.mixture.threads import one_thread

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


def winning_start(values: npt.NDArray[Any], counts: npt.NDArray[Any], options: EmOptions) -> TissueModel:
    """The k-means start whose EM on counts ends highest: k-means on counts is k-means on all voxels.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU, ascending, and the voxels of each.
    options : EmOptions
        Starts, components, seed; the same seed gives the starts of `lungmix.GaussianMixture`.
    """
    hu, voxels = np.asarray(values, np.float64), np.asarray(counts, np.float64)
    random = np.random.RandomState(options.random_state)
    with one_thread():
        starts = [_start(hu, voxels, options, random) for _ in range(options.n_init)]
        ends = [_mixture(options, start).fit(values, sample_weight=voxels).lower_bound_ for start in starts]
    return starts[int(np.argmax(ends))]


def fit_batch(x: da.Array, start: TissueModel, options: EmOptions) -> TissueModel:
    """Full-batch EM: every iteration passes over all voxels.

    Parameters
    ----------
    x : dask array of float64, shape (n,)
        HU, clipped.
    start : TissueModel
        From `winning_start`.
    options : EmOptions
        When EM ends.
    """
    mixture = _mixture(options, start).fit(x)
    return _named(TissueModel.from_sklearn(mixture), "em", int(x.shape[0]), options)


def fit_minibatch(
    x: da.Array, start: TissueModel, options: EmOptions, *, batches: int = BATCHES, passes: int = PASSES
) -> TissueModel:
    """Incremental EM: parameters move after every batch of blocks, which the seed puts in order.

    The statistics of a batch replace those that it had on the pass before (Neal and Hinton 1998), so the sums are
    always those of the whole, and only three numbers a component and batch are kept.

    Parameters
    ----------
    x : dask array of float64, shape (n,)
        HU, clipped; a block is read as a whole.
    start : TissueModel
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
    kept: dict[int, Floats] = {}
    model, bound = start, 0.0
    for _ in range(passes):
        bound = 0.0
        for number, part in enumerate(dealt):
            found = dask.compute([dask.delayed(_statistics)(blocks[i], model) for i in part])[0]
            kept[number] = reduce(np.add, [sums for sums, _ in found])
            bound += sum(value for _, value in found)
            model = _maximum(reduce(np.add, kept.values()), options.reg_covar)
    voxels = int(x.shape[0])
    fit = {"n_iter": passes * len(dealt), "log_likelihood": bound / voxels, "converged": True}
    return _named(replace(model, fit=fit), "minibatch", voxels, options)


def _start(hu: Floats, voxels: Floats, options: EmOptions, random: np.random.RandomState) -> TissueModel:
    # Relative weights keep the inertia in range; the clusters are the same.
    means = KMeans(n_clusters=options.n_components, n_init=1, random_state=random)
    nearest = means.fit(hu[:, None], sample_weight=voxels / voxels.max()).labels_
    belongs = voxels * (nearest == np.arange(options.n_components)[:, None])
    return _maximum(np.stack([belongs.sum(axis=1), belongs @ hu, belongs @ hu**2], axis=0), options.reg_covar)


def _mixture(options: EmOptions, start: TissueModel) -> Any:
    return GaussianMixture(
        options.n_components, "full", 1, options.tol, options.reg_covar, options.max_iter, options.random_state,
        weights_init=np.array(start.weights), means_init=np.array(start.means)[:, None],
        covariances_init=np.array(start.variances)[:, None, None],
    )  # fmt: skip


def _named(model: TissueModel, method: str, voxels: int, options: EmOptions) -> TissueModel:
    extra = {"voxels": voxels, "n_init": options.n_init, "tol": options.tol, "random_state": options.random_state}
    return replace(model, fit={"name": PAPER, "method": method, **model.fit, **extra})


def _statistics(block: Floats, model: TissueModel) -> tuple[Floats, float]:
    """Sums of responsibilities times 1, HU and HU²: shape (3, k); and the log-likelihood of the block."""
    joint = model.log_densities(block).T
    each = np.logaddexp.reduce(joint, axis=0)
    r = np.exp(joint - each)
    return np.stack([r.sum(axis=1), r @ block, r @ block**2]), float(each.sum())


def _maximum(sums: Floats, reg_covar: float) -> TissueModel:
    """The mixture that sums as those of `_statistics` are the most likely under."""
    n = sums[0] + 10 * np.finfo(np.float64).eps
    means = sums[1] / n
    variances = np.maximum(sums[2] / n - means**2, 0.0) + reg_covar
    return TissueModel(tuple((n / n.sum()).tolist()), tuple(means.tolist()), tuple(variances.tolist()))
