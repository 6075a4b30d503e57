"""Distances and floods on small volumes: exact, deterministic, a few passes."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def chamfer_distance(mask: Mask, spacing_zyx: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    """Length of the shortest way over neighbouring voxels to the nearest voxel outside a mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (z, y, x)
        Everything outside the volume is outside the mask.
    spacing_zyx : tuple of float
        Voxel spacing, mm.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        mm, 0 outside the mask. Steps go to all 26 neighbours, so it exceeds the Euclidean distance by at most 13 %.
    """
    before, lengths = _steps_before(spacing_zyx)
    out = np.where(mask, np.float32(np.inf), np.float32(0)).astype(np.float32)
    _sweep(out, before, lengths, 1)
    _sweep(out, before, lengths, -1)
    return out


def flood(labels: Labels) -> None:
    """Give every voxel without a label that of the voxel which is fewest steps over faces away.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        0 is free; changed in place. Where two labels come at once the lower and the higher one win in turn, row by
        row, so that neither gains.
    """
    queue = np.empty(labels.size, np.int64)
    _flood(labels.reshape(-1), labels.shape, queue)


def geodesic_assign(labels: Labels, room: Mask, spacing_zyx: tuple[float, float, float]) -> None:
    """Give every voxel of a room the label to which the way inside the room is shortest.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        0 is free; changed in place. Parts of the room that no label reaches stay free. Ties are as in `flood`.
    room : ndarray of bool, same shape
        Where ways may lead, over all 26 neighbours.
    spacing_zyx : tuple of float
        Voxel spacing, mm.
    """
    before, lengths = _steps_before(spacing_zyx)
    way = np.where(labels > 0, np.float32(0), np.float32(np.inf)).astype(np.float32)
    while _relax(way, labels, room, before, lengths, 1) + _relax(way, labels, room, before, lengths, -1):
        pass


def wave_numbers(seed: Mask, room: Mask, most: int) -> npt.NDArray[np.int16]:
    """Steps from a seed to each voxel of a room, over faces: 0 in the seed, -1 where `most` steps do not lead."""
    out = np.full(seed.shape, -1, np.int16)
    queue = np.empty(seed.size, np.int64)
    _waves(seed.reshape(-1), room.reshape(-1), seed.shape, most, out.reshape(-1), queue)
    return out


def _steps_before(
    spacing_zyx: tuple[float, float, float],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The 13 neighbours that come before a voxel, and their distance in mm."""
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
                    way = lengths[n] + (out[a, b, c] if inside else np.float32(0))
                    if way < best:
                        best = way
                out[z, y, x] = best


@kernel()
def _neighbour(index, n, shape):  # type: ignore[no-untyped-def]
    """Index of a face neighbour in the flat volume, -1 past the end."""
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
def _relax(way, labels, room, before, lengths, sign):  # type: ignore[no-untyped-def]
    """One sweep over shorter ways; how many were found."""
    nz, ny, nx = way.shape
    found = 0
    for i in range(nz):
        z = i if sign > 0 else nz - 1 - i
        for j in range(ny):
            y = j if sign > 0 else ny - 1 - j
            for k in range(nx):
                x = k if sign > 0 else nx - 1 - k
                best = way[z, y, x]
                if not room[z, y, x] or best == 0:
                    continue
                for n in range(len(lengths)):
                    a, b, c = z + sign * before[n, 0], y + sign * before[n, 1], x + sign * before[n, 2]
                    if not (0 <= a < nz and 0 <= b < ny and 0 <= c < nx) or labels[a, b, c] == 0:
                        continue
                    here, there = labels[z, y, x], labels[a, b, c]
                    length = way[a, b, c] + lengths[n]
                    # Of equal ways the lower and the higher label win in turn, row by row.
                    if length < best or (length == best and (there > here) == ((y + z) % 2 == 1)):
                        best = length
                        labels[z, y, x] = there
                if best < way[z, y, x]:
                    way[z, y, x] = best
                    found += 1
    return found


@kernel()
def _flood(labels, shape, queue):  # type: ignore[no-untyped-def]
    # 255 marks what waits in the queue: its label is settled when its whole wave is known.
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
            # Written below, so that this wave does not see itself.
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
def _waves(seed, room, shape, most, out, queue):  # type: ignore[no-untyped-def]
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
        if out[i] == most:
            continue
        for n in range(6):
            j = _neighbour(i, n, shape)
            if j >= 0 and out[j] < 0 and room[j]:
                out[j] = out[i] + 1
                queue[count] = j
                count += 1
