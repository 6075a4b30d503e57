"""Axial slices of a case whose array may be stored in any order of axes: read their HU, and bring back their labels.

Segmenters work on axial slices: perpendicular to the axis from feet to head, counted from the feet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.segmenters import AxialSlices
from lungmix.store import CaseFiles


def batches(depth: int, batch_slices: int, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the batches of axial slices between `start` and `stop`, as pairs: first slice, and slice after the last.

    Parameters
    ----------
    depth : int
        Number of axial slices of the scan.
    batch_slices : int
        Slices per batch; the last batch may have fewer.
    start : int
        First slice; a multiple of `batch_slices`.
    stop : int, optional
        Slice after the last; by default all slices up to `depth`.
    """
    end = depth if stop is None else min(stop, depth)
    for first in range(start, end, batch_slices):
        yield first, min(first + batch_slices, end)


def read_axial(case: CaseFiles, first: int, stop: int, image: str) -> AxialSlices:
    """Return axial slices of an image.

    The array may hold its slices along any axis, from feet to head or from head to feet.

    Parameters
    ----------
    case : CaseFiles
        The case.
    first, stop : int
        Range of slices, counted from the feet.
    image : str
        Name of the image, ``ct`` or ``harmonised``.
    """
    geometry = case.geometry
    order, shape = geometry.axis_order, geometry.shape
    axis = order.cranial_axis
    low, high = _in_array(geometry, first, stop)
    index = [slice(None)] * 3
    index[axis] = slice(low, high)
    if axis == 0:
        box = case.read(image, low, high)
    else:
        array = case.zarr_array(image)
        sizes = [*shape]
        sizes[axis] = high - low
        box = np.empty(sizes, np.int16)
        for start, end in case.layout.slabs():
            box[start:end] = array[start:end, index[1], index[2]]
    hu = np.ascontiguousarray(order.to_axial(box), np.int16)
    total = shape[axis]
    return AxialSlices(hu, first, total, order.by_patient(geometry.spacing_zyx))


def in_array(case: CaseFiles, name: str, start: int, stop: int) -> npt.NDArray[Any]:
    """Return values in the storage order of a scan, slices ``start`` to ``stop``, from values of its axial slices.

    Parameters
    ----------
    case : CaseFiles
        The case.
    name : str
        Temporary array with values of all axial slices.
    start, stop : int
        Range along the first axis of the stored array.
    """
    order, depth = case.geometry.axis_order, case.geometry.shape[0]
    axis = order.axes.index(0)
    box = [slice(None)] * 3
    box[axis] = slice(depth - stop, depth - start) if order.flipped[0] else slice(start, stop)
    return np.ascontiguousarray(order.from_axial(case.read_temporary(name, (box[0], box[1], box[2]))))


def _in_array(geometry: Geometry, first: int, stop: int) -> tuple[int, int]:
    """Return the range of indices that axial slices have along their axis of the stored array."""
    axis = geometry.axis_order.cranial_axis
    depth = geometry.shape[axis]
    return (depth - stop, depth - first) if geometry.axis_order.flipped[axis] else (first, stop)
