"""E-step over rows of many features by matrix products."""

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
    """Return the sufficient statistics of samples, shape (n, d), under s states of k components.

    Parameters
    ----------
    x, weights : ndarray, shape (n, d) and (n,)
        Samples and their positive weights.
    means, factors, offsets : ndarray
        Arrays of shapes (s, k, d), (s, k, d, d) or (s, k, d), and (s, k), as returned by `factors_of`.
    products : bool
        True if the scatter holds products of features, False if squares only.
    hard : bool
        True to assign each sample to the component of highest density alone.
    """
    # Chunks already run in parallel: BLAS threads would only compete.
    with threadpool_limits(1, "blas"):
        return combine_all(list(_blocks(x, weights, means, factors, offsets, products, hard)))


def stack_states(weight: float, single: Sequence[Statistics]) -> Statistics:
    """Stack the statistics of single states."""
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
    """Return the statistics of samples from their weighted responsibilities, shape (k, n).

    Sums are centred at `means`, shape (k, d), which should be near the samples.
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
