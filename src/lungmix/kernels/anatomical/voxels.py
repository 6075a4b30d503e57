"""Lung voxels of a slab of the full scan, from its air and the zones of the reduced copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels.anatomical.zones import Codes, Zone
from lungmix.kernels.morphology import closing
from lungmix.kernels.packed_masks import Bits, pack, unpack
from lungmix.kernels.structuring_elements import Element

RIGHT, LEFT, DENSE_RIGHT, DENSE_LEFT = 1, 2, 3, 4
"""Labels of `lung_voxels`: aerated right and left lung, dense right and left lung."""

Span = tuple[int, int]

_CODES = np.arange(256, dtype=np.uint8)
_LUNG = np.uint8(Zone.NEAR | Zone.INNER | Zone.DENSE)
_SIDE = Zone.RIGHT | Zone.LEFT


def _table(side: int, bits: int, value: int) -> npt.NDArray[np.bool_]:
    """Return for each code whether it is of a side and has these values of some bits."""
    return np.asarray((side == (_CODES & _SIDE)) & ((_CODES & bits) == value))


_SIDE_TABLE = {side: _table(side, 0, 0) for side in (1, 2)}
_NEAR_TABLE = {side: _table(side, Zone.NEAR | Zone.AIRWAY, Zone.NEAR) for side in (1, 2)}
_INNER_TABLE = {side: _table(side, Zone.INNER, Zone.INNER) for side in (1, 2)}
_DENSE_TABLE = {side: _table(side, Zone.DENSE, Zone.DENSE) for side in (1, 2)}
_AIRWAY_TABLE = np.asarray((_CODES & Zone.AIRWAY) > 0)


def lung_voxels(air: Bits, nx: int, codes: Codes, element: Element, planes: Span | None = None) -> Codes:
    """Return the lung voxels of some planes.

    Parameters
    ----------
    air : ndarray of uint64, shape (z, y, words)
        Packed air; planes before and after those of the result are a halo of twice the extent of the element.
    nx : int
        Voxels in a row.
    codes : ndarray of uint8, shape (z, y, nx)
        `Zone` of each voxel, that of its reduced voxel.
    element : Element
        Structuring element of the closing of each lung.
    planes : tuple of int, optional
        First and one past the last plane of the result; all of them by default.

    Returns
    -------
    ndarray of uint8, shape (planes, y, nx)
        0 outside the lungs, 1 and 2 for aerated right and left lung, 3 and 4 for dense right and left lung.
    """
    first, stop = planes or (0, len(air))
    out = np.zeros((stop - first, *codes.shape[1:]), np.uint8)
    rows = np.flatnonzero((codes & _LUNG).any(axis=(0, 2)))
    if not rows.size:
        return out
    # Voxels outside the box of a lung stay 0: a closing sets nothing outside the bounding box of its mask.
    span = slice(int(rows[0]), int(rows[-1]) + 1)
    codes, is_air = codes[:, span], unpack(air[:, span], nx).view(np.bool_)
    for side, aerated_label, dense_label in ((Zone.RIGHT, RIGHT, DENSE_RIGHT), (Zone.LEFT, LEFT, DENSE_LEFT)):
        columns = np.flatnonzero(_SIDE_TABLE[side][codes].any(axis=(0, 1)))
        if not columns.size:
            continue
        box = (slice(None), slice(None), slice(int(columns[0]), int(columns[-1]) + 1))
        zones, gas = codes[box], is_air[box]
        core, window = zones[first:stop], out[:, span][box]
        aerated = gas & _NEAR_TABLE[side][zones] | _INNER_TABLE[side][zones]
        allowed = _SIDE_TABLE[side][core] & ~(gas[first:stop] & _AIRWAY_TABLE[core])
        dense = _DENSE_TABLE[side][zones]
        if dense.any():
            window[_closed(aerated | dense, element, (first, stop)) & allowed] = dense_label
        if aerated.any():
            window[_closed(aerated, element, (first, stop)) & allowed] = aerated_label
    return out


def spread(codes: Codes, factors: Sequence[int], indices: Sequence[npt.NDArray[np.int64]]) -> Codes:
    """Return the codes of full voxels: each has that of the reduced voxel that contains it.

    Parameters
    ----------
    codes : ndarray of uint8, shape (z, y, x)
        Reduced voxels.
    factors : sequence of int
        Voxels in a reduced one along z, y, x.
    indices : sequence of ndarray of int64
        Index of the full voxels along z, y, x.
    """
    z, y, x = (
        np.minimum(index // factor, n - 1) for index, factor, n in zip(indices, factors, codes.shape, strict=True)
    )
    return np.asarray(codes[np.ix_(z, y, x)])


def _closed(mask: npt.NDArray[np.bool_], element: Element, planes: Span) -> npt.NDArray[np.bool_]:
    nx = mask.shape[2]
    bits = closing(pack(np.ascontiguousarray(mask).view(np.uint8)), nx, element, planes)
    return unpack(bits, nx).view(np.bool_)
