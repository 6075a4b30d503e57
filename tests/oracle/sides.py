"""Lengths of shortest paths by brute force."""

from __future__ import annotations

import heapq
from itertools import product

import numpy as np


def ways(seeds: np.ndarray, room: np.ndarray, spacing, *, faces_only: bool = False) -> np.ndarray:
    """Return the length of the shortest path inside a mask, `room`, from a seed to each voxel, by Dijkstra's algorithm.

    The length is infinite if there is no path.
    """
    steps = [s for s in product((-1, 0, 1), repeat=3) if any(s) and (not faces_only or sum(map(abs, s)) == 1)]
    out = np.full(room.shape, np.inf)
    heap = [(0.0, tuple(map(int, at))) for at in np.argwhere(seeds)]
    while heap:
        way, at = heapq.heappop(heap)
        if way >= out[at]:
            continue
        out[at] = way
        for step in steps:
            to = tuple(a + b for a, b in zip(at, step, strict=True))
            if all(0 <= a < n for a, n in zip(to, room.shape, strict=True)) and room[to]:
                length = float(np.sqrt(sum((a * s) ** 2 for a, s in zip(step, spacing, strict=True))))
                heapq.heappush(heap, (way + length, to))
    return out
