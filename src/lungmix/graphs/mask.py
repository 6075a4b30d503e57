"""The lung mask as a dask graph over slabs.

Masks travel packed at one bit a voxel. The islands of a slab are labelled where the slab is; only tables of them
meet in one task, which decides for all slabs what is kept. Where the opened slabs wait for that verdict, a shelf can
hold them, so that workers need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from lungmix.errors import UsageError
from lungmix.graphs.memory import mask_chunks
from lungmix.graphs.overlap import map_slabs
from lungmix.kernels import mask as kernels
from lungmix.kernels.bits import Bits, pack_below, unpack, words_for
from lungmix.kernels.components import SlabTable, label_runs, merge_tables, paint, table_of
from lungmix.kernels.element import Element
from lungmix.kernels.mask import Found, MaskRecipe, describe, qualifies, recipe_for
from lungmix.kernels.morphology import closing, opening
from lungmix.parameters import MaskParameters

Verdict = tuple[list[npt.NDArray[np.int32]], Found]

_META = np.empty((0, 0, 0), np.uint64)


class Shelf(Protocol):
    """Where packed slabs wait between two tasks; it is sent to workers, so it holds names, not data."""

    def put(self, start: int, bits: Bits) -> None:
        """Keep the slab that begins at slice `start`."""

    def get(self, start: int, stop: int) -> Bits:
        """The slab of slices `start` to `stop`, as it was put."""


def lung_mask(
    ct: npt.NDArray[Any] | da.Array,
    preset: str = "paper",
    spacing: Sequence[float] | None = None,
    *,
    threshold: int = -155,
    opening: int | None = None,
    min_voxels: int | None = None,
    radii: Sequence[int] | None = None,
) -> npt.NDArray[np.uint8] | da.Array:
    """Lung mask of a volume of HU.

    Parameters
    ----------
    ct : numpy or dask array of int, shape (z, y, x)
        Hounsfield units.
    preset : {"paper", "physical"}
        Sizes in voxels as published, or in millimetres with the scan's spacing.
    spacing : sequence of 3 floats, optional
        Voxel spacing in mm in ITK's order x, y, z, as in ``case.geometry.spacing``. Needed by ``physical``.
    threshold : int
        HU; voxels below are air.
    opening : int, optional
        Iterations of the 6-connected opening in place of the preset's.
    min_voxels : int, optional
        Smallest island kept, in voxels, in place of the preset's.
    radii : sequence of int, optional
        Radii of the closings by a ball, in voxels, in place of the preset's.

    Returns
    -------
    numpy or dask array of uint8, shape (z, y, x)
        0 or 1, the same kind of array as `ct`. All 0 where no lung is found.

    Raises
    ------
    UsageError
        If a parameter makes no sense.

    Notes
    -----
    Source: Zaffino et al. 2021, Bioengineering 8:26, section 2.2.
    """
    if ct.ndim != 3:
        raise UsageError(f"a CT volume has the axes z, y, x; this array has {ct.ndim}: give one volume")
    chosen = MaskParameters(preset, threshold, opening, min_voxels, None if radii is None else tuple(radii))
    recipe = recipe_for(chosen, None if spacing is None else tuple(spacing)[::-1])
    if isinstance(ct, da.Array):
        return mask_graph(ct, recipe)[0]
    return kernels.lung_mask(np.asarray(ct), recipe)


def mask_graph(ct: da.Array, recipe: MaskRecipe, memory_limit: int | None = None) -> tuple[da.Array, Delayed]:
    """Lazy lung mask and what its search saw.

    Parameters
    ----------
    ct : dask array of int, shape (z, y, x)
        HU, any chunks.
    recipe : MaskRecipe
        The steps in voxels.
    memory_limit : int, optional
        Memory of the smallest worker, bytes; 1 GiB by default.

    Returns
    -------
    lung : dask array of uint8, shape (z, y, x)
        Chunks of `ct` along z, whole slices.
    found : Delayed
        A `Found`.
    """
    if 0 in ct.shape:
        return da.zeros(ct.shape, np.uint8), dask.delayed(Found)(0, (), 0)
    slabs = ct.rechunk({1: -1, 2: -1})
    _, ny, nx = slabs.shape
    chunks = (slabs.chunks[0], (ny,), (words_for(nx),))
    air = slabs.map_blocks(pack_below, threshold=recipe.threshold, dtype=np.uint64, chunks=chunks, meta=_META)
    thick = mask_chunks(slabs.chunks[0], ny, nx, recipe.halo, memory_limit)
    bits, found = lung_bits(air.rechunk({0: thick}), nx, recipe)
    bits = bits.rechunk({0: slabs.chunks[0]})
    meta = np.empty((0, 0, 0), np.uint8)
    return bits.map_blocks(unpack, nx=nx, dtype=np.uint8, chunks=slabs.chunks, meta=meta), found


def lung_bits(air: da.Array, nx: int, recipe: MaskRecipe, shelf: Shelf | None = None) -> tuple[da.Array, Delayed]:
    """Lung of packed air, slab by slab.

    Parameters
    ----------
    air : dask array of uint64, shape (z, y, words)
        Packed voxels below the threshold, one chunk a slab.
    nx : int
        Voxels in a row.
    recipe : MaskRecipe
        The steps in voxels.
    shelf : Shelf, optional
        Holds opened slabs until all are labelled.

    Returns
    -------
    lung : dask array of uint64, shape (z, y, words)
        Packed mask, chunked along z like `air` or thicker.
    found : Delayed
        A `Found`.
    """
    opened = air
    if not recipe.opening.is_point:
        halo = 2 * recipe.opening.extent[0]
        opened = map_slabs(_open, air, halo, halo, element=recipe.opening, nx=nx)
    blocks = opened.to_delayed().reshape(-1)
    stops = np.cumsum(opened.chunks[0]).tolist()
    spans = list(zip([0, *stops[:-1]], stops, strict=True))
    tables = [
        dask.delayed(_table)(block, nx, recipe.min_voxels, shelf, start)
        for block, (start, _) in zip(blocks, spans, strict=True)
    ]
    verdict = dask.delayed(_judge)(tables, recipe.min_voxels)
    painted = []
    for i, (block, (start, stop)) in enumerate(zip(blocks, spans, strict=True)):
        shape = (stop - start, *opened.shape[1:])
        slab = dask.delayed(_paint)(None if shelf else block, nx, verdict, i, shelf, start, shape)
        painted.append(da.from_delayed(slab, shape, np.uint64, _META))
    lung = da.concatenate(painted)
    for element in recipe.closings:
        halo = 2 * element.extent[0]
        lung = map_slabs(_close, lung, halo, halo, element=element, nx=nx)
    return lung, dask.delayed(_found)(verdict)


def _open(window: Bits, planes: tuple[int, int], element: Element, nx: int) -> Bits:
    return opening(window, nx, element, planes)


def _close(window: Bits, planes: tuple[int, int], element: Element, nx: int) -> Bits:
    return closing(window, nx, element, planes)


def _table(block: Bits, nx: int, min_voxels: int, shelf: Shelf | None, start: int) -> SlabTable:
    if shelf is not None:
        shelf.put(start, block)
    return table_of(label_runs(block, nx), min_voxels)


def _judge(tables: list[SlabTable], min_voxels: int) -> Verdict:
    merged = merge_tables(tables)
    keep = qualifies(merged.islands, min_voxels)
    kept = [table.number[keep[number]] for table, number in zip(tables, merged.number, strict=True)]
    return kept, describe(merged, keep)


def _found(verdict: Verdict) -> Found:
    return verdict[1]


def _paint(
    block: Bits | None, nx: int, verdict: Verdict, index: int, shelf: Shelf | None, start: int, shape: tuple[int, ...]
) -> Bits:
    kept = verdict[0][index]
    if not len(kept):
        return np.zeros(shape, np.uint64)
    if shelf is not None:
        block = shelf.get(start, start + shape[0])
    assert block is not None
    # Labels come out the same each time, so that runs need not wait in memory for the verdict.
    runs = label_runs(block, nx)
    keep = np.zeros(runs.components, np.bool_)
    keep[kept] = True
    return paint(runs, keep)
