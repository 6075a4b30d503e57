"""Starts of EM: k-means on weighted samples, or what the user gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from lungmix.mixture.em import Floats


def kmeans_responsibilities(
    x: Floats, weights: Floats, n_components: int, random_state: np.random.RandomState
) -> Floats:
    """Each sample belongs wholly to its k-means cluster, as in scikit-learn's mixture.

    Parameters
    ----------
    x : ndarray, shape (n, d)
        Distinct samples.
    weights : ndarray, shape (n,)
        How often each occurs: k-means on them equals k-means on all copies.
    n_components : int
        Clusters.
    random_state : RandomState
        Draws the first centres.

    Returns
    -------
    ndarray, shape (n, n_components)
        0 or 1.
    """
    # Relative weights keep the inertia in range; the clusters are the same.
    means = KMeans(n_clusters=n_components, n_init=1, random_state=random_state)
    labels: npt.NDArray[np.int32] = means.fit(x, sample_weight=weights / weights.max()).labels_
    out = np.zeros((len(x), n_components))
    out[np.arange(len(x)), labels] = 1.0
    return out
