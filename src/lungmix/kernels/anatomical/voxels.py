"""Lung voxels of a slab of the full scan, from its air and the zones of the reduced copy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lungmix.kernels.anatomical.zones import Codes, Mask, Zone
from lungmix.kernels.morphology import closing
from lungmix.kernels.packed_masks import WORD, Bits, pack, span_of, unpack, words_for
from lungmix.kernels.structuring_elements import Element

N_PARTS = 4
"""Aerated right and left lung, dense right and left lung; their labels are 1 to 4."""

Span = tuple[int, int]
Indices = tuple[npt.NDArray[np.int64], ...]

_LUNG = np.uint8(Zone.NEAR | Zone.INNER | Zone.DENSE)
_SIDE = np.uint8(Zone.RIGHT | Zone.LEFT)


def lung_masks(air: Bits, codes: Codes, indices: Indices, element: Element, planes: Span | None = None) -> Bits:
    """Return the packed masks of the parts of the lungs on some planes; no voxel is in two of them.

    Parameters
    ----------
    air : ndarray of uint64, shape (z, y, words)
        Packed air; planes before and after those of the result are a halo of twice the extent of the element.
    codes : ndarray of uint8, shape (reduced z, reduced y, reduced x)
        `Zone` of each reduced voxel.
    indices : tuple of ndarray of int64
        Index of the reduced voxel of each voxel of the air along z, y, x, as by
        `lungmix.kernels.reduction.ReducedGrid.indices`.
    element : Element
        Structuring element of the closing of each lung.
    planes : tuple of int, optional
        First and one past the last plane of the result; all of them by default.

    Returns
    -------
    ndarray of uint64, shape (4, planes, y, words)
        Aerated right and left lung, dense right and left lung.
    """
    core = slice(*(planes or (0, len(air))))
    out = np.zeros((N_PARTS, core.stop - core.start, *air.shape[1:]), np.uint64)
    first, last = int(indices[0].min()), int(indices[0].max())
    codes = codes[first : last + 1]
    z, y, x = indices[0] - first, *indices[1:]
    for part, side in enumerate((Zone.RIGHT, Zone.LEFT)):
        of_side = (codes & _SIDE) == side
        lung = of_side & ((codes & _LUNG) > 0)
        # Voxels outside the box of a lung stay 0: a closing sets nothing outside the bounding box of its mask.
        rows, columns = span_of(lung.any(axis=(0, 2))[y]), span_of(lung.any(axis=(0, 1))[x])
        if rows is None or columns is None:
            continue
        words = slice(columns.start // WORD, words_for(columns.stop))
        gas = air[:, rows, words]
        x_of_words = x[words.start * WORD : words.stop * WORD]
        near, inner, dense, airway, within = (
            _spread(mask, z, y[rows], x_of_words)
            for mask in (
                of_side & ((codes & (Zone.NEAR | Zone.AIRWAY)) == Zone.NEAR),
                *(of_side & ((codes & zone) > 0) for zone in (Zone.INNER, Zone.DENSE, Zone.AIRWAY)),
                of_side,
            )
        )
        aerated = gas & near | inner
        allowed = within[core] & ~(gas[core] & airway[core])
        window = out[:, :, rows, words]
        window[part] = closing(aerated, len(x_of_words), element, (core.start, core.stop)) & allowed
        if dense.any():
            both = closing(aerated | dense, len(x_of_words), element, (core.start, core.stop)) & allowed
            window[part + 2] = both & ~window[part]
    return out


def labels_of(masks: Bits, nx: int) -> Codes:
    """Return the labels of `lung_masks` with rows of `nx` voxels: uint8, 0 outside the lungs."""
    out = np.zeros((*masks.shape[1:3], nx), np.uint8)
    rows = span_of(masks.any(axis=(0, 1, 3)))
    if rows is not None:
        for label, mask in enumerate(masks[:, :, rows], 1):
            if mask.any():
                out[:, rows] += np.uint8(label) * unpack(mask, nx)
    return out


def _spread(mask: Mask, z: npt.NDArray[np.int64], y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]) -> Bits:
    """Return the packed mask of voxels whose reduced voxel is in a mask."""
    return pack(mask[:, :, x])[np.ix_(z, y)]
