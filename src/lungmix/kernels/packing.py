"""Masks at one bit a voxel: what travels between tasks and waits in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint8]


def packed_width(nx: int) -> int:
    """Bytes of a packed row of ``nx`` voxels."""
    return -(-nx // 8)


def pack(mask: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]) -> Bits:
    """Pack the last axis of a mask, 8 voxels a byte."""
    return np.packbits(mask, axis=-1)


def unpack(bits: Bits, nx: int) -> npt.NDArray[np.uint8]:
    """Inverse of `pack` for rows of ``nx`` voxels; 0 or 1."""
    return np.unpackbits(bits, axis=-1, count=nx)
