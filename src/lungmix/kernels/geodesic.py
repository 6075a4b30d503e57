"""Distances along paths inside a mask (geodesic distances), and region growing, on small volumes.

Results are exact and deterministic.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def chamfer_distance(mask: Mask, spacing_zyx: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    """Return the length of the shortest path from each voxel of a mask, over neighbours, to a voxel outside the mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (z, y, x)
        The mask. Voxels beyond the border of the volume count as outside the mask.
    spacing_zyx : tuple of float
        Voxel spacing along z, y, x, mm.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        Length in mm; 0 outside the mask. Paths use all 26 neighbours, so they exceed the Euclidean distance by at most
        13 %.
    """
    before, lengths = _steps_before(spacing_zyx)
    out = np.where(mask, np.float32(np.inf), np.float32(0)).astype(np.float32)
    _sweep(out, before, lengths, 1)
    _sweep(out, before, lengths, -1)
    return out


def flood(labels: Labels) -> None:
    """Give every unlabelled voxel the label of the nearest labelled voxel, counting steps over faces of voxels.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        Labels, changed in place; 0 is unlabelled. If two labels are equally near, the lower one is taken in every
        second row and the higher one in the other rows, so that neither is preferred.
    """
    queue = np.empty(labels.size, np.int64)
    _flood(labels.reshape(-1), labels.shape, queue)


def geodesic_assign(labels: Labels, domain: Mask, spacing_zyx: tuple[float, float, float]) -> None:
    """Give every unlabelled voxel of a domain the label to which the path inside the domain is shortest.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        Labels, changed in place; 0 is unlabelled. Voxels of the domain that no path connects with a label stay 0. Ties
        between labels are resolved as by `flood`.
    domain : ndarray of bool, same shape
        Voxels that paths may use. A path steps to any of the 26 neighbours.
    spacing_zyx : tuple of float
        Voxel spacing along z, y, x, mm.
    """
    before, lengths = _steps_before(spacing_zyx)
    path = np.where(labels > 0, np.float32(0), np.float32(np.inf)).astype(np.float32)
    while _relax(path, labels, domain, before, lengths, 1) + _relax(path, labels, domain, before, lengths, -1):
        pass


def wave_numbers(seed: Mask, domain: Mask, limit: int) -> npt.NDArray[np.int16]:
    """Return how many steps over faces of voxels, inside a domain, each voxel is away from a seed.

    The number is 0 in the seed, and -1 for voxels outside the domain or more than `limit` steps away.
    """
    out = np.full(seed.shape, -1, np.int16)
    queue = np.empty(seed.size, np.int64)
    _waves(seed.reshape(-1), domain.reshape(-1), seed.shape, limit, out.reshape(-1), queue)
    return out


def _steps_before(
    spacing_zyx: tuple[float, float, float],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the offsets of the 13 neighbours that precede a voxel in array order, and their distances in mm."""
    before = np.array([step for step in product((-1, 0, 1), repeat=3) if step < (0, 0, 0)], np.int64)
    lengths = np.sqrt((before**2 * np.square(spacing_zyx)).sum(axis=1))
    return before, lengths.astype(np.float32)


@kernel()
def _sweep(out, before, lengths, sign):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    for i in range(nz):
        z = i if sign > 0 else nz - 1 - i
        for j in range(ny):
            y = j if sign > 0 else ny - 1 - j
            for k in range(nx):
                x = k if sign > 0 else nx - 1 - k
                best = out[z, y, x]
                if best == 0:
                    continue
                for n in range(len(lengths)):
                    a, b, c = z + sign * before[n, 0], y + sign * before[n, 1], x + sign * before[n, 2]
                    inside = 0 <= a < nz and 0 <= b < ny and 0 <= c < nx
                    path = lengths[n] + (out[a, b, c] if inside else np.float32(0))
                    if path < best:
                        best = path
                out[z, y, x] = best


@kernel()
def _neighbour(index, n, shape):  # type: ignore[no-untyped-def]
    """Return the index in the flat volume of face neighbour `n`, 0 to 5, of a voxel; -1 outside the volume."""
    nz, ny, nx = shape
    x = index % nx
    y = (index // nx) % ny
    z = index // (nx * ny)
    if n == 0:
        return index - ny * nx if z > 0 else -1
    if n == 1:
        return index + ny * nx if z < nz - 1 else -1
    if n == 2:
        return index - nx if y > 0 else -1
    if n == 3:
        return index + nx if y < ny - 1 else -1
    if n == 4:
        return index - 1 if x > 0 else -1
    return index + 1 if x < nx - 1 else -1


@kernel()
def _relax(path, labels, domain, before, lengths, sign):  # type: ignore[no-untyped-def]
    """Shorten paths in one sweep and return the number of changed voxels."""
    nz, ny, nx = path.shape
    changed = 0
    for i in range(nz):
        z = i if sign > 0 else nz - 1 - i
        for j in range(ny):
            y = j if sign > 0 else ny - 1 - j
            for k in range(nx):
                x = k if sign > 0 else nx - 1 - k
                best = path[z, y, x]
                if not domain[z, y, x] or best == 0:
                    continue
                for n in range(len(lengths)):
                    a, b, c = z + sign * before[n, 0], y + sign * before[n, 1], x + sign * before[n, 2]
                    if not (0 <= a < nz and 0 <= b < ny and 0 <= c < nx) or labels[a, b, c] == 0:
                        continue
                    current, neighbour = labels[z, y, x], labels[a, b, c]
                    length = path[a, b, c] + lengths[n]
                    # Of equally short paths, take the lower label in every second row and the higher one in the others.
                    if length < best or (length == best and (neighbour > current) == ((y + z) % 2 == 1)):
                        best = length
                        labels[z, y, x] = neighbour
                if best < path[z, y, x]:
                    path[z, y, x] = best
                    changed += 1
    return changed


@kernel()
def _flood(labels, shape, queue):  # type: ignore[no-untyped-def]
    # 255 marks voxels in the queue. A wave is all voxels at the same number of steps; it is labelled at once.
    wait = np.uint8(255)
    count = 0
    for i in range(len(labels)):
        if labels[i] == 0:
            for n in range(6):
                j = _neighbour(i, n, shape)
                if j >= 0 and labels[j] != 0 and labels[j] != wait:
                    queue[count] = i
                    count += 1
                    labels[i] = wait
                    break
    begin = 0
    while begin < count:
        end = count
        for q in range(begin, end):
            i = queue[q]
            lowest, highest = wait, np.uint8(0)
            for n in range(6):
                j = _neighbour(i, n, shape)
                if j >= 0 and 0 < labels[j] < wait:
                    lowest, highest = min(lowest, labels[j]), max(highest, labels[j])
            row = i // shape[2]
            chosen = lowest if (row % shape[1] + row // shape[1]) % 2 == 0 else highest
            # Keep the label in the queue until the wave is complete, so that voxels do not see labels of their own
            # wave.
            queue[q] = i * 256 + np.int64(chosen)
        for q in range(begin, end):
            labels[queue[q] // 256] = np.uint8(queue[q] % 256)
            queue[q] = queue[q] // 256
        for q in range(begin, end):
            for n in range(6):
                j = _neighbour(queue[q], n, shape)
                if j >= 0 and labels[j] == 0:
                    labels[j] = wait
                    queue[count] = j
                    count += 1
        begin = end


@kernel()
def _waves(seed, domain, shape, limit, out, queue):  # type: ignore[no-untyped-def]
    count = 0
    for i in range(len(seed)):
        if seed[i]:
            out[i] = 0
            queue[count] = i
            count += 1
    begin = 0
    while begin < count:
        i = queue[begin]
        begin += 1
        if out[i] == limit:
            continue
        for n in range(6):
            j = _neighbour(i, n, shape)
            if j >= 0 and out[j] < 0 and domain[j]:
                out[j] = out[i] + 1
                queue[count] = j
                count += 1
