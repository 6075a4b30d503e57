"""How thick the slabs of a task may be: a model of the bytes that a task needs, and the choice that follows.

The model is stated in ``docs/memory.md`` and checked there against measured peaks. It counts arrays that live at the
same time; the interpreter with its libraries comes on top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lungmix.graphs.overlap import join_chunks
from lungmix.graphs.process import COMPILING_BYTES, INTERPRETER_BYTES, KEPT_BYTES, PAUSE_SHARE
from lungmix.kernels.distance_morphology import BAND_BYTES
from lungmix.kernels.packed_masks import WORD, words_for

DEFAULT_LIMIT = 1 << 30
"""Memory of a worker, bytes, where nothing is known of it."""

TASKS_AT_ONCE = 2
"""One task that runs, and the inputs of the next."""
# A closing looks at 60 slices on each side of its slab: thin slabs would do the same work twice.
_THICKEST_OF_MASK = 256
_THICKEST_OF_LABELS = 128
# What readers, codecs and writers of a slab leave behind, by measurement.
_BUFFERS = 16 << 20


def mask_task_bytes(depth: int, ny: int, nx: int, halo: int) -> int:
    """Bytes of the largest task of the mask that works on packed slabs.

    Parameters
    ----------
    depth : int
        Slices of a slab.
    ny, nx : int
        Rows and columns.
    halo : int
        Slices that an operation looks at on each side.
    """
    plane = ny * words_for(nx) * 8
    frame = (ny + halo) * words_for(nx + halo) * 8
    # Three slabs arrive and are joined with their halos; the frame, what a dilation reaches, and the result follow.
    return plane * (5 * depth + 2 * halo) + frame * 2 * (depth + 2 * halo) + band_bytes(depth, nx, halo)


def band_bytes(depth: int, nx: int, halo: int) -> int:
    """Bytes of the distances of one band of rows in a closing: one byte a voxel, and the ramps of its planes."""
    wide = words_for(nx + halo) * WORD
    thinnest = max(halo // 2, 16)
    return max(BAND_BYTES, (depth + 2 * halo) * wide * thinnest) + 4 * wide * (thinnest + halo)


def voxel_task_bytes(depth: int, ny: int, nx: int) -> int:
    """Bytes of a task that reads `depth` slices of HU and a mask, and labels, filters or writes them.

    HU as stored and as read, the mask, the labels, their median, and the smaller levels of what is written.
    """
    return depth * ny * nx * (2 * 2 + 1 + 1 + 1 + 1)


def label_task_bytes(depth: int, slab: int, ny: int, nx: int) -> int:
    """Bytes of the task that filters `depth` slices of labels, which were looked up `slab` slices at a time."""
    return max(voxel_task_bytes(slab, ny, nx) + depth * ny * nx, depth * ny * nx * 5)


def mask_chunks(stored: Sequence[int], ny: int, nx: int, halo: int, limit: int | None) -> tuple[int, ...]:
    """Slices of the slabs that the mask works on.

    Parameters
    ----------
    stored : sequence of int
        Slices of the slabs that are stored; they are joined, never cut.
    ny, nx : int
        Rows and columns.
    halo : int
        Slices that the widest operation looks at on each side.
    limit : int or None
        Memory of the smallest worker, bytes; 1 GiB where it is not known.
    """
    depth = _thickest(max(stored), _THICKEST_OF_MASK, limit, lambda n: mask_task_bytes(n, ny, nx, halo))
    return join_chunks(stored, depth, halo)


def label_chunks(stored: Sequence[int], ny: int, nx: int, halo: int, limit: int | None) -> tuple[int, ...]:
    """Slices of the slabs that labels are made and filtered in; parameters are those of `mask_chunks`."""
    slab = max(stored)
    depth = _thickest(slab, _THICKEST_OF_LABELS, limit, lambda n: label_task_bytes(n, slab, ny, nx))
    return join_chunks(stored, depth, halo)


def worker_bytes(task: int) -> int:
    """Most resident memory of a worker whose largest task needs `task` bytes."""
    return INTERPRETER_BYTES + KEPT_BYTES + TASKS_AT_ONCE * task


def case_task_bytes(slab: int, ny: int, nx: int) -> int:
    """Bytes of the largest task of a case whose slabs are as thin as they can be: those that are stored.

    Packed slabs of the mask need less than the voxels of labels.

    Parameters
    ----------
    slab : int
        Slices of a slab that is stored.
    ny, nx : int
        Rows and columns.
    """
    return label_task_bytes(slab, slab, ny, nx)


def least_bytes(task: int) -> int:
    """Memory without which a worker stands still: what it holds at the end of a task of `task` bytes."""
    return INTERPRETER_BYTES + KEPT_BYTES + task + min(task, _BUFFERS)


def enough_bytes(task: int) -> int:
    """Memory with which a worker whose largest task needs `task` bytes works, also if it compiles the kernels."""
    return INTERPRETER_BYTES + KEPT_BYTES + task + max(task, COMPILING_BYTES)


def _thickest(slab: int, most: int, limit: int | None, needs: Callable[[int], int]) -> int:
    depth, room = slab, (limit or DEFAULT_LIMIT) * PAUSE_SHARE
    while depth * 2 <= most and worker_bytes(needs(depth * 2)) <= room:
        depth *= 2
    return depth
