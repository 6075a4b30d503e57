"""Starting values by assigning each sample to all components in random proportions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from lungmix.mixture.blas import moments, stack_states
from lungmix.mixture.em_kernels import empty, rows_in_blocks
from lungmix.mixture.parameters import Floats
from lungmix.mixture.sufficient_statistics import Statistics, combine_all

_BLOCK = 4096
_STEP = 0x9E3779B97F4A7C15


def assign_randomly(
    x: npt.NDArray[np.generic],
    weights: npt.NDArray[np.generic] | None,
    seeds: Sequence[int],
    n_components: int,
    covariance_type: str,
) -> Statistics:
    """Return the statistics of samples that belong to all components in random proportions, one state per seed.

    Parameters
    ----------
    x : ndarray, shape (n, d)
        Samples of any real dtype.
    weights : ndarray, shape (n,), or None
        Sample weights; None means that each is 1.
    seeds : sequence of int
        One seed per state.
    n_components : int
        Number of components of each state.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.
    """
    products = covariance_type in ("full", "tied")
    parts = []
    with threadpool_limits(1, "blas"):
        for block, block_weights in rows_in_blocks(x, weights):
            for start in range(0, len(block), _BLOCK):
                rows, share = block[start : start + _BLOCK], block_weights[start : start + _BLOCK]
                near = np.repeat(rows[:1], n_components, axis=0)
                states = [
                    moments(rows, share, share * random_shares(rows, seed, n_components), near, products)
                    for seed in seeds
                ]
                parts.append(stack_states(float(share.sum()), states))
    return combine_all(parts) if parts else empty(np.zeros((len(seeds), n_components, x.shape[1])), products)


def random_shares(x: Floats, seed: int, k: int) -> Floats:
    """Return, for each row, k uniform random numbers that are divided by their sum; shape (k, n).

    The numbers depend only on the values of the row and on the seed. So the order of rows and the chunks have no
    effect, and duplicates have the same effect as one row with a higher weight.
    """
    hashed = _scramble(np.full(len(x), seed, np.uint64))
    for column in np.ascontiguousarray((x + 0.0).T).view(np.uint64):  # + 0.0 makes -0.0 and 0.0 one value
        hashed = _scramble(hashed ^ column)
    numbers = np.stack([_scramble(hashed + np.uint64((c + 1) * _STEP % 2**64)) >> np.uint64(11) for c in range(k)])
    uniform = (numbers + 0.5) * 2.0**-53
    return np.asarray(uniform / uniform.sum(axis=0))


def _scramble(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix 64 bits so that each bit of the input flips about half of the output (SplitMix64)."""
    bits = bits + np.uint64(_STEP)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
