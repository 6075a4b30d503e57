"""Slabs with halos: `dask.array.map_overlap` along z for any chunks and any depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt

SlabKernel = Callable[..., npt.NDArray[Any]]


def map_slabs(kernel: SlabKernel, slabs: da.Array, before: int, after: int, **options: Any) -> da.Array:
    """Apply a kernel to each slab with slices of its neighbours around it.

    Parameters
    ----------
    kernel : callable
        ``kernel(window, planes=(first, stop), **options)`` answers for planes ``first`` to ``stop`` of the window;
        the others are the halo, absent at the ends of the volume.
    slabs : dask array, shape (z, y, x)
        One chunk along y and x.
    before, after : int
        Depth of the halo on the two sides, in slices. It may exceed the chunks, which then are merged, and the
        array.
    **options
        For the kernel.

    Returns
    -------
    dask array
        Same shape and dtype; chunks at least as thick as the halo.
    """
    thick = join_chunks(slabs.chunks[0], max(slabs.chunks[0]), max(before, after))
    slabs = slabs.rechunk({0: thick})
    n_slabs = len(thick)
    meta = np.empty((0, 0, 0), slabs.dtype)
    if n_slabs == 1:
        return slabs.map_blocks(_whole, kernel=kernel, options=options, dtype=slabs.dtype, meta=meta)
    return da.map_overlap(
        _core,
        slabs,
        depth={0: (before, after), 1: 0, 2: 0},
        boundary="none",
        trim=False,
        allow_rechunk=False,
        chunks=slabs.chunks,
        dtype=slabs.dtype,
        meta=meta,
        kernel=kernel,
        n_slabs=n_slabs,
        before=before,
        after=after,
        options=options,
    )


def join_chunks(chunks: Sequence[int], depth: int, least: int = 1) -> tuple[int, ...]:
    """Join neighbouring chunks to evenly thick ones.

    Parameters
    ----------
    chunks : sequence of int
        Slices of each chunk; none is ever cut.
    depth : int
        Slices that a joined chunk has at most, unless a single one has more.
    least : int
        Slices that a joined chunk has at least, unless all together have fewer; this goes before `depth`.
    """
    edges = np.cumsum(chunks)
    total = int(edges[-1])
    thick: list[int] = []
    for count in range(-(-total // max(depth, 1)), len(chunks) + 1):
        marks = [edges[np.abs(edges - total * k / count).argmin()] for k in range(1, count)]
        thick = np.diff(np.unique([0, *marks, total])).tolist()
        if max(thick) <= depth:
            break
    thick = thick or list(chunks)
    joined: list[int] = []
    for chunk in thick:
        if joined and joined[-1] < least:
            joined[-1] += chunk
        else:
            joined.append(chunk)
    if len(joined) > 1 and joined[-1] < least:
        last = joined.pop()
        joined[-1] += last
    return tuple(joined)


def _whole(window: npt.NDArray[Any], kernel: SlabKernel, options: dict[str, Any]) -> npt.NDArray[Any]:
    return kernel(window, planes=(0, len(window)), **options)


def _core(
    window: npt.NDArray[Any],
    kernel: SlabKernel,
    n_slabs: int,
    before: int,
    after: int,
    options: dict[str, Any],
    block_id: tuple[int, ...] | None = None,
) -> npt.NDArray[Any]:
    if block_id is None:
        return window
    first = before if block_id[0] > 0 else 0
    stop = len(window) - (after if block_id[0] < n_slabs - 1 else 0)
    return kernel(window, planes=(first, stop), **options)
