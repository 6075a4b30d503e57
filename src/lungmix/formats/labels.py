"""Detection of label maps: images of few small non-negative integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError
from lungmix.formats.voxel_streams import VoxelData, stored_slabs

_MAX_LABELS = 200
"""Greatest number of distinct values of a label map; an image with more values is a grey-scale image."""

_LABEL_LIMIT = 1 << 16
_MAX_CHANGES = 0.2
"""Greatest fraction of neighbours along a row with different values. Labels fill regions: in a map of lungs and vessels
at 4 mm one pair of neighbours in twenty differs; in a CT, four pairs in five."""

_MIN_BACKGROUND = 0.2
"""Smallest fraction of voxels that are 0."""

_MAX_LISTED = 5
_SLAB_BYTES = 4 << 20
_MAX_READ_BYTES = 512 << 20


def labels_of(data: VoxelData, shape: tuple[int, int, int]) -> str | None:
    """Return the values of a label map as text, or None for any other image.

    Reading stops at the first negative value or after 200 distinct values: in a CT mostly within the first slices.

    Parameters
    ----------
    data : VoxelData
        Location and coding of the voxels.
    shape : tuple of int
        Shape of the volume, z, y, x.
    """
    if (data.slope, data.intercept) != (1.0, 0.0):
        return None
    values: set[int] = set()
    changes = pairs = voxels = background = 0
    try:
        for slab in stored_slabs(data, shape, _SLAB_BYTES):
            labels = _labels_in(slab)
            if labels is None:
                return None
            values |= labels
            if len(values) > _MAX_LABELS:
                return None
            pairs += slab[:, :, 1:].size
            background += slab.size - int(np.count_nonzero(slab))
            voxels += slab.size
            if len(labels) > 1:
                changes += int(np.count_nonzero(slab[:, :, 1:] != slab[:, :, :-1]))
            if voxels * slab.itemsize >= _MAX_READ_BYTES:
                break
    except SourceError:  # the stage convert, which reads to the end, reports the error
        return None
    # Eight bits cannot hold the HU of air, so an 8-bit image of a single value is an empty label map.
    is_empty = len(values) == 1 and data.dtype.itemsize == 1
    is_map = len(values) > 1 and changes <= _MAX_CHANGES * pairs and background >= _MIN_BACKGROUND * voxels
    if is_empty or is_map:
        return _describe_values(sorted(values))
    return None


def _labels_in(slab: npt.NDArray[Any]) -> set[int] | None:
    """Return the values of a slab, or None if one of them is not a small non-negative integer."""
    low, high = slab.min(), slab.max()
    if not (low >= 0 and high < _LABEL_LIMIT):  # also rejects NaN
        return None
    if slab.dtype.kind == "f" and not (slab == np.rint(slab)).all():
        return None
    if low == high:
        return {int(low)}
    return set(np.flatnonzero(np.bincount(slab.ravel().astype(np.intp))).tolist())


def _describe_values(values: Sequence[int]) -> str:
    words = [str(value) for value in values[:_MAX_LISTED]]
    if len(values) > _MAX_LISTED:
        return f"{', '.join(words)} and {len(values) - _MAX_LISTED} more integers"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
