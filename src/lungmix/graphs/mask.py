"""Lung mask as a dask graph over slabs, which are runs of slices.

Masks are packed to one bit per voxel. For each slab, a task opens the air and labels its connected components. One task
merges the tables of components of all slabs and selects the components that are lung. A slab buffer can store the
opened slabs until then, so that they take no memory of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from lungmix.arrays import volume
from lungmix.errors import UsageError
from lungmix.geometry import IDENTITY, Geometry
from lungmix.graphs.anatomical import anatomical_mask
from lungmix.graphs.labels import order_of
from lungmix.graphs.memory import mask_chunks
from lungmix.graphs.overlap import map_with_halo, whole_steps
from lungmix.kernels import mask as kernels
from lungmix.kernels.components import SlabTable, label_runs, merge_tables, render_components, table_of
from lungmix.kernels.mask import ComponentSummary, MaskRecipe, check_spacing, describe, is_lung, recipe_for
from lungmix.kernels.morphology import closing, opening
from lungmix.kernels.packed_masks import WORD, Bits, pack_below, unpack, words_for
from lungmix.kernels.structuring_elements import Element
from lungmix.parameters import ANATOMICAL, MaskParameters

BlockId = tuple[int, ...] | None
Edges = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KeptComponents:
    """Selection of the connected components that are lung.

    Attributes
    ----------
    kept : tuple of ndarray of int32
        For each slab, the labels of those of its components that are lung.
    summary : ComponentSummary
        Summary of all components of the volume.
    """

    kept: tuple[npt.NDArray[np.int32], ...]
    summary: ComponentSummary


_META = np.empty((0, 0, 0), np.uint64)
_SLAB_BYTES = 512 << 20


class SlabBuffer(Protocol):
    """Storage of packed slabs between two tasks. It is sent to workers, so it should hold locations and no data."""

    def put(self, start: int, bits: Bits) -> None:
        """Store the slab that begins at slice `start`."""

    def get(self, start: int, stop: int) -> Bits:
        """Return the stored slab of slices `start` to ``stop - 1``."""


def lung_mask(
    ct: npt.NDArray[Any] | da.Array,
    preset: str = "paper",
    spacing: Sequence[float] | None = None,
    *,
    threshold: int | None = None,
    opening: int | None = None,
    min_voxels: int | None = None,
    radii: Sequence[int] | None = None,
    direction: Sequence[float] | None = None,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
) -> npt.NDArray[np.uint8] | da.Array:
    """Return the lung mask of a volume of HU.

    Parameters
    ----------
    ct : numpy or dask array of int, shape (z, y, x)
        Volume in HU.
    preset : {"paper", "physical", "anatomical"}
        Rules of the mask. ``paper`` has sizes in voxels as published, and ``physical`` has sizes in mm and mL.
        ``anatomical`` has rules of its own, which leave out the airway and include dense disease.
    spacing : sequence of 3 floats, optional
        Voxel spacing in mm in ITK's order x, y, z, as in ``case.geometry.spacing``. ``physical`` and ``anatomical``
        need it.
    threshold : int, optional
        Voxels below this HU are air. By default -155, or -300 for ``anatomical``.
    opening : int, optional
        Number of iterations of the opening by face neighbours, in place of the size in the preset.
    min_voxels : int, optional
        Smallest component that is kept, in voxels, in place of the size in the preset.
    radii : sequence of int, optional
        Radii, in voxels, of the balls by which the mask is closed, in place of the sizes in the preset.
    direction : sequence of 9 floats, optional
        Direction cosines as in ``case.geometry.direction``. They determine the axis from feet to head; a lung may touch
        the ends of this axis, but not those of other axes. By default it is the first axis, as in axial scans.
    origin : sequence of 3 floats
        Position of the first voxel in mm, as in ``case.geometry.origin``. With it, ``anatomical`` gives a crop of a
        scan the voxels of the whole scan, except near the cut. The other presets do not need it.

    Returns
    -------
    numpy or dask array of uint8, shape (z, y, x)
        0 or 1, as an array of the same kind as `ct`; all 0 if no lung is found.

    Raises
    ------
    UsageError
        If a parameter is invalid or missing.

    Notes
    -----
    Source: Zaffino et al. 2021, Bioengineering 8:26, section 2.2.
    """
    if ct.ndim != 3:
        raise UsageError(f"a CT volume has the axes z, y, x; this array has {ct.ndim}: give one volume")
    chosen = MaskParameters(preset, threshold, opening, min_voxels, None if radii is None else tuple(radii))
    order, spacing_zyx = order_of(direction), None if spacing is None else tuple(spacing)[::-1]
    ct = volume(ct, "the CT")
    if preset == ANATOMICAL:
        z, y, x = check_spacing(spacing_zyx, preset)
        return anatomical_mask(ct, _geometry_of(ct.shape, (x, y, z), origin, direction), chosen)
    recipe = recipe_for(chosen, spacing_zyx, order)
    if isinstance(ct, da.Array):
        return mask_graph(ct, recipe)[0]
    return kernels.lung_mask(np.asarray(ct), recipe)


def _geometry_of(
    shape: Sequence[int],
    spacing: tuple[float, float, float],
    origin: Sequence[float],
    direction: Sequence[float] | None,
) -> Geometry:
    position = [float(value) for value in np.ravel(origin)]
    if len(position) != 3 or not all(isfinite(value) for value in position):
        raise UsageError("origin needs 3 finite positions in mm: give geometry.origin")
    nz, ny, nx = shape
    x, y, z = position
    return Geometry((nx, ny, nz), spacing, (x, y, z), IDENTITY if direction is None else tuple(np.ravel(direction)))


def mask_graph(ct: da.Array, recipe: MaskRecipe) -> tuple[da.Array, Delayed]:
    """Return the lazy lung mask, and the lazy selection of the components that are lung.

    Parameters
    ----------
    ct : dask array of int, shape (z, y, x)
        Volume in HU, in any chunks.
    recipe : MaskRecipe
        Steps of the mask, with sizes in voxels.

    Returns
    -------
    lung : dask array of uint8, shape (z, y, x)
        The mask, 0 or 1, with the chunks of `ct`.
    selection : Delayed
        The selection, a `KeptComponents`.
    """
    if 0 in ct.shape:
        return da.zeros(ct.shape, np.uint8), dask.delayed(KeptComponents)((), ComponentSummary(0, (), 0))
    # Pack and unpack voxels in the chunks of the CT, whose columns are extended to whole words; join only packed
    # chunks.
    columns = ct.rechunk({2: whole_steps(ct.chunks[2], WORD)})
    words = tuple(words_for(wide) for wide in columns.chunks[2])
    _, ny, nx = ct.shape
    air = columns.map_blocks(
        pack_below, threshold=recipe.threshold, dtype=np.uint64, chunks=(*ct.chunks[:2], words), meta=_META
    )
    thick = mask_chunks(_thin_chunks(ct.chunks[0], ny, nx), ny, nx, recipe.halo, None)
    opened = air = air.rechunk((thick, -1, -1))
    if not recipe.opening.is_point:
        halo = 2 * recipe.opening.extent[0]
        opened = map_with_halo(_open, air, [(halo, halo), (0, 0), (0, 0)], element=recipe.opening, nx=nx)
    selection = select_lung_components(opened, nx, recipe)
    lung = opened.map_blocks(_render, nx=nx, selection=selection, dtype=np.uint64, meta=_META)
    bits = close_lung(lung, nx, recipe)
    lung = bits.rechunk((*ct.chunks[:2], words)).map_blocks(
        _unpack_block, wide=columns.chunks[2], dtype=np.uint8, chunks=columns.chunks, meta=np.empty((0, 0, 0), np.uint8)
    )
    return lung.rechunk(ct.chunks), selection


def select_lung_components(opened: da.Array, nx: int, recipe: MaskRecipe, buffer: SlabBuffer | None = None) -> Delayed:
    """Return the lazy selection of the components of air, after the opening, that are lung.

    Parameters
    ----------
    opened : dask array of uint64, shape (z, y, words)
        Packed air after the opening, one chunk per slab.
    nx : int
        Number of voxels in a row.
    recipe : MaskRecipe
        Steps of the mask, with the smallest size of a component.
    buffer : SlabBuffer, optional
        Storage to which tasks write the opened slabs.

    Returns
    -------
    Delayed
        The selection, a `KeptComponents`.
    """
    # Pass the starts as an array: dask would make a list a task of its own, on which all blocks depend.
    tables = opened.map_blocks(
        _table, nx=nx, recipe=recipe, buffer=buffer, starts=np.cumsum([0, *opened.chunks[0]]),
        dtype=object, chunks=((1,) * len(opened.chunks[0]), (1,), (1,)), meta=np.empty((0, 0, 0), object),
    )  # fmt: skip
    return dask.delayed(_select)(list(tables.to_delayed().reshape(-1)), recipe.min_voxels)


def buffered_lung(
    buffer: SlabBuffer, selection: KeptComponents, chunks: tuple[tuple[int, ...], ...], nx: int
) -> da.Array:
    """Return the lazy packed mask of the components that are lung, from slabs in a buffer.

    Each slab is one task, which depends on no other task.

    Parameters
    ----------
    buffer : SlabBuffer
        Storage that holds the opened slabs.
    selection : KeptComponents
        Components that are lung.
    chunks : tuple of tuple of int
        Chunks of the result: slices of each slab, rows, words.
    nx : int
        Number of voxels in a row.

    Returns
    -------
    dask array of uint64, shape (z, y, words)
        Packed mask.
    """
    kept = np.empty((len(chunks[0]), 1, 1), object)
    for i, components in enumerate(selection.kept):
        kept[i, 0, 0] = components
    return da.map_blocks(
        _render_buffered, da.from_array(kept, chunks=1), buffer=buffer, starts=np.cumsum([0, *chunks[0]]),
        plane=(chunks[1][0], chunks[2][0]), nx=nx, dtype=np.uint64, chunks=chunks, meta=_META,
    )  # fmt: skip


def close_lung(lung: da.Array, nx: int, recipe: MaskRecipe) -> da.Array:
    """Return the lazy closing of a packed lung mask, shape (z, y, words); chunks along z can become thicker."""
    for element in recipe.closings:
        halo = 2 * element.extent[0]
        lung = map_with_halo(_close, lung, [(halo, halo), (0, 0), (0, 0)], element=element, nx=nx)
    return lung


def _thin_chunks(chunks: Sequence[int], ny: int, nx: int) -> list[int]:
    """Return chunks along z, in which chunks of more than 512 MiB of packed slices are split."""
    thickest = max(_SLAB_BYTES // (ny * words_for(nx) * 8), 1)
    return [min(thickest, chunk - start) for chunk in chunks for start in range(0, chunk, thickest)]


def _unpack_block(bits: Bits, wide: tuple[int, ...], block_id: tuple[int, ...] | None = None) -> kernels.Mask:
    return unpack(bits, wide[block_id[2]] if block_id else 0)


def _open(window: Bits, core: tuple[slice, ...], element: Element, nx: int) -> Bits:
    return opening(window, nx, element, (core[0].start, core[0].stop))


def _close(window: Bits, core: tuple[slice, ...], element: Element, nx: int) -> Bits:
    return closing(window, nx, element, (core[0].start, core[0].stop))


def _table(
    block: Bits, nx: int, recipe: MaskRecipe, buffer: SlabBuffer | None, starts: Edges, block_id: BlockId = None
) -> SlabTable | Bits:
    if block_id is None:
        return block
    if buffer is not None:
        buffer.put(int(starts[block_id[0]]), block)
    ends = (block_id[0] == 0, block_id[0] == len(starts) - 2)
    return table_of(label_runs(block, nx), recipe.min_voxels, recipe.cranial_axis, ends)


def _select(tables: list[SlabTable], min_voxels: int) -> KeptComponents:
    merged = merge_tables(tables)
    keep = is_lung(merged.components, min_voxels)
    kept = tuple(table.number[keep[number]] for table, number in zip(tables, merged.number, strict=True))
    return KeptComponents(kept, describe(merged, keep))


def _render(block: Bits, nx: int, selection: KeptComponents, block_id: BlockId = None) -> Bits:
    return _render_kept(block, nx, selection.kept[block_id[0]]) if block_id else block


def _render_buffered(
    kept: npt.NDArray[np.object_],
    buffer: SlabBuffer,
    starts: Edges,
    plane: tuple[int, int],
    nx: int,
    block_id: BlockId = None,
) -> Bits:
    if not block_id:
        return _META
    start, stop = starts[block_id[0] : block_id[0] + 2].tolist()
    components = kept[0, 0, 0]
    return (
        _render_kept(buffer.get(start, stop), nx, components)
        if len(components)
        else np.zeros((stop - start, *plane), np.uint64)
    )


def _render_kept(block: Bits, nx: int, kept: npt.NDArray[np.int32]) -> Bits:
    if not len(kept):
        return np.zeros_like(block)
    # Label the components again instead of keeping runs in memory until the selection: labels are always the same.
    runs = label_runs(block, nx)
    keep = np.zeros(runs.components, np.bool_)
    keep[kept] = True
    return render_components(runs, keep)
