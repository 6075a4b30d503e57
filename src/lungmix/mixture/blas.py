"""E-step for samples with many features, by matrix products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from lungmix.mixture.parameters import Floats
from lungmix.mixture.sufficient_statistics import Statistics, combine_all

_BLOCK = 4096


def statistics(
    x: Floats, weights: Floats, means: Floats, factors: Floats, offsets: Floats, products: bool, hard: bool
) -> Statistics:
    """Return the sufficient statistics of samples under s states, which are sets of parameters of a mixture.

    Parameters
    ----------
    x, weights : ndarray, shape (n, d) and (n,)
        Samples, and their weights, which are above 0.
    means : ndarray, shape (s, k, d)
        Means of the k components of each state.
    factors, offsets : ndarray, shapes (s, k, d, d) or (s, k, d), and (s, k)
        For each state, the result of `lungmix.mixture.parameters.factors_of`.
    products : bool
        True if the scatter holds products of all pairs of features, False if it holds squares only.
    hard : bool
        True to assign each sample only to the component with the highest density.
    """
    # Chunks are already processed in parallel, and threads of BLAS would compete with them.
    with threadpool_limits(1, "blas"):
        return combine_all(list(_blocks(x, weights, means, factors, offsets, products, hard)))


def stack_states(weight: float, single: Sequence[Statistics]) -> Statistics:
    """Return the statistics of several states, given those of each state and the weight of the samples."""
    return Statistics(
        weight,
        np.array([state.log_likelihood[0] for state in single]),
        *(np.concatenate([getattr(state, name) for state in single]) for name in ("counts", "means", "scatter")),
    )


def _blocks(
    x: Floats, weights: Floats, means: Floats, factors: Floats, offsets: Floats, products: bool, hard: bool
) -> Iterator[Statistics]:
    for start in range(0, len(x), _BLOCK):
        rows, share = x[start : start + _BLOCK], weights[start : start + _BLOCK]
        single = [_block(rows, share, means[t], factors[t], offsets[t], products, hard) for t in range(len(means))]
        yield stack_states(float(share.sum()), single)


def _block(
    x: Floats, weights: Floats, means: Floats, factors: Floats, offsets: Floats, products: bool, hard: bool
) -> Statistics:
    logs = np.empty((len(means), len(x)))
    for k, mean in enumerate(means):
        scaled = (x - mean) @ factors[k] if factors.ndim == 3 else (x - mean) * factors[k]
        logs[k] = offsets[k] - 0.5 * np.einsum("ij,ij->i", scaled, scaled)
    top = logs.max(axis=0)
    if hard:
        r = (np.arange(len(means))[:, None] == logs.argmax(axis=0)) * weights
        likelihood = float(weights @ top)
    else:
        with np.errstate(under="ignore"):
            r = np.exp(logs - top)
        total = r.sum(axis=0)
        likelihood = float(weights @ (top + np.log(total)))
        r *= weights / total
    return moments(x, weights, r, means, products, likelihood)


def moments(
    x: Floats, weights: Floats, r: Floats, means: Floats, products: bool, likelihood: float = 0.0
) -> Statistics:
    """Return the statistics of samples for one state, given its responsibilities times weights, `r` of shape (k, n).

    `means`, shape (k, d), are subtracted from the samples first; rounding errors are small if they are near the
    samples.
    """
    counts = r.sum(axis=1)
    local = np.empty_like(means)
    scatter = np.empty((*means.shape, means.shape[1]) if products else means.shape)
    for k, mean in enumerate(means):
        diff = x - mean
        shift = r[k] @ diff / counts[k] if counts[k] > 0 else np.zeros_like(mean)
        local[k] = mean + shift
        diff -= shift
        scatter[k] = (r[k] * diff.T) @ diff if products else r[k] @ diff**2
    return Statistics(float(weights.sum()), np.array([likelihood]), counts[None], local[None], scatter[None])
