"""EM over the voxels themselves, as dask arrays, from the start that wins on counts.

Counts are an exact sufficient statistic, so these two ways give what the counts give. They are for those who want to
see it, and the pattern for data that have no counts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from lungmix.mixture.estimator import GaussianMixture
from lungmix.mixture.fits import PAPER
from lungmix.mixture.model import TissueModel, fitted
from lungmix.mixture.threads import one_thread

Floats = npt.NDArray[np.float64]

MINIBATCH = 5_000
"""Voxels of a step."""

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
        ends = [fitted(_mixture(options, start), values, voxels).fit_info["log_likelihood"] for start in starts]
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
    return _named(fitted(_mixture(options, start), x), "em", int(x.shape[0]), options)


def fit_minibatch(x: da.Array, start: TissueModel, options: EmOptions) -> TissueModel:
    """Stepwise EM: parameters move with every minibatch, twice over all voxels.

    Parameters
    ----------
    x : dask array of float64, shape (n,)
        HU, clipped; a few blocks at a time are dealt out in random order.
    start : TissueModel
        From `winning_start`.
    options : EmOptions
        Seed and least variance.
    """
    mixture = _mixture(options, start, max_iter=PASSES, batch_size=MINIBATCH)
    return _named(fitted(mixture, x), "minibatch", int(x.shape[0]), options)


def _start(hu: Floats, voxels: Floats, options: EmOptions, random: np.random.RandomState) -> TissueModel:
    # Relative weights keep the inertia in range; the clusters are the same.
    means = KMeans(n_clusters=options.n_components, n_init=1, random_state=random)
    nearest = means.fit(hu[:, None], sample_weight=voxels / voxels.max()).labels_
    belongs = voxels * (nearest == np.arange(options.n_components)[:, None])
    return _maximum(np.stack([belongs.sum(axis=1), belongs @ hu, belongs @ hu**2], axis=0), options.reg_covar)


def _mixture(options: EmOptions, start: TissueModel, **changed: Any) -> GaussianMixture:
    parts = {
        "weights_init": np.array(start.weights),
        "means_init": np.array(start.means)[:, None],
        "covariances_init": np.array(start.variances)[:, None, None],
    }
    return GaussianMixture(**{**asdict(options), "n_init": 1, **parts, **changed})


def _named(model: TissueModel, method: str, voxels: int, options: EmOptions) -> TissueModel:
    extra = {"voxels": voxels, "n_init": options.n_init, "tol": options.tol, "random_state": options.random_state}
    return replace(model, fit_info={"name": PAPER, "method": method, **model.fit_info, **extra})


def _maximum(sums: Floats, reg_covar: float) -> TissueModel:
    """The mixture that sums as those of `_statistics` are the most likely under."""
    n = sums[0] + 10 * np.finfo(np.float64).eps
    means = sums[1] / n
    variances = np.maximum(sums[2] / n - means**2, 0.0) + reg_covar
    return TissueModel(tuple((n / n.sum()).tolist()), tuple(means.tolist()), tuple(variances.tolist()))
