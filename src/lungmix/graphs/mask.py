"""The lung mask as a dask graph over slabs.

Masks travel packed at one bit a voxel. The islands of a slab are labelled where the slab is; only tables of them
meet in one task, which decides for all slabs what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from lungmix.errors import UsageError
from lungmix.graphs.overlap import map_slabs
from lungmix.kernels import mask as kernels
from lungmix.kernels.components import (
    Islands,
    Runs,
    islands_of,
    label_runs,
    merge_islands,
    paint,
    pairs_across,
)
from lungmix.kernels.element import Element
from lungmix.kernels.mask import Found, MaskRecipe, describe, qualifies, recipe_for
from lungmix.kernels.morphology import dilate, erode
from lungmix.kernels.packing import Bits, pack, packed_width, unpack
from lungmix.parameters import MaskParameters

Verdict = tuple[list[npt.NDArray[np.bool_]], Found]


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


def mask_graph(ct: da.Array, recipe: MaskRecipe) -> tuple[da.Array, Delayed]:
    """Lazy lung mask and what its search saw.

    Parameters
    ----------
    ct : dask array of int, shape (z, y, x)
        HU, any chunks.
    recipe : MaskRecipe
        The steps in voxels.

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
    nz, ny, nx = slabs.shape
    width = packed_width(nx)
    chunks = (slabs.chunks[0], (ny,), (width,))
    air = slabs.map_blocks(_pack_air, threshold=recipe.threshold, dtype=np.uint8, chunks=chunks, meta=_META)
    opened = air
    if not recipe.opening.is_point:
        halo = 2 * recipe.opening.extent[0]
        opened = map_slabs(_open_packed, air, halo, halo, element=recipe.opening, nx=nx)
    kept, found = _keep_islands(opened, recipe, nx)
    lung = kept
    for element in recipe.closings:
        halo, wide = element.extent[0], nx + 2 * recipe.margin[2]
        lung = map_slabs(_dilate_packed, lung, halo, halo, element=element, nx=wide)
        lung = map_slabs(_erode_packed, lung, halo, halo, element=element, nx=wide)
    margin_z, margin_y, margin_x = recipe.margin
    lung = lung[margin_z : margin_z + nz].rechunk({0: slabs.chunks[0]})
    lung = lung.map_blocks(
        _unpack_core,
        margin_y=margin_y,
        margin_x=margin_x,
        nx=nx,
        dtype=np.uint8,
        chunks=slabs.chunks,
        meta=_META,
    )
    return lung, found


_META = np.empty((0, 0, 0), np.uint8)


def _keep_islands(opened: da.Array, recipe: MaskRecipe, nx: int) -> tuple[da.Array, Delayed]:
    """Packed slabs of the islands that are lung, in a domain that is wider by the recipe's margin."""
    blocks = opened.to_delayed().reshape(-1)
    runs = [dask.delayed(_label)(block, nx) for block in blocks]
    tables = [dask.delayed(islands_of)(one) for one in runs]
    # Faces are cut out where the slab is, so that no slab travels for the sake of one plane.
    faces = [dask.delayed(_faces)(one) for one in runs]
    pairs = [dask.delayed(_pairs)(below, above) for below, above in zip(faces, faces[1:], strict=False)]
    verdict = dask.delayed(_judge)(tables, pairs, recipe.min_voxels)
    margin_z, margin_y, margin_x = recipe.margin
    ny, width = opened.shape[1] + 2 * margin_y, packed_width(nx + 2 * margin_x)
    painted = []
    for i, (one, depth) in enumerate(zip(runs, opened.chunks[0], strict=True)):
        before, after = margin_z if i == 0 else 0, margin_z if i == len(runs) - 1 else 0
        slab = dask.delayed(_paint_packed)(one, verdict, i, ((before, after), (margin_y,) * 2, (margin_x,) * 2))
        painted.append(da.from_delayed(slab, (depth + before + after, ny, width), np.uint8, _META))
    return da.concatenate(painted), dask.delayed(_found)(verdict)


def _pack_air(hu: npt.NDArray[np.int16], threshold: int) -> Bits:
    return pack(np.less(hu, threshold))


def _open_packed(window: Bits, planes: tuple[int, int], element: Element, nx: int) -> Bits:
    return pack(dilate(erode(unpack(window, nx), element), element, planes))


def _dilate_packed(window: Bits, planes: tuple[int, int], element: Element, nx: int) -> Bits:
    return pack(dilate(unpack(window, nx), element, planes))


def _erode_packed(window: Bits, planes: tuple[int, int], element: Element, nx: int) -> Bits:
    return pack(erode(unpack(window, nx), element, planes))


def _label(block: Bits, nx: int) -> Runs:
    return label_runs(unpack(block, nx))


def _faces(runs: Runs) -> tuple[Runs, Runs]:
    return runs.plane(0), runs.plane(runs.shape[0] - 1)


def _pairs(below: tuple[Runs, Runs], above: tuple[Runs, Runs]) -> npt.NDArray[np.int32]:
    return pairs_across(below[1], above[0])


def _judge(tables: list[Islands], pairs: list[npt.NDArray[np.int32]], min_voxels: int) -> Verdict:
    numbers, islands = merge_islands(tables, pairs)
    keep = qualifies(islands, min_voxels)
    return [keep[number] for number in numbers], describe(islands, keep)


def _found(verdict: Verdict) -> Found:
    return verdict[1]


def _paint_packed(runs: Runs, verdict: Verdict, index: int, pad: tuple[tuple[int, int], ...]) -> Bits:
    return pack(np.pad(paint(runs, verdict[0][index]), pad))


def _unpack_core(block: Bits, margin_y: int, margin_x: int, nx: int) -> npt.NDArray[np.uint8]:
    core = block[:, margin_y : block.shape[1] - margin_y]
    return np.ascontiguousarray(unpack(core, margin_x + nx)[:, :, margin_x:])
