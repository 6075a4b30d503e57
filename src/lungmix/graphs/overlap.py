"""Blocks with halos: `dask.array.map_overlap` for any chunks and any depth, which may differ before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

Kernel = Callable[..., npt.NDArray[Any]]


def map_with_halo(kernel: Kernel, array: da.Array, halos: Sequence[tuple[int, int]], **options: Any) -> da.Array:
    """Apply a kernel to each block with voxels of its neighbours around it.

    Parameters
    ----------
    kernel : callable
        ``kernel(window, core, **options)`` returns the result for the slices ``core`` of the window; the rest is the
        halo, absent at the ends of the volume.
    array : dask array, shape (z, y, x)
        Any chunks.
    halos : sequence of (int, int)
        Depth of the halo before and after the block, by axis. It may exceed the chunks, which are then joined, and
        the array.
    **options
        Passed to the kernel.

    Returns
    -------
    dask array
        Same shape and dtype; chunks at least as thick as the halo.
    """
    array = array.rechunk(
        {
            axis: join_chunks(chunks, max(chunks), max(halo))
            for axis, (chunks, halo) in enumerate(zip(array.chunks, halos, strict=True))
        }
    )
    # An axis of one chunk has no neighbours.
    depth = {axis: halo if len(array.chunks[axis]) > 1 else (0, 0) for axis, halo in enumerate(halos)}
    return da.map_overlap(
        _on_core,
        array,
        depth=depth,
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=array.chunks,
        dtype=array.dtype,
        meta=np.empty((0,) * array.ndim, array.dtype),
        kernel=kernel,
        blocks=array.numblocks,
        depths=tuple(depth.values()),
        options=options,
    )


def join_chunks(chunks: Sequence[int], depth: int, smallest: int = 1) -> tuple[int, ...]:
    """Join neighbouring chunks to evenly thick ones.

    Parameters
    ----------
    chunks : sequence of int
        Slices of each chunk; none is split.
    depth : int
        Largest number of slices of a joined chunk, unless a single chunk has more.
    smallest : int
        Smallest number of slices of a joined chunk, unless the sum is smaller; it takes precedence over `depth`.
    """
    edges = np.cumsum(chunks)
    total = int(edges[-1])
    thick = list(chunks)
    for count in range(-(-total // max(depth, 1)), len(chunks)):
        marks = [edges[np.abs(edges - total * k / count).argmin()] for k in range(1, count)]
        even = np.diff(np.unique([0, *marks, total])).tolist()
        if max(even) <= depth:
            thick = even
            break
    joined: list[int] = []
    for chunk in thick:
        if joined and joined[-1] < smallest:
            joined[-1] += chunk
        else:
            joined.append(chunk)
    if len(joined) > 1 and joined[-1] < smallest:
        last = joined.pop()
        joined[-1] += last
    return tuple(joined)


def whole_steps(chunks: Sequence[int], step: int) -> tuple[int, ...]:
    """Return chunks of whole steps that cover the extent of `chunks`, of similar sizes; the last one ends with it."""
    edges = {min(-(-int(edge) // step) * step, sum(chunks)) for edge in np.cumsum(chunks)}
    return tuple(int(n) for n in np.diff([0, *sorted(edges)]))


def _on_core(
    window: npt.NDArray[Any],
    kernel: Kernel,
    blocks: tuple[int, ...],
    depths: tuple[tuple[int, int], ...],
    options: dict[str, Any],
    block_id: tuple[int, ...] | None = None,
) -> npt.NDArray[Any]:
    if block_id is None:
        return window
    core = tuple(
        slice(before if index > 0 else 0, size - (after if index < count - 1 else 0))
        for (before, after), index, count, size in zip(depths, block_id, blocks, window.shape, strict=True)
    )
    return kernel(window, core, **options)
