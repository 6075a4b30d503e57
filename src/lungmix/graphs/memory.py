"""Memory model of tasks, and the thickness of slabs that follows from it.

``docs/memory.md`` describes the model and compares it with measured peaks. It counts the arrays that exist at the same
time; the interpreter and its libraries are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lungmix.graphs.overlap import join_chunks
from lungmix.graphs.process import COMPILING_BYTES, INTERPRETER_BYTES, KEPT_BYTES, PAUSE_SHARE
from lungmix.kernels.distance_morphology import BAND_BYTES
from lungmix.kernels.packed_masks import WORD, words_for

DEFAULT_LIMIT = 1 << 30
"""Memory of a worker in bytes, where it is unknown."""

TASKS_AT_ONCE = 2
"""Number of tasks in memory: one that runs, and the inputs of the next."""
# A closing needs 60 slices on each side of its slab: thin slabs would repeat work.
_THICKEST_OF_MASK = 256
_THICKEST_OF_LABELS = 128
# Memory that readers, codecs and writers of a slab leave allocated, as measured.
_BUFFERS = 16 << 20


def mask_task_bytes(depth: int, ny: int, nx: int, halo: int) -> int:
    """Return the bytes of the largest task of the mask on packed slabs.

    Parameters
    ----------
    depth : int
        Slices of a slab.
    ny, nx : int
        Rows and columns.
    halo : int
        Slices that an operation needs on each side.
    """
    plane = ny * words_for(nx) * 8
    frame = (ny + halo) * words_for(nx + halo) * 8
    # Three slabs are joined with their halos; the frame, the dilated frame, and the result are added.
    return plane * (5 * depth + 2 * halo) + frame * 2 * (depth + 2 * halo) + band_bytes(depth, nx, halo)


def band_bytes(depth: int, nx: int, halo: int) -> int:
    """Return the bytes of a band of rows in a closing: one byte a voxel, and the ramps of its planes."""
    wide = words_for(nx + halo) * WORD
    thinnest = max(halo // 2, 16)
    return max(BAND_BYTES, (depth + 2 * halo) * wide * thinnest) + 4 * wide * (thinnest + halo)


def voxel_task_bytes(depth: int, ny: int, nx: int) -> int:
    """Return the bytes of a task that reads `depth` slices of HU and a mask, and labels, filters or writes them.

    Counted per voxel: HU twice (as stored and as read), mask, labels, median of the labels, and the coarser levels.
    """
    return depth * ny * nx * (2 * 2 + 1 + 1 + 1 + 1)


def label_task_bytes(depth: int, slab: int, ny: int, nx: int) -> int:
    """Return the bytes of the task that filters `depth` slices of labels, looked up `slab` slices at a time."""
    return max(voxel_task_bytes(slab, ny, nx) + depth * ny * nx, depth * ny * nx * 5)


def mask_chunks(stored: Sequence[int], ny: int, nx: int, halo: int, limit: int | None) -> tuple[int, ...]:
    """Return the slices of the slabs of the mask.

    Parameters
    ----------
    stored : sequence of int
        Slices of the stored slabs; they are joined, never split.
    ny, nx : int
        Rows and columns.
    halo : int
        Slices that the widest operation needs on each side.
    limit : int or None
        Memory of the smallest worker in bytes; None means 1 GiB.
    """
    depth = _thickest(max(stored), _THICKEST_OF_MASK, limit, lambda n: mask_task_bytes(n, ny, nx, halo))
    return join_chunks(stored, depth, halo)


def label_chunks(stored: Sequence[int], ny: int, nx: int, halo: int, limit: int | None) -> tuple[int, ...]:
    """Return the slices of the slabs in which labels are filtered; for parameters see `mask_chunks`."""
    slab = max(stored)
    depth = _thickest(slab, _THICKEST_OF_LABELS, limit, lambda n: label_task_bytes(n, slab, ny, nx))
    return join_chunks(stored, depth, halo)


def worker_bytes(task: int) -> int:
    """Return the largest resident memory of a worker whose largest task needs `task` bytes."""
    return INTERPRETER_BYTES + KEPT_BYTES + TASKS_AT_ONCE * task


def least_bytes(task: int) -> int:
    """Return the memory below which a worker stays paused: its use at the end of a task of `task` bytes."""
    return INTERPRETER_BYTES + KEPT_BYTES + task + min(task, _BUFFERS)


def enough_bytes(task: int) -> int:
    """Return the memory that suffices for a task of `task` bytes, also if the worker compiles the kernels."""
    return INTERPRETER_BYTES + KEPT_BYTES + task + max(task, COMPILING_BYTES)


def _thickest(slab: int, largest: int, limit: int | None, needs: Callable[[int], int]) -> int:
    depth, room = slab, (limit or DEFAULT_LIMIT) * PAUSE_SHARE
    while depth * 2 <= largest and worker_bytes(needs(depth * 2)) <= room:
        depth *= 2
    return depth
