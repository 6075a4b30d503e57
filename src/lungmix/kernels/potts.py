"""Labels under a Potts prior: mean-field iterations over the 6 neighbours of each voxel of a mask.

An iteration multiplies the density of each component at the HU of a voxel by ``exp(beta * s)``, where ``s`` is the
weighted sum of the present posteriors of the component in the 6 neighbours, and divides the products by their sum.
All voxels are updated at once, from the posteriors of the iteration before; the first ones are those by HU. Neighbours
outside the mask do not count.

The result does not depend on how a volume is divided or stored. For sums over neighbours, posteriors are rounded to
multiples of 1/4096 and weights to multiples of 1/256, so that these sums are exact in float32 in any order. All other
operations are single float32 operations in a fixed order. The exponential is a polynomial, since those of libraries
differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError
from lungmix.kernels.jit import kernel
from lungmix.kernels.packed_masks import span_of
from lungmix.parameters import LARGEST_BETA, POTTS_ITERATIONS

Labels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

Tables = tuple[Floats, Floats]
"""Posteriors and densities of each component by HU, see `tables_of`."""

BAND_BYTES = 8 << 20
"""Bytes of the posteriors of a band of rows, of which a few planes of each iteration are in memory."""

WEIGHT_UNITS = 256
_POSTERIOR_UNITS = 4096
_THINNEST_BAND = 16
# 2^f for |f| <= 1/2 is 1 + f * (polynomial of f), from exp2f of the Cephes library; largest relative error 2e-7.
_C0, _C1, _C2 = np.float32(6.931472028550421e-1), np.float32(2.402264791363012e-1), np.float32(5.550332471162809e-2)
_C3, _C4, _C5 = np.float32(9.618437357674640e-3), np.float32(1.339887440266574e-3), np.float32(1.535336188319500e-4)
_HALF = np.float32(0.5)
_SCALE = np.float32(_POSTERIOR_UNITS)
_TINY = 1e-30


def axis_weights(spacing: Sequence[float]) -> tuple[int, int, int]:
    """Return the weights of a neighbour along each axis, in units of 1/256.

    Weights are inversely proportional to the spacing, which makes the energy of a border between two labels
    proportional to its area: the face between two neighbours is larger the shorter their distance. The mean of the
    three weights is 1.

    Parameters
    ----------
    spacing : sequence of float
        Spacing along the axes z, y, x, in mm.
    """
    inverse = [1.0 / float(step) for step in spacing]
    z, y, x = (round(WEIGHT_UNITS * 3.0 * value / sum(sorted(inverse))) for value in inverse)
    return z, y, x


def tables_of(weights: Sequence[float], means: Sequence[float], variances: Sequence[float]) -> Tables:
    """Return the posteriors and the densities of the components of a mixture by HU.

    Parameters
    ----------
    weights, means, variances : sequence of float
        Parameters of the mixture.

    Returns
    -------
    tuple of ndarray of float32, shape (components, 65536)
        Posteriors, and densities divided by their sum, so that they are the posteriors of a mixture of equal weights.
        Entry ``i`` is for ``i - 32768`` HU.
    """
    hu = np.arange(-32768, 32768, dtype=np.float64)
    variance = np.array(variances, np.float64)[:, None]
    logs = -0.5 * (np.log(variance) + (hu - np.array(means, np.float64)[:, None]) ** 2 / variance)
    weighted = logs + np.log(np.array(weights, np.float64))[:, None]
    posteriors, densities = (_shares(table) for table in (weighted, logs))
    return posteriors, densities


def _shares(logs: npt.NDArray[np.float64]) -> Floats:
    shares = np.exp(logs - logs.max(axis=0))
    shares /= shares.sum(axis=0)
    return np.where(shares < _TINY, 0.0, shares).astype(np.float32)


def potts_labels(
    hu: npt.NDArray[np.int16],
    mask: Labels,
    tables: Tables,
    weights: tuple[int, int, int],
    beta: float,
    iterations: int = POTTS_ITERATIONS,
    core: slice = slice(None),
) -> Labels:
    """Return the component of the highest posterior under a Potts prior.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        HU of the slices `core` and of up to `iterations` slices on each side, which have to be given where the volume
        has them.
    mask : ndarray of uint8, same shape
        Voxels other than 0 are labelled.
    tables : tuple of ndarray
        Posteriors and densities by HU, see `tables_of`.
    weights : tuple of int
        Weights of a neighbour along z, y and x, see `axis_weights`.
    beta : float
        Strength of the prior, 0 to 10.
    iterations : int
        Number of iterations, 1 or more.
    core : slice
        Slices to label; by default all.

    Returns
    -------
    ndarray of uint8
        Labels of the slices `core`, from 1; 0 outside the mask. Ties go to the smaller label.
    """
    return _sweep(hu, mask, tables, weights, beta, iterations, core, keep=False)[0]


def potts_posteriors(
    hu: npt.NDArray[np.int16],
    mask: Labels,
    tables: Tables,
    weights: tuple[int, int, int],
    beta: float,
    iterations: int = POTTS_ITERATIONS,
    core: slice = slice(None),
) -> Floats:
    """Return the posteriors after the last iteration: float32 ``[component, z, y, x]``, 0 outside the mask.

    Parameters are those of `potts_labels`.
    """
    return _sweep(hu, mask, tables, weights, beta, iterations, core, keep=True)[1]


def band_bytes(ny: int, nx: int, n_components: int, iterations: int = POTTS_ITERATIONS) -> int:
    """Return the bytes of the posteriors that are in memory for a band of rows."""
    rows = min(ny, _band_rows(nx, n_components, iterations) + 2 * iterations)
    return (rows + 2) * _row_bytes(nx, n_components, iterations)


def _row_bytes(nx: int, n_components: int, iterations: int) -> int:
    return iterations * 3 * n_components * (nx + 2) * 2


def _band_rows(nx: int, n_components: int, iterations: int) -> int:
    fitting = BAND_BYTES // _row_bytes(nx, n_components, iterations) - 2 * iterations - 2
    return max(fitting, _THINNEST_BAND)


def _sweep(
    hu: npt.NDArray[np.int16],
    mask: Labels,
    tables: Tables,
    weights: tuple[int, int, int],
    beta: float,
    iterations: int,
    core: slice,
    *,
    keep: bool,
) -> tuple[Labels, Floats]:
    if iterations < 1:
        raise UsageError(f"{iterations} iterations are not possible: give 1 or more")
    depth, ny, nx = hu.shape
    first, last, _ = core.indices(depth)
    count = len(tables[0])
    labels = np.zeros((last - first, ny, nx), np.uint8)
    kept = np.zeros((count if keep else 0, last - first, ny, nx), np.float32)
    if not labels.size:
        return labels, kept
    hu, mask = np.ascontiguousarray(hu), np.ascontiguousarray(mask)
    spans = _spans(mask)
    mask_rows = span_of(spans[..., 1].any(axis=0))
    if mask_rows is None:
        return labels, kept
    # exp(beta * s) is 2 to the power of `scale` times the integer sum over the neighbours.
    scale = np.float32(beta / np.log(2.0) / (_POSTERIOR_UNITS * WEIGHT_UNITS))
    floats = np.array(weights, np.float32)
    low, high = mask_rows.start, mask_rows.stop
    bands = -(-(high - low) // _band_rows(nx, count, iterations))
    edges = np.linspace(low, high, bands + 1).astype(int).tolist()
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        rows = min(ny, end + iterations) - max(0, begin - iterations)
        # The ring of a band is freed before that of the next one is made.
        shape = iterations, 3, rows + 2, count, nx + 2
        _band(hu, mask, spans, *tables, floats, scale, np.zeros(shape, np.int16), first, last, begin, end, labels, kept)
    return labels, kept


@kernel()
def _spans(mask):  # type: ignore[no-untyped-def]
    """Return begin and end of the voxels of the mask in each row: 0 and 0 in rows without any."""
    depth, ny, nx = mask.shape
    spans = np.zeros((depth, ny, 2), np.int32)
    for z in range(depth):
        for y in range(ny):
            row = mask[z, y]
            end = nx
            while end and not row[end - 1]:
                end -= 1
            begin = 0
            while begin < end and not row[begin]:
                begin += 1
            if end:
                spans[z, y, 0] = begin
                spans[z, y, 1] = end
    return spans


@kernel()
def _band(  # type: ignore[no-untyped-def]
    hu, mask, spans, posteriors, densities, weights, scale, ring, first, last, begin, end, labels, kept
):
    # Iteration t of plane z needs iteration t - 1 of the planes z - 1 to z + 1. So plane z of iteration 0 is followed
    # by plane z - 1 of iteration 1, and so on, and the ring holds three planes of each iteration. They have an empty
    # row and column on each side.
    depth, ny, nx = hu.shape
    count = len(densities)
    iterations = len(ring)
    low = max(0, begin - iterations)
    rows = ring.shape[2] - 2
    is_set = np.zeros((iterations, 3, rows + 2), np.bool_)
    products = np.empty((count, nx), np.float32)
    total = np.empty(nx, np.float32)
    value = np.empty(nx, np.float32)
    bits = np.empty(nx, np.int32)
    power = bits.view(np.float32)
    for step in range(max(0, first - iterations), last + iterations):
        for t in range(iterations + 1):
            z = step - t
            # Only what later iterations of the core need is computed.
            rest = iterations - t
            if z < 0 or z < first - rest or z > depth or (z != depth and z >= last + rest):
                continue
            if t < iterations:
                for r in range(rows + 2):
                    if is_set[t, z % 3, r]:
                        ring[t, z % 3, r] = 0
                        is_set[t, z % 3, r] = False
            if z == depth:
                continue
            for y in range(max(low, begin - rest), min(ny, end + rest)):
                x = spans[z, y, 0]
                stop = spans[z, y, 1]
                r = y - low + 1
                if t < iterations and stop:
                    is_set[t, z % 3, r] = True
                while x < stop:
                    while x < stop and not mask[z, y, x]:
                        x += 1
                    start = x
                    while x < stop and mask[z, y, x]:
                        x += 1
                    n = x - start
                    if not n:
                        continue
                    values = hu[z, y, start:x]
                    if t == 0:
                        for k in range(count):
                            new = ring[0, z % 3, r, k, start + 1 : x + 1]
                            for i in range(n):
                                new[i] = np.int16(posteriors[k, np.int64(values[i]) + 32768] * _SCALE + _HALF)
                        continue
                    for i in range(n):
                        total[i] = np.float32(0)
                    for k in range(count):
                        above = ring[t - 1, (z + 2) % 3, r, k, start + 1 : x + 1]
                        below = ring[t - 1, (z + 1) % 3, r, k, start + 1 : x + 1]
                        front = ring[t - 1, z % 3, r - 1, k, start + 1 : x + 1]
                        back = ring[t - 1, z % 3, r + 1, k, start + 1 : x + 1]
                        left = ring[t - 1, z % 3, r, k, start:x]
                        right = ring[t - 1, z % 3, r, k, start + 2 : x + 2]
                        for i in range(n):
                            s = weights[0] * (np.float32(above[i]) + np.float32(below[i]))
                            s += weights[1] * (np.float32(front[i]) + np.float32(back[i]))
                            s += weights[2] * (np.float32(left[i]) + np.float32(right[i]))
                            exponent = s * scale
                            whole_part = np.int32(exponent + _HALF)
                            f = exponent - np.float32(whole_part)
                            p = _C5 * f + _C4
                            p = p * f + _C3
                            p = p * f + _C2
                            p = p * f + _C1
                            p = p * f + _C0
                            value[i] = p * f + np.float32(1)
                            bits[i] = (whole_part + np.int32(127)) << np.int32(23)
                        product = products[k]
                        for i in range(n):
                            product[i] = densities[k, np.int64(values[i]) + 32768]
                        for i in range(n):
                            product[i] = product[i] * value[i] * power[i]
                            total[i] += product[i]
                    if t < iterations:
                        for i in range(n):
                            total[i] = _SCALE / total[i]
                        for k in range(count):
                            product = products[k]
                            new = ring[t, z % 3, r, k, start + 1 : x + 1]
                            for i in range(n):
                                new[i] = np.int16(product[i] * total[i] + _HALF)
                        continue
                    out = labels[z - first, y, start:x]
                    for i in range(n):
                        best = np.float32(-1)
                        for k in range(count):
                            if products[k, i] > best:
                                best = products[k, i]
                                out[i] = k + 1
                    for k in range(len(kept)):
                        for i in range(n):
                            kept[k, z - first, y, start + i] = products[k, i] / total[i]


_CODES = 8**6
"""Number of codes of six neighbours, with three bits for each."""
_OUTSIDE = 7


def count_neighbours(labels: Labels, core: slice = slice(None)) -> npt.NDArray[np.int64]:
    """Return the number of voxels for each arrangement of labels among a voxel and its 6 neighbours.

    An arrangement says which of the labels are equal, but not which labels they are, so that its size does not depend
    on the number of labels.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        Labels of the slices `core` and of one slice on each side, where the volume has one; 0 outside the mask.
    core : slice
        Slices whose voxels are counted; by default all.

    Returns
    -------
    ndarray of int64, shape (262144,)
        Counts by code. The code has three bits for each neighbour, in the order -z, +z, -y, +y, -x, +x: 0 for the label
        of the voxel, 1 to 6 for other labels in the order in which they occur, and 7 outside the mask.
    """
    counts = np.zeros(_CODES, np.int64)
    first, last, _ = core.indices(len(labels))
    if not labels.size:
        return counts
    labels = np.ascontiguousarray(labels)
    if labels.max() < 8:
        raw = np.zeros(8**7, np.int32)
        _count_small(labels, first, last, raw)
        _add_small(raw, counts)
    else:
        _count(labels, first, last, counts)
    return counts


def estimate_beta(
    codes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], weights: tuple[int, int, int], n_labels: int
) -> float:
    """Return the beta that maximizes the pseudo-likelihood of a label map, rounded to four decimals.

    The pseudo-likelihood is the product of the probabilities of all labels given the labels of their neighbours
    (Besag 1975). Its logarithm is concave in beta.

    Parameters
    ----------
    codes, counts : ndarray of int64
        Codes of arrangements, ascending, and the number of voxels of each in the label map, see `count_neighbours`.
    weights : tuple of int
        See `axis_weights`.
    n_labels : int
        Number of labels, at least 2.

    Returns
    -------
    float
        From 0, also where neighbours agree less often than by chance, to 10.
    """
    numbers = counts.astype(np.float64)
    neighbours = (codes[:, None] >> (3 * np.arange(6))) & 7
    weight = np.repeat(np.array(weights, np.float64) / WEIGHT_UNITS, 2)
    # Weighted neighbours of each of the labels 0 (that of the voxel) to 6, and how many of all labels these are.
    sums = ((neighbours[:, None, :] == np.arange(_OUTSIDE)[:, None]) * weight).sum(axis=2)
    others = np.where(neighbours == _OUTSIDE, 0, neighbours).max(axis=1, initial=0)
    absent = n_labels - 1 - others
    is_present = np.arange(_OUTSIDE) <= others[:, None]

    def slope(beta: float) -> float:
        powers = np.where(is_present, np.exp(beta * sums), 0.0)
        expected = (powers * sums).sum(axis=1) / (powers.sum(axis=1) + absent)
        return float((numbers * (sums[:, 0] - expected)).sum())

    low, high = 0.0, LARGEST_BETA
    if n_labels < 2 or not codes.size or slope(low) <= 0:
        return low
    if slope(high) >= 0:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return round((low + high) / 2, 4)


@kernel()
def _count_small(labels, first, last, raw):  # type: ignore[no-untyped-def]
    # The code of a voxel has three bits for its label and for those of its neighbours.
    depth, ny, nx = labels.shape
    codes = np.empty(nx, np.int32)
    outside = np.zeros(nx, np.uint8)
    for z in range(first, last):
        for y in range(ny):
            row = labels[z, y]
            begin, end = 0, nx
            while end and not row[end - 1]:
                end -= 1
            while begin < end and not row[begin]:
                begin += 1
            if not end:
                continue
            above = labels[z - 1, y] if z else outside
            below = labels[z + 1, y] if z + 1 < depth else outside
            front = labels[z, y - 1] if y else outside
            back = labels[z, y + 1] if y + 1 < ny else outside
            for x in range(begin, end):
                code = np.int32(row[x]) << np.int32(18)
                code |= np.int32(above[x]) | (np.int32(below[x]) << np.int32(3))
                code |= (np.int32(front[x]) << np.int32(6)) | (np.int32(back[x]) << np.int32(9))
                codes[x] = code
            for x in range(begin, end):
                if row[x]:
                    code = codes[x]
                    if x:
                        code |= np.int32(row[x - 1]) << np.int32(12)
                    if x + 1 < nx:
                        code |= np.int32(row[x + 1]) << np.int32(15)
                    raw[code] += 1


@kernel()
def _add_small(raw, counts):  # type: ignore[no-untyped-def]
    near = np.zeros(6, np.uint8)
    for code in range(len(raw)):
        if raw[code]:
            for i in range(6):
                near[i] = (code >> (3 * i)) & 7
            counts[_arrangement(np.uint8(code >> 18), near)] += raw[code]


@kernel()
def _count(labels, first, last, counts):  # type: ignore[no-untyped-def]
    depth, ny, nx = labels.shape
    near = np.zeros(6, np.uint8)
    for z in range(first, last):
        for y in range(ny):
            row = labels[z, y]
            for x in range(nx):
                if not row[x]:
                    continue
                near[0] = labels[z - 1, y, x] if z else 0
                near[1] = labels[z + 1, y, x] if z + 1 < depth else 0
                near[2] = labels[z, y - 1, x] if y else 0
                near[3] = labels[z, y + 1, x] if y + 1 < ny else 0
                near[4] = row[x - 1] if x else 0
                near[5] = row[x + 1] if x + 1 < nx else 0
                counts[_arrangement(row[x], near)] += 1


@kernel()
def _arrangement(label, near):  # type: ignore[no-untyped-def]
    """Return the code of `count_neighbours` for a voxel."""
    code = 0
    others = 0
    for i in range(6):
        digit = 0
        if not near[i]:
            digit = 7
        elif near[i] != label:
            for j in range(i):
                if near[j] == near[i]:
                    digit = (code >> (3 * j)) & 7
                    break
            if not digit:
                others += 1
                digit = others
        code |= digit << (3 * i)
    return code
