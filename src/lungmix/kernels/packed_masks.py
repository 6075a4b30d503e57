"""Masks packed to one bit per voxel. Mask kernels work on this form, and tasks exchange it.

A word is 64 bits. Bit ``k`` of word ``w`` of a row is the voxel ``x = 64 w + k``. Bits past the end of a row are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel

Bits = npt.NDArray[np.uint64]

WORD = 64
"""Number of voxels in a word."""


def words_for(nx: int) -> int:
    """Return the number of words in a row of ``nx`` voxels."""
    return -(-nx // WORD)


def pack(mask: npt.NDArray[Any]) -> Bits:
    """Pack a mask of shape ``(z, y, x)``; voxels other than 0 are set.

    Returns
    -------
    ndarray of uint64, shape (z, y, words)
    """
    nz, ny, nx = mask.shape
    words = words_for(nx)
    rows = np.packbits(mask, axis=-1, bitorder="little")
    if rows.shape[-1] != words * 8:
        padded = np.zeros((nz, ny, words * 8), np.uint8)
        padded[..., : rows.shape[-1]] = rows
        rows = padded
    return rows.view("<u8").astype(np.uint64, copy=False)


def pack_below(hu: npt.NDArray[Any], threshold: int) -> Bits:
    """Return the packed mask of the voxels below a threshold.

    Parameters
    ----------
    hu : ndarray, shape (z, y, x)
        HU.
    threshold : int
        Threshold in HU; voxels at the threshold are not in the mask.
    """
    nz, ny, nx = hu.shape
    out = np.zeros((nz, ny, words_for(nx)), "<u8")
    rows = out.view(np.uint8)[..., : -(-nx // 8)]
    below = np.empty((ny, nx), np.bool_)
    for z in range(nz):
        np.less(hu[z], threshold, out=below)
        rows[z] = np.packbits(below, axis=-1, bitorder="little")
    return out.astype(np.uint64, copy=False)


def unpack(bits: Bits, nx: int) -> npt.NDArray[np.uint8]:
    """Return the mask of a packed mask whose rows have ``nx`` voxels, as uint8, 0 or 1; the inverse of `pack`."""
    rows = np.ascontiguousarray(bits, "<u8").view(np.uint8)
    return np.unpackbits(rows, axis=-1, count=nx, bitorder="little")


def span_of(is_set: npt.ArrayLike) -> slice | None:
    """Return the span from the first to the last True element of a boolean array of shape (n,); None if none is."""
    hits = np.flatnonzero(is_set)
    return slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else None


def bounding_box(bits: Bits) -> tuple[tuple[int, int], ...] | None:
    """Return, for z, y and x, the first index with a set voxel and the index after the last one.

    Return None if no voxel is set.
    """
    planes = np.flatnonzero(bits.reshape(len(bits), -1).any(axis=1))
    if not planes.size:
        return None
    flat = np.bitwise_or.reduce(bits[planes[0] : planes[-1] + 1], axis=0)
    rows = np.flatnonzero(flat.any(axis=1))
    columns = np.flatnonzero(unpack(np.bitwise_or.reduce(flat, axis=0)[None, None], flat.shape[1] * WORD))
    return tuple((int(hits[0]), int(hits[-1]) + 1) for hits in (planes, rows, columns))


def tail_mask(nx: int) -> np.uint64:
    """Return a word in which those bits are set that are voxels in the last word of a row of ``nx`` voxels."""
    rest = nx % WORD
    return np.uint64(0xFFFFFFFFFFFFFFFF if rest == 0 else (1 << rest) - 1)


_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_POSITION = np.zeros(64, np.uint8)
for _bit in range(64):
    _POSITION[((int(_DE_BRUIJN) << _bit) & 0xFFFFFFFFFFFFFFFF) >> 58] = _bit


@kernel(inline="always")
def lowest_bit(word):  # type: ignore[no-untyped-def]
    """Return the position of the lowest set bit of a word that is not 0."""
    lowest = word & (~word + np.uint64(1))
    return np.int64(_POSITION[np.int64((lowest * _DE_BRUIJN) >> np.uint64(58))])


@kernel(inline="always")
def count_bits(word):  # type: ignore[no-untyped-def]
    """Return the number of set bits of a word."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
