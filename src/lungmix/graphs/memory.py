"""Model of the memory that tasks need, and the thickness of slabs that follows from it.

The model adds up the arrays that exist at the same time, and the memory of the interpreter and its libraries.
``docs/memory.md`` describes it and compares it with measured peaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lungmix.graphs.overlap import join_chunks
from lungmix.graphs.process import COMPILING_BYTES, INTERPRETER_BYTES, KEPT_BYTES, PAUSE_SHARE
from lungmix.kernels.distance_morphology import BAND_BYTES
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.packed_masks import WORD, words_for
from lungmix.kernels.potts import band_bytes as potts_band_bytes
from lungmix.parameters import POTTS_ITERATIONS

DEFAULT_LIMIT = 1 << 30
"""Memory limit of a worker in bytes that is assumed if the limit is unknown."""

TASKS_AT_ONCE = 2
"""Number of tasks whose arrays are in memory at once: one that runs, and one whose inputs are there already."""
# Largest number of slices in a slab. A closing also reads 60 slices on each side, so thin slabs would repeat much work.
_THICKEST_OF_MASK = 256
_THICKEST_OF_LABELS = 128
# Memory that remains allocated after a slab was read, decoded, encoded and written, as measured.
_BUFFERS = 16 << 20


def mask_task_bytes(depth: int, ny: int, nx: int, halo: int) -> int:
    """Return how many bytes the largest task of the mask needs, which closes a packed slab.

    Parameters
    ----------
    depth : int
        Number of slices in a slab.
    ny, nx : int
        Number of rows; number of columns.
    halo : int
        Number of slices that the closing needs on each side of the slab.
    """
    plane = ny * words_for(nx) * 8
    frame = (ny + halo) * words_for(nx + halo) * 8
    # Three slabs, and the slab with its halos that is joined from them; then the frame, the dilated frame and the
    # result.
    return plane * (5 * depth + 2 * halo) + frame * 2 * (depth + 2 * halo) + band_bytes(depth, nx, halo)


def band_bytes(depth: int, nx: int, halo: int) -> int:
    """Return how many bytes a band of rows in a closing needs: one byte per voxel, and the costs along x of a plane.

    See `lungmix.kernels.distance_morphology`.
    """
    wide = words_for(nx + halo) * WORD
    thinnest = max(halo // 2, 16)
    return max(BAND_BYTES, (depth + 2 * halo) * wide * thinnest) + 4 * wide * (thinnest + halo)


def voxel_task_bytes(depth: int, ny: int, nx: int) -> int:
    """Return how many bytes a task needs that reads `depth` slices of HU and mask, and labels, filters or writes them.

    Each voxel takes two bytes for its HU as stored and two as read, and one byte each for the mask, the labels, the
    median of the labels, and the coarser resolution levels.
    """
    return depth * ny * nx * (2 * 2 + 1 + 1 + 1 + 1)


def label_task_bytes(depth: int, slab: int, ny: int, nx: int) -> int:
    """Return how many bytes the task needs that filters `depth` slices of labels.

    The labels are looked up in `slab` slices at a time, which need HU and mask in memory.
    """
    return max(voxel_task_bytes(slab, ny, nx) + depth * ny * nx, depth * ny * nx * 5)


def potts_task_bytes(depth: int, slab: int, ny: int, nx: int, n_components: int) -> int:
    """Return the bytes of the task that labels `depth` slices under a Potts prior, read `slab` slices at a time.

    Counted per voxel: HU and mask, both once more with the outer slices of the neighbouring slabs, and the labels. The
    tables of posteriors and densities, the posteriors of a band of rows, and 16 bytes per row are added.
    """
    voxels = ny * nx
    read = voxel_task_bytes(slab, ny, nx) + depth * voxels * 3
    tables = 2 * n_components * N_HU * 4
    held = voxels * (depth * 7 + POTTS_ITERATIONS * 6) + 16 * ny * (depth + 2 * POTTS_ITERATIONS)
    return max(read, held + tables + potts_band_bytes(ny, nx, n_components))


def mask_chunks(stored: Sequence[int], ny: int, nx: int, halo: int, limit: int | None) -> tuple[int, ...]:
    """Return the number of slices in each slab in which the mask is computed.

    Parameters
    ----------
    stored : sequence of int
        Number of slices in each slab that is stored. Stored slabs are joined, never split.
    ny, nx : int
        Number of rows; number of columns.
    halo : int
        Number of slices that the operation with the largest element needs on each side.
    limit : int or None
        Memory limit of the smallest worker in bytes; None means 1 GiB.
    """
    depth = _thickest(max(stored), _THICKEST_OF_MASK, limit, lambda n: mask_task_bytes(n, ny, nx, halo))
    return join_chunks(stored, depth, halo)


def label_chunks(stored: Sequence[int], ny: int, nx: int, halo: int, limit: int | None) -> tuple[int, ...]:
    """Return the number of slices in each slab in which labels are filtered; for parameters see `mask_chunks`."""
    slab = max(stored)
    depth = _thickest(slab, _THICKEST_OF_LABELS, limit, lambda n: label_task_bytes(n, slab, ny, nx))
    return join_chunks(stored, depth, halo)


def potts_chunks(stored: Sequence[int], ny: int, nx: int, n_components: int, limit: int | None) -> tuple[int, ...]:
    """Return the slices of the slabs that are labelled under a Potts prior; for parameters see `mask_chunks`."""
    slab = max(stored)
    depth = _thickest(slab, _THICKEST_OF_LABELS, limit, lambda n: potts_task_bytes(n, slab, ny, nx, n_components))
    return join_chunks(stored, depth, POTTS_ITERATIONS)


def worker_bytes(task: int) -> int:
    """Return the largest resident memory of a worker whose largest task needs `task` bytes."""
    return INTERPRETER_BYTES + KEPT_BYTES + TASKS_AT_ONCE * task


def least_bytes(task: int) -> int:
    """Return the smallest memory, in bytes, with which a worker can compute tasks of `task` bytes.

    It is what a worker uses at the end of such a task. If that is too much for its limit, dask pauses it for good.
    """
    return INTERPRETER_BYTES + KEPT_BYTES + task + min(task, _BUFFERS)


def enough_bytes(task: int) -> int:
    """Return the memory, in bytes, that suffices for tasks of `task` bytes even if the worker compiles the kernels."""
    return INTERPRETER_BYTES + KEPT_BYTES + task + max(task, COMPILING_BYTES)


def _thickest(slab: int, largest: int, limit: int | None, needs: Callable[[int], int]) -> int:
    depth, room = slab, (limit or DEFAULT_LIMIT) * PAUSE_SHARE
    while depth * 2 <= largest and worker_bytes(needs(depth * 2)) <= room:
        depth *= 2
    return depth
