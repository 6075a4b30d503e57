"""Tissue labels and their median filter, of arrays in memory or as dask graphs over slabs."""

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
    """Return the tissue of each lung voxel: the component of the mixture that is most probable for its HU.

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
        0 outside the lung; inside, 1 to the number of components. If two components are equally probable, it is the
        lower label. The array is a dask array if `ct` or `mask` is.

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
        # map_blocks pairs blocks by their index, even if their shapes differ: give the mask the chunks of the CT.
        return da.map_blocks(_look_up, lazy, da.asarray(mask).rechunk(lazy.chunks), table=table, dtype=np.uint8)
    return _look_up(np.asarray(ct), np.asarray(mask), table)


def median_labels(
    labels: Labels | da.Array, size: int = 4, *, direction: Sequence[float] | None = None
) -> Labels | da.Array:
    """Return the median filter of a label map, equal to ``scipy.ndimage.median_filter(labels, size=size)``.

    A window of even size extends further to one side of a voxel than to the other. The sides are those of the patient,
    so that labels do not depend on the order in which voxels are stored.

    Parameters
    ----------
    labels : numpy or dask array of uint8, shape (z, y, x)
        Labels whose order has a meaning, such as tissues by density.
    size : int
        Edge of the window in voxels, 1 to 15. A window of 4 voxels begins 2 voxels before a voxel and ends 1 after it.
    direction : sequence of 9 floats, optional
        Direction cosines as in ``case.geometry.direction``. On axes that run to the feet, to the front or to the right
        of the patient, a window of 4 voxels begins 1 voxel before a voxel and ends 2 after it. By default the array is
        axial: its axes run to the head, to the back and to the left.

    Returns
    -------
    numpy or dask array of uint8, shape (z, y, x)
        Filtered labels, as an array of the same kind as `labels`, with the same chunks.
    """
    flipped = order_of(direction).flipped
    labels = volume(labels, "the label map")
    if isinstance(labels, da.Array):
        halos = median.window_of(size, flipped)
        return map_with_halo(_median_core, labels, halos, size=size, flipped=flipped).rechunk(labels.chunks)
    return median.median_labels(np.asarray(labels, np.uint8), size, flipped)


def order_of(direction: Sequence[float] | None) -> AxisOrder:
    """Return the directions of array axes in the patient, given direction cosines; those of an axial array if None.

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
    # Copy the core, since a view of it would keep the result for the whole window in memory.
    return np.ascontiguousarray(median.median_labels(window, size, flipped)[core])
