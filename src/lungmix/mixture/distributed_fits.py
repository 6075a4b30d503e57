"""Fits of the mixture to all voxels of a cohort on a cluster, by EM over a dask array.

These are the methods ``em`` (full passes) and ``minibatch`` for the fit `paper`. Both begin at the k-means start that
is best on the histogram. The default method fits the histogram only, which gives the same result as ``em``, because the
histogram holds all that a fit needs of the voxels. The two methods serve to verify this, and as examples for data
without histograms.
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
"""Number of voxels in a minibatch."""

PASSES = 2
"""Number of passes over all voxels in minibatches."""


@dataclass(frozen=True)
class EmOptions:
    """Settings of EM; for their meaning see the parameters of `lungmix.GaussianMixture`."""

    n_components: int = 5
    n_init: int = 6
    tol: float = 1e-3
    reg_covar: float = 1e-6
    max_iter: int = 100
    random_state: int = 0


def winning_start(values: npt.NDArray[Any], counts: npt.NDArray[Any], options: EmOptions) -> TissueModel:
    """Return, of several k-means starts, the one from which EM reaches the highest likelihood on the histogram.

    k-means on the histogram gives the same result as k-means on all voxels.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU, ascending, and the number of voxels of each.
    options : EmOptions
        Settings of EM. The same seed gives the same starts as `lungmix.GaussianMixture`.
    """
    hu, voxels = np.asarray(values, np.float64), np.asarray(counts, np.float64)
    random = np.random.RandomState(options.random_state)
    with one_thread():
        starts = [_start(hu, voxels, options, random) for _ in range(options.n_init)]
        ends = [fitted(_mixture(options, start), values, voxels).fit_info["log_likelihood"] for start in starts]
    return starts[int(np.argmax(ends))]


def fit_batch(x: da.Array, start: TissueModel, options: EmOptions) -> TissueModel:
    """Fit by EM in which every iteration passes over all voxels.

    Parameters
    ----------
    x : dask array of float64, shape (n,)
        Clipped HU of all voxels.
    start : TissueModel
        Starting values, the result of `winning_start`.
    options : EmOptions
        Settings of EM.
    """
    return _with_fit_info(fitted(_mixture(options, start), x), "em", int(x.shape[0]), options)


def fit_minibatch(x: da.Array, start: TissueModel, options: EmOptions) -> TissueModel:
    """Fit by stepwise EM: parameters are updated after every minibatch, in two passes over all voxels.

    Parameters
    ----------
    x : dask array of float64, shape (n,)
        Clipped HU of all voxels. The voxels of a few blocks at a time are shuffled.
    start : TissueModel
        Starting values, the result of `winning_start`.
    options : EmOptions
        Settings of EM, of which seed, `tol` and `reg_covar` are used.
    """
    mixture = _mixture(options, start, max_iter=PASSES, batch_size=MINIBATCH)
    return _with_fit_info(fitted(mixture, x), "minibatch", int(x.shape[0]), options)


def _start(hu: Floats, voxels: Floats, options: EmOptions, random: np.random.RandomState) -> TissueModel:
    # Divide weights by the largest one, so that the inertia of k-means does not overflow; the clusters are the same.
    means = KMeans(n_clusters=options.n_components, n_init=1, random_state=random)
    nearest = means.fit(hu[:, None], sample_weight=voxels / voxels.max()).labels_
    assigned = voxels * (nearest == np.arange(options.n_components)[:, None])
    return _maximum(np.stack([assigned.sum(axis=1), assigned @ hu, assigned @ hu**2], axis=0), options.reg_covar)


def _mixture(options: EmOptions, start: TissueModel, **overrides: Any) -> GaussianMixture:
    parts = {
        "weights_init": np.array(start.weights),
        "means_init": np.array(start.means)[:, None],
        "covariances_init": np.array(start.variances)[:, None, None],
    }
    return GaussianMixture(**{**asdict(options), "n_init": 1, **parts, **overrides})


def _with_fit_info(model: TissueModel, method: str, voxels: int, options: EmOptions) -> TissueModel:
    extra = {"voxels": voxels, "n_init": options.n_init, "tol": options.tol, "random_state": options.random_state}
    return replace(model, fit_info={"name": PAPER, "method": method, **model.fit_info, **extra})


def _maximum(sums: Floats, reg_covar: float) -> TissueModel:
    """Return the mixture of maximum likelihood, given the sums of weights, of HU and of HU² per component, (3, k)."""
    n = sums[0] + 10 * np.finfo(np.float64).eps
    means = sums[1] / n
    variances = np.maximum(sums[2] / n - means**2, 0.0) + reg_covar
    return TissueModel(tuple((n / n.sum()).tolist()), tuple(means.tolist()), tuple(variances.tolist()))
