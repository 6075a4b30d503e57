"""E-step over the rows of a chunk: densities, responsibilities and moments, block by block.

The rows of a block are the last axis of small scratch arrays, so that loops over rows are vectorized. Statistics of
blocks are added pairwise, which keeps rounding errors small: partial sums of 1, 2, 4 ... blocks are kept as the digits
of a binary counter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel
from lungmix.mixture import blas
from lungmix.mixture.parameters import Floats, State, factors_of
from lungmix.mixture.sufficient_statistics import Statistics, combine_all

ROWS_AT_ONCE = 1 << 16
"""Number of rows that are converted to float64 at a time. With d features they take d / 2 MiB."""

_BLOCK = 512
_MAX_FEATURES = 64  # up to this number loops over a block are faster than matrix products, and reproducible
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_EXPONENT = float(2**52 + 1023)
_MIN_EXPONENT = -708.0


def rows_in_blocks(
    x: npt.NDArray[np.generic], weights: npt.NDArray[np.generic] | None
) -> Iterator[tuple[Floats, Floats]]:
    """Yield the rows with a weight above 0 as float64, `ROWS_AT_ONCE` at a time, with their weights.

    Parameters
    ----------
    x : ndarray, shape (n,) or (n, d)
        Samples of any real dtype.
    weights : ndarray, shape (n,), or None
        Sample weights; None means that each is 1.
    """
    for start in range(0, len(x), ROWS_AT_ONCE):
        rows = np.asarray(x[start : start + ROWS_AT_ONCE])
        block = np.ascontiguousarray(rows.reshape(len(rows), -1), np.float64)
        if weights is None:
            yield block, np.ones(len(block))
            continue
        share = np.ascontiguousarray(weights[start : start + ROWS_AT_ONCE], np.float64)
        present = share > 0
        yield (block, share) if present.all() else (block[present], share[present])


def e_step_statistics(
    x: npt.NDArray[np.generic],
    weights: npt.NDArray[np.generic] | None,
    states: Sequence[State],
    covariance_type: str,
) -> Statistics:
    """Return the sufficient statistics of samples under several states, which are sets of parameters of a mixture.

    Parameters
    ----------
    x : ndarray, shape (n,) or (n, d)
        Samples of any real dtype.
    weights : ndarray, shape (n,), or None
        Sample weights; rows of weight 0 are skipped.
    states : sequence of State
        States of equal shapes.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.
    """
    pairs = [factors_of(state, covariance_type) for state in states]
    means = np.stack([state.means for state in states])
    factors, offsets = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    return _pass(x, weights, means, factors, offsets, covariance_type in ("full", "tied"), False)


def assign(
    x: npt.NDArray[np.generic],
    weights: npt.NDArray[np.generic] | None,
    centres: Floats,
    covariance_type: str,
) -> Statistics:
    """Return the statistics of samples that are assigned to the nearest of k centres, for s sets of centres.

    `centres` has the shape (s, k, d).
    """
    products = covariance_type in ("full", "tied")
    return _pass(x, weights, centres, np.ones_like(centres), np.zeros(centres.shape[:2]), products, True)


def _pass(
    x: npt.NDArray[np.generic],
    weights: npt.NDArray[np.generic] | None,
    means: Floats,
    factors: Floats,
    offsets: Floats,
    products: bool,
    hard: bool,
) -> Statistics:
    statistics = _blockwise if means.shape[2] <= _MAX_FEATURES else blas.statistics
    parts = [
        statistics(rows, share, means, factors, offsets, products, hard)
        for rows, share in rows_in_blocks(x, weights)
        if len(rows)
    ]
    return combine_all(parts) if parts else empty(means, products)


def empty(means: Floats, products: bool) -> Statistics:
    """Return the statistics of zero samples; `means`, shape (s, k, d), are placeholders for the undefined means."""
    s, k, d = means.shape
    shape = (s, k, d, d) if products else (s, k, d)
    return Statistics(0.0, np.zeros(s), np.zeros((s, k)), means.copy(), np.zeros(shape))


def _blockwise(
    x: Floats, weights: Floats, means: Floats, factors: Floats, offsets: Floats, products: bool, hard: bool
) -> Statistics:
    s, k, d = means.shape
    width = 1 + d + (d * (d + 1) // 2 if products else d)
    table, likelihood, weight = np.zeros((s, k, width)), np.zeros(s), np.zeros(1)
    full = factors if factors.ndim == 4 else np.zeros((s, k, 0, 0))
    diag = factors if factors.ndim == 3 else np.zeros((s, k, 0))
    _run(x, weights, means, full, diag, offsets, products, hard, table, likelihood, weight)
    if products:
        rows, columns = np.tril_indices(d)
        scatter = np.empty((s, k, d, d))
        scatter[..., rows, columns] = scatter[..., columns, rows] = table[..., 1 + d :]
    else:
        scatter = table[..., 1 + d :].copy()
    return Statistics(float(weight[0]), likelihood, table[..., 0].copy(), table[..., 1 : 1 + d].copy(), scatter)


@kernel()
def _run(x, w, means, full, diag, offsets, products, hard, table, likelihood, weight):  # type: ignore[no-untyped-def]
    n, d = x.shape
    s, k, width = table.shape
    levels = 1
    while (1 << levels) <= (n + _BLOCK - 1) // _BLOCK:
        levels += 1
    sums = np.zeros((levels, s, k, width))
    likelihoods = np.zeros((levels, s))
    weights = np.zeros(levels)
    columns, diff = np.empty((d, _BLOCK)), np.empty((d, _BLOCK))
    r, scratch = np.empty((k, _BLOCK)), np.empty((3, _BLOCK))
    current, current_likelihoods = np.zeros((s, k, width)), np.zeros(s)
    block = 0
    for start in range(0, n, _BLOCK):
        m = min(_BLOCK, n - start)
        total = 0.0
        for b in range(m):
            total += w[start + b]
            for i in range(d):
                columns[i, b] = x[start + b, i]
        share = w[start : start + m]
        for t in range(s):
            for c in range(k):
                if full.shape[2]:
                    _quadratic_full(columns, m, means[t, c], full[t, c], offsets[t, c], r[c], diff, scratch[0])
                else:
                    _quadratic_diag(columns, m, means[t, c], diag[t, c], offsets[t, c], r[c])
            current_likelihoods[t] = _harden(r, m, share, scratch) if hard else _soften(r, m, share, scratch)
            for c in range(k):
                _moments(columns, m, r[c], means[t, c], products, diff, scratch[0], current[t, c])
        level = 0
        while (block >> level) & 1:
            _add(sums[level], current, d, products)
            current[:] = sums[level]
            for t in range(s):
                current_likelihoods[t] += likelihoods[level, t]
            total += weights[level]
            level += 1
        sums[level], likelihoods[level], weights[level] = current, current_likelihoods, total
        block += 1
    first = True
    for level in range(levels):
        if (block >> level) & 1:
            if first:
                table[:] = sums[level]
            else:
                _add(sums[level], table, d, products)
                table[:] = sums[level]
            likelihood += likelihoods[level]
            weight[0] += weights[level]
            first = False


@kernel(fastmath={"contract", "nsz"})
def _quadratic_full(columns, m, mean, factor, offset, out, diff, y):  # type: ignore[no-untyped-def]
    d = len(mean)
    for i in range(d):
        for b in range(m):
            diff[i, b] = columns[i, b] - mean[i]
    for b in range(m):
        out[b] = offset
    for j in range(d):
        f = factor[0, j]
        for b in range(m):
            y[b] = diff[0, b] * f
        for i in range(1, j + 1):
            f = factor[i, j]
            for b in range(m):
                y[b] += diff[i, b] * f
        for b in range(m):
            out[b] -= 0.5 * y[b] * y[b]


@kernel(fastmath={"contract", "nsz"})
def _quadratic_diag(columns, m, mean, factor, offset, out):  # type: ignore[no-untyped-def]
    for b in range(m):
        out[b] = offset
    for i in range(len(mean)):
        f, centre = factor[i], mean[i]
        for b in range(m):
            y = (columns[i, b] - centre) * f
            out[b] -= 0.5 * y * y


@kernel(fastmath={"contract", "nsz"})
def _soften(r, m, w, scratch):  # type: ignore[no-untyped-def]
    """Replace log densities by responsibilities times weights, in place, and return the weighted log-likelihood."""
    k = len(r)
    top, total, power = scratch[0], scratch[1], scratch[2]
    bits = power.view(np.int64)
    for b in range(m):
        top[b] = r[0, b]
        total[b] = 0.0
    for c in range(1, k):
        for b in range(m):
            top[b] = max(top[b], r[c, b])
    for c in range(k):
        # Compute exp(t) as 2^n times a Taylor sum of the rest, t = n ln 2 + rest, with an error below 1e-17. The exp of
        # libm cannot be vectorised.
        for b in range(m):
            t = r[c, b] - top[b]
            gone = t < _MIN_EXPONENT
            t = _MIN_EXPONENT if gone else t
            n = np.floor(t * _LOG2_E + 0.5)
            z = (t - n * _LN2_HIGH) - n * _LN2_LOW
            p = 1 / 6227020800.0
            p = p * z + 1 / 479001600.0
            p = p * z + 1 / 39916800.0
            p = p * z + 1 / 3628800.0
            p = p * z + 1 / 362880.0
            p = p * z + 1 / 40320.0
            p = p * z + 1 / 5040.0
            p = p * z + 1 / 720.0
            p = p * z + 1 / 120.0
            p = p * z + 1 / 24.0
            p = p * z + 1 / 6.0
            p = p * z + 0.5
            p = p * z + 1.0
            p = p * z + 1.0
            r[c, b] = 0.0 if gone else p
            power[b] = n + _EXPONENT
        for b in range(m):
            bits[b] = bits[b] << 52
        for b in range(m):
            r[c, b] *= power[b]
            total[b] += r[c, b]
    likelihood = 0.0
    for b in range(m):
        likelihood += w[b] * (top[b] + math.log(total[b]))
        total[b] = w[b] / total[b]
    for c in range(k):
        for b in range(m):
            r[c, b] *= total[b]
    return likelihood


@kernel()
def _harden(r, m, w, scratch):  # type: ignore[no-untyped-def]
    """Replace log densities, in place, by the weight for the component of highest density and 0 for the others.

    Return the weighted sum of the highest log densities. Of equal densities, the first component counts.
    """
    likelihood = 0.0
    for b in range(m):
        best = 0
        for c in range(1, len(r)):
            if r[c, b] > r[best, b]:
                best = c
        likelihood += w[b] * r[best, b]
        for c in range(len(r)):
            r[c, b] = w[b] if c == best else 0.0
    return likelihood


@kernel(fastmath={"contract", "nsz", "reassoc"})
def _moments(columns, m, r, mean, products, diff, y, out):  # type: ignore[no-untyped-def]
    d = len(mean)
    count = 0.0
    for b in range(m):
        count += r[b]
    out[0] = count
    for i in range(d):
        first, centre = 0.0, mean[i]
        for b in range(m):
            diff[i, b] = columns[i, b] - centre
            first += r[b] * diff[i, b]
        shift = first / count if count > 0 else 0.0
        out[1 + i] = centre + shift
        for b in range(m):
            diff[i, b] -= shift
    index = 1 + d
    for i in range(d):
        for b in range(m):
            y[b] = r[b] * diff[i, b]
        for j in range(0 if products else i, i + 1):
            total = 0.0
            for b in range(m):
                total += y[b] * diff[j, b]
            out[index] = total
            index += 1


@kernel()
def _add(a, b, d, products):  # type: ignore[no-untyped-def]
    """Add the statistics of b to those of a, after Chan, Golub and LeVeque."""
    for t in range(a.shape[0]):
        for c in range(a.shape[1]):
            p, q = a[t, c], b[t, c]
            if q[0] <= 0:
                continue
            if p[0] <= 0:
                p[:] = q
                continue
            share = q[0] / (p[0] + q[0])
            mass = p[0] * share
            index = 1 + d
            for i in range(d):
                gap = q[1 + i] - p[1 + i]
                for j in range(0 if products else i, i + 1):
                    p[index] += q[index] + mass * gap * (q[1 + j] - p[1 + j])
                    index += 1
            for i in range(d):
                p[1 + i] += (q[1 + i] - p[1 + i]) * share
            p[0] += q[0]
