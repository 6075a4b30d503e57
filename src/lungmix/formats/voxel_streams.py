"""Streams of voxels, read slab by slab as HU."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib

from lungmix.errors import SourceError, mark_path
from lungmix.formats.limits import MAX_EXPANSION, MIN_STREAM_BYTES

_BLOCK_BYTES = 1 << 20
_READ_BYTES = 16 << 20
DECOMPRESSION_ERRORS: tuple[Any, ...] = (zlib.error, isal_zlib.error, OSError)
"""Errors of decompression of corrupt bytes, besides `EOFError`."""


class ByteStream(Protocol):
    """Stream that is read sequentially."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


@dataclass(frozen=True)
class VoxelData:
    """Location and coding of the voxels of an image file.

    Attributes
    ----------
    file : str
        File that contains the voxels.
    offset : int
        Offset of the first voxel in bytes: in the decompressed stream for ``gzip-file``, else in the file.
    coding : {"raw", "gzip", "gzip-file", "bzip2", "zlib"}
        Compression of the voxels; ``gzip-file`` if the whole file is compressed.
    dtype : dtype
        Type of stored values, with byte order.
    slope, intercept : float
        HU of a stored value is ``slope * value + intercept``.
    """

    file: str
    offset: int
    coding: str
    dtype: np.dtype[Any]
    slope: float = 1.0
    intercept: float = 0.0


def voxel_slabs(data: VoxelData, shape: tuple[int, int, int], thickness: int) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the HU of a volume slab by slab; see `lungmix.formats.Scan.slabs`."""
    check_size(data, shape)
    nz, ny, nx = shape
    name = Path(data.file).name
    # Stored values may need four times the memory of HU, so only part of a slab is read at a time.
    step = max(_READ_BYTES // (ny * nx * data.dtype.itemsize), 1)
    with _open(data) as stream:
        for start in range(0, nz, thickness):
            slab = np.empty((min(thickness, nz - start), ny, nx), np.int16)
            for first in range(0, len(slab), step):
                part = slab[first : first + step]
                part[:] = to_hu(
                    _read(stream, data, part.shape, start + first, nz), data.slope, data.intercept, name, start + first
                )
            if start + len(slab) == nz:
                _check_end(stream, name)
            yield slab


def stored_slabs(
    data: VoxelData, shape: tuple[int, int, int], size: int, *, to_end: bool = False
) -> Iterator[npt.NDArray[Any]]:
    """Yield stored values, not HU, in slabs of up to `size` bytes and at least one slice.

    With `to_end` the end of the stream and its checksum are verified before the last slab.

    Raises
    ------
    SourceError
        If the file is truncated or too long.
    """
    check_size(data, shape)
    nz, ny, nx = shape
    step = max(size // (ny * nx * data.dtype.itemsize), 1)
    with _open(data) as stream:
        for start in range(0, nz, step):
            slab = _read(stream, data, (min(step, nz - start), ny, nx), start, nz)
            if to_end and start + len(slab) == nz:
                _check_end(stream, Path(data.file).name)
            yield slab


def check_size(data: VoxelData, shape: tuple[int, int, int]) -> None:
    """Check that a file can contain a volume of this shape, before any memory is allocated.

    Raises
    ------
    SourceError
        If the file is too short or too long.
    """
    declared = int(np.prod([int(n) for n in shape], dtype=object)) * data.dtype.itemsize
    available = max(Path(data.file).stat().st_size - (0 if data.coding == "gzip-file" else data.offset), 0)
    if declared > (available if data.coding == "raw" else available * MAX_EXPANSION + MIN_STREAM_BYTES):
        raise SourceError(
            f"{mark_path(data.file)} is cut short: its header declares {declared:,} bytes of voxels, "
            f"the file has {available:,}; get the file again"
        )
    if data.coding == "raw" and declared < available:
        raise _too_long_error(Path(data.file).name)


def _read(stream: ByteStream, data: VoxelData, shape: tuple[int, ...], first: int, slices: int) -> npt.NDArray[Any]:
    values = np.empty(shape, data.dtype)
    name = Path(data.file).name
    filled = _fill(stream, memoryview(values.reshape(-1).view(np.uint8)), name)  # type: ignore[arg-type]
    if filled < values.nbytes:
        raise SourceError(
            f"{mark_path(name)} is cut short: its voxels end in slice {first + filled // values[0].nbytes} of "
            f"{slices}; get the file again"
        )
    return values


def _check_end(stream: ByteStream, name: str) -> None:
    """Check that no bytes remain in the stream. Reading to its end also verifies the checksum of compressed data."""
    try:
        remaining = stream.read(1)
    except EOFError:
        raise SourceError(
            f"{mark_path(name)} is cut short: its compressed voxels have no end; get the file again"
        ) from None
    except DECOMPRESSION_ERRORS:
        raise _corrupt_error(name) from None
    if remaining:
        raise _too_long_error(name)


def _corrupt_error(name: str) -> SourceError:
    return SourceError(f"{mark_path(name)} is corrupt: its compressed voxels cannot be read; get the file again")


def _too_long_error(name: str) -> SourceError:
    return SourceError(f"{mark_path(name)} holds more voxels than its header declares: export the scan again")


def to_hu(
    values: npt.NDArray[Any], slope: float, intercept: float, name: str, first_slice: int
) -> npt.NDArray[np.int16]:
    """Return stored values as int16 HU, rounded to the nearest integer.

    Raises
    ------
    SourceError
        If a value is NaN, infinite or out of the range of int16.
    """
    is_identity = slope == 1.0 and intercept == 0.0
    if is_identity and values.dtype.kind == "i" and values.dtype.itemsize <= 2:
        return np.ascontiguousarray(values, np.int16)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is rejected below
        scaled = values if is_identity else values.astype(np.float64) * slope + intercept
    if scaled.dtype.kind == "f":
        not_finite = ~np.isfinite(scaled)
        if not_finite.any():
            z, y, x = (int(i) for i in np.argwhere(not_finite)[0])
            raise SourceError(
                f"{mark_path(name)} holds {scaled[z, y, x]} at slice {z + first_slice}, row {y}, column {x}: "
                "HU must be finite numbers; export it again as integers"
            )
        scaled = np.rint(scaled)
    low, high = scaled.min(initial=0), scaled.max(initial=0)
    if low < -32768 or high > 32767:
        raise SourceError(
            f"{mark_path(name)} has values from {low:g} to {high:g}, more than 16 bits hold: this is not a CT in HU; "
            "check its rescale slope and intercept"
        )
    return np.ascontiguousarray(scaled.astype(np.int16))


@contextmanager
def _open(data: VoxelData) -> Iterator[ByteStream]:
    with Path(data.file).open("rb") as file:
        if data.coding == "gzip-file":
            with igzip.IGzipFile(fileobj=file) as stream:
                _skip(stream, data.offset, Path(data.file).name)
                yield stream
            return
        file.seek(data.offset)
        if data.coding == "gzip":
            with igzip.IGzipFile(fileobj=file) as stream:
                yield stream
        elif data.coding == "bzip2":
            with bz2.BZ2File(file) as stream:
                yield stream
        elif data.coding == "zlib":
            yield _Inflate(file)
        else:
            yield file


class _Inflate:
    """Stream of zlib data that is decompressed with limited memory."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._inflate = zlib.decompressobj()
        self._unconsumed = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._inflate.eof:
            block = self._unconsumed or self._file.read(_BLOCK_BYTES)
            content = self._inflate.decompress(block, max(size, 1))
            self._unconsumed = self._inflate.unconsumed_tail
            if content:
                return content
            if not block:
                raise EOFError
        return b""


def _fill(stream: ByteStream, target: memoryview, name: str) -> int:
    filled = 0
    try:
        while filled < len(target):
            block = stream.read(min(len(target) - filled, 8 * _BLOCK_BYTES))
            if not block:
                break
            target[filled : filled + len(block)] = block
            filled += len(block)
    except EOFError:
        return filled
    except DECOMPRESSION_ERRORS:
        raise _corrupt_error(name) from None
    return filled


def _skip(stream: ByteStream, size: int, name: str) -> None:
    _fill(stream, memoryview(bytearray(size)), name)
