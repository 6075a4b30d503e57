"""Label maps: images of few small whole numbers, which name structures and are no CT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError
from lungmix.formats.voxel_streams import VoxelData, stored_slabs

_MOST_LABELS = 200
"""More is a grey scale."""

_HIGHEST_LABEL = 1 << 16
_ROUGHEST = 0.2
"""Share of neighbours along a row that may differ. Labels fill regions: in a map of lungs and vessels at 4 mm one in
twenty differs; in a CT, four in five."""

_BACKGROUND = 0.2
"""Share of voxels that have no label at least."""

_SHOWN = 5
_AT_ONCE = 4 << 20
_MOST_READ = 512 << 20


def labels_of(data: VoxelData, shape: tuple[int, int, int]) -> str | None:
    """Return the values of a label map in words, or None for everything else.

    A CT is known by its first values below 0 or its many values, mostly in its first slices: no more of it is read.

    Parameters
    ----------
    data : VoxelData
        Where the voxels are.
    shape : tuple of int
        Of the volume.
    """
    if (data.slope, data.intercept) != (1.0, 0.0):
        return None
    values: set[int] = set()
    differ = pairs = voxels = background = 0
    try:
        for slab in stored_slabs(data, shape, _AT_ONCE):
            labels = _labels_in(slab)
            if labels is None:
                return None
            values |= labels
            if len(values) > _MOST_LABELS:
                return None
            pairs += slab[:, :, 1:].size
            background += slab.size - int(np.count_nonzero(slab))
            voxels += slab.size
            if len(labels) > 1:
                differ += int(np.count_nonzero(slab[:, :, 1:] != slab[:, :, :-1]))
            if voxels * slab.itemsize >= _MOST_READ:
                break
    except SourceError:  # as the conversion says, which reads to the end
        return None
    # Eight bits do not hold the HU of air: an image of one value is an empty map.
    is_empty = len(values) == 1 and data.dtype.itemsize == 1
    is_map = len(values) > 1 and differ <= _ROUGHEST * pairs and background >= _BACKGROUND * voxels
    if is_empty or is_map:
        return _in_words(sorted(values))
    return None


def _labels_in(slab: npt.NDArray[Any]) -> set[int] | None:
    """Return the values of a slab, or None if one of them is no small whole number from 0 on."""
    low, high = slab.min(), slab.max()
    if not (low >= 0 and high < _HIGHEST_LABEL):  # which NaN is not either
        return None
    if slab.dtype.kind == "f" and not (slab == np.rint(slab)).all():
        return None
    if low == high:
        return {int(low)}
    return set(np.flatnonzero(np.bincount(slab.ravel().astype(np.intp))).tolist())


def _in_words(values: Sequence[int]) -> str:
    words = [str(value) for value in values[:_SHOWN]]
    if len(values) > _SHOWN:
        return f"{', '.join(words)} and {len(values) - _SHOWN} more whole numbers"
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
