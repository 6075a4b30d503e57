"""Lung mask of the preset ``anatomical``, of an array in memory or as a dask graph; see ``docs/anatomical.md``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.graphs.memory import mask_chunks
from lungmix.graphs.overlap import whole_steps
from lungmix.kernels.anatomical import find_zones, lung_masks
from lungmix.kernels.anatomical.zones import Codes
from lungmix.kernels.mask import anatomical_threshold
from lungmix.kernels.packed_masks import pack_below, unpack
from lungmix.kernels.reduction import ReducedGrid, Reduction, reduction_of
from lungmix.kernels.structuring_elements import Element, ellipsoid
from lungmix.parameters import ANATOMICAL_CLOSING_MM, MaskParameters


def anatomical_mask(ct: Any, geometry: Geometry, parameters: MaskParameters) -> npt.NDArray[np.uint8] | da.Array:
    """Return the lung mask of a volume of HU, 0 or 1, as a numpy or dask array like `ct`.

    Parameters
    ----------
    ct : numpy or dask array of int, shape (z, y, x)
        HU.
    geometry : Geometry
        Spacing, orientation and position of the array in the patient.
    parameters : MaskParameters
        Parameters of the mask, of which only the HU threshold of air is used.
    """
    order, axial_geometry = geometry.axis_order, geometry.axial
    axial: Any = order.to_axial(ct)
    spacing = axial_geometry.spacing_zyx
    if 0 in ct.shape:
        return da.zeros(ct.shape, np.uint8) if isinstance(ct, da.Array) else np.zeros(ct.shape, np.uint8)
    threshold = anatomical_threshold(parameters, spacing)
    grid = ReducedGrid(reduction_of(spacing), axial_geometry.first_index)
    element = ellipsoid(ANATOMICAL_CLOSING_MM, spacing)
    if not isinstance(axial, da.Array):
        hu = np.ascontiguousarray(axial, np.int16)
        codes = find_zones(
            grid.reduction.apply(grid.complete(hu)), threshold, grid.reduction.spacing(spacing), grid.first_reduced
        )
        lung = _lung(hu, codes, grid, threshold, element, 0)
        return np.ascontiguousarray(order.from_axial(lung))
    lazy: Any = order.from_axial(_graph(axial, spacing, threshold, grid, element))
    chunks: Any = ct.chunks
    return lazy if lazy.chunks == chunks else lazy.rechunk(chunks)


def _graph(ct: da.Array, spacing: Sequence[float], threshold: int, grid: ReducedGrid, element: Element) -> da.Array:
    """Return the lazy lung mask of an axial array, whose axes run to the head, to the back and to the left."""
    reduction = grid.reduction
    complete: Any = da.pad(ct, [(n, 0) for n in grid.missing], mode="edge")
    steps = tuple(whole_steps(chunks, n) for chunks, n in zip(complete.chunks, reduction.factors, strict=True))
    reduced_chunks = tuple(
        tuple(-(-chunk // n) for chunk in chunks) for chunks, n in zip(steps, reduction.factors, strict=True)
    )
    reduced = complete.rechunk(steps).map_blocks(
        _reduce, reduction=reduction, dtype=np.int16, meta=np.empty((0, 0, 0), np.int16), chunks=reduced_chunks
    )
    codes = dask.delayed(find_zones)(reduced, threshold, reduction.spacing(spacing), grid.first_reduced)
    halo = 2 * element.extent[0]
    edges = np.cumsum([0, *mask_chunks(ct.chunks[0], ct.shape[1], ct.shape[2], halo, None)]).tolist()
    lung = dask.delayed(_lung)
    slabs = []
    for start, stop in pairwise(edges):
        low, high = max(0, start - halo), min(ct.shape[0], stop + halo)
        slab = lung(ct[low:high], codes, grid, threshold, element, low, (start - low, stop - low))
        slabs.append(da.from_delayed(slab, (stop - start, *ct.shape[1:]), np.uint8))
    return da.concatenate(slabs)


def _reduce(block: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[np.int16]:
    return reduction.apply(np.ascontiguousarray(block, np.int16))


def _lung(
    ct: npt.NDArray[Any],
    codes: Codes,
    grid: ReducedGrid,
    threshold: int,
    element: Element,
    first: int,
    planes: tuple[int, int] | None = None,
) -> npt.NDArray[np.uint8]:
    """Return the lung mask of some planes of a slab; by default, of all planes.

    `ct` is the slab, which begins at plane `first` of the volume, and `codes` are the zones of the reduced voxels of
    the whole volume. Planes of the slab that are not in `planes` are a halo.
    """
    indices = [np.arange(first, first + len(ct)), *(np.arange(n) for n in ct.shape[1:])]
    air = pack_below(np.ascontiguousarray(ct, np.int16), threshold)
    masks = lung_masks(air, codes, grid.indices(codes.shape, indices), element, planes)
    return unpack(np.bitwise_or.reduce(masks), ct.shape[2])
