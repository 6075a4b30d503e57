"""Tissue labels and their median as dask graphs over slabs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import numpy.typing as npt

from lungmix.arrays import volume
from lungmix.errors import UsageError
from lungmix.geometry import AxisOrder, axis_order
from lungmix.graphs.overlap import map_with_halo
from lungmix.kernels import median
from lungmix.kernels.labels import look_up

if TYPE_CHECKING:
    from lungmix.mixture import TissueModel

Labels = npt.NDArray[np.uint8]

_META = np.empty((0, 0, 0), np.uint8)


def tissue_labels(
    ct: npt.NDArray[Any] | da.Array, mask: npt.NDArray[Any] | da.Array, model: TissueModel
) -> Labels | da.Array:
    """Return the tissue of each lung voxel: the component with the highest posterior.

    Parameters
    ----------
    ct : numpy or dask array of int16, shape (z, y, x)
        HU.
    mask : numpy or dask array, same shape
        Lung mask; voxels other than 0 are lung.
    model : TissueModel
        The mixture.

    Returns
    -------
    numpy or dask array of uint8, shape (z, y, x)
        0 outside the lung, else 1 to the number of components; ties go to the lower label. Lazy if `ct` or `mask`
        is.

    Raises
    ------
    UsageError
        If the shapes differ.
    """
    if ct.shape != mask.shape:
        raise UsageError(f"CT and mask have different shapes, {ct.shape} and {mask.shape}: give the mask of this CT")
    ct, mask = volume(ct, "the CT"), volume(mask, "the mask")
    table = model.lookup_table()
    if isinstance(ct, da.Array) or isinstance(mask, da.Array):
        lazy = da.asarray(ct)
        # map_blocks pairs blocks by their index, whatever their shapes.
        return da.map_blocks(_look_up, lazy, da.asarray(mask).rechunk(lazy.chunks), table=table, dtype=np.uint8)
    return _look_up(np.asarray(ct), np.asarray(mask), table)


def median_labels(
    labels: Labels | da.Array, size: int = 4, *, direction: Sequence[float] | None = None
) -> Labels | da.Array:
    """Return the median filter of label maps, equal to ``scipy.ndimage.median_filter(labels, size=size)``.

    A window of even size is not symmetric. It is oriented as in the axial array, so that labels do not depend on the
    storage order of the voxels.

    Parameters
    ----------
    labels : numpy or dask array of uint8, shape (z, y, x)
        Labels whose order has a meaning, such as tissues by density.
    size : int
        Edge of the window in voxels, 1 to 15. The window of 4 reaches from -2 to +1 on each axis.
    direction : sequence of 9 floats, optional
        Direction cosines as in ``case.geometry.direction``: on axes that run to the feet, to the front or to the
        right of the patient the window of 4 reaches from -1 to +2. By default the array is axial: its axes run to
        the head, to the back and to the left.

    Returns
    -------
    numpy or dask array of uint8, shape (z, y, x)
        The same kind of array as `labels`, with the same chunks.
    """
    flipped = order_of(direction).flipped
    labels = volume(labels, "the label map")
    if isinstance(labels, da.Array):
        halos = median.window_of(size, flipped)
        return map_with_halo(_median_core, labels, halos, size=size, flipped=flipped).rechunk(labels.chunks)
    return median.median_labels(np.asarray(labels, np.uint8), size, flipped)


def order_of(direction: Sequence[float] | None) -> AxisOrder:
    """Return the order of the axes of an array in the patient; that of an axial array if `direction` is None.

    Raises
    ------
    UsageError
        If `direction` does not hold 9 cosines.
    """
    if direction is None:
        return AxisOrder()
    cosines = [float(value) for value in np.ravel(direction)]
    if len(cosines) != 9 or not all(isfinite(value) for value in cosines):
        raise UsageError("direction needs 9 finite cosines: give geometry.direction")
    return axis_order(cosines)


def _look_up(ct: npt.NDArray[Any], mask: npt.NDArray[Any], table: Labels) -> Labels:
    if ct.dtype != np.int16:
        low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
        ct = np.clip(ct, low, high).astype(np.int16)
    return look_up(ct, np.asarray(mask != 0).view(np.uint8), table)


def _median_core(window: Labels, core: tuple[slice, ...], size: int, flipped: tuple[bool, bool, bool]) -> Labels:
    # Copy, since a view would keep the result for the whole window in memory.
    return np.ascontiguousarray(median.median_labels(window, size, flipped)[core])
