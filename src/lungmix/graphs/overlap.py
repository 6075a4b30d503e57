"""Computations on blocks of dask arrays with voxels of the neighbouring blocks around them (halos).

`dask.array.map_overlap` is extended to halos that are thicker than chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

Kernel = Callable[..., npt.NDArray[Any]]


def map_with_halo(
    kernel: Kernel,
    array: da.Array,
    halos: Sequence[tuple[int, int]],
    dtype: npt.DTypeLike | None = None,
    **options: Any,
) -> da.Array:
    """Return the lazy results of a kernel for all blocks, each of which it gets with a halo.

    Parameters
    ----------
    kernel : callable
        ``kernel(window, core, **options)``, where ``window`` is a block with its halo and the slices ``core`` select
        the block in it. It returns the result for the block. Blocks at the ends of the volume have no halo there.
    array : dask array, shape (z, y, x)
        Input in any chunks.
    halos : sequence of (int, int)
        For each axis, the thickness of the halo before the block and after it. It may be larger than chunks, which are
        then joined, and larger than the array.
    dtype : dtype, optional
        Data type of the results; by default that of `array`.
    **options
        Further arguments of the kernel, which may be delayed.

    Returns
    -------
    dask array
        Results, with the shape of `array`. Chunks are at least as thick as the halo.
    """
    array = array.rechunk(
        {
            axis: join_chunks(chunks, max(chunks), max(halo))
            for axis, (chunks, halo) in enumerate(zip(array.chunks, halos, strict=True))
        }
    )
    dtype = array.dtype if dtype is None else np.dtype(dtype)
    # Along an axis of one chunk, there are no neighbours and so no halo.
    depth = {axis: halo if len(array.chunks[axis]) > 1 else (0, 0) for axis, halo in enumerate(halos)}
    return da.map_overlap(
        _on_core,
        array,
        depth=depth,
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=array.chunks,
        dtype=dtype,
        meta=np.empty((0,) * array.ndim, dtype),
        kernel=kernel,
        blocks=array.numblocks,
        depths=tuple(depth.values()),
        options=options,
    )


def join_chunks(chunks: Sequence[int], depth: int, smallest: int = 1) -> tuple[int, ...]:
    """Return chunks that are joined from neighbouring chunks, with numbers of slices that are as equal as possible.

    Parameters
    ----------
    chunks : sequence of int
        Number of slices in each chunk. No chunk is split.
    depth : int
        Largest number of slices in a joined chunk, unless a single chunk has more.
    smallest : int
        Smallest number of slices in a joined chunk, unless all chunks together have fewer. It takes precedence over
        `depth`.
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
    """Return chunks like `chunks`, but with lengths that are multiples of `step`; the last one may be shorter."""
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
