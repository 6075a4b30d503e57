"""Voxels from a stream of bytes, slab by slab, as HU."""

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
from lungmix.formats.limits import FREE_IN_STREAM, MOST_EXPANSION

_PIECE = 1 << 20
_AT_ONCE = 16 << 20
DAMAGED: tuple[Any, ...] = (zlib.error, isal_zlib.error, OSError)
"""What decompression raises at damaged bytes, besides `EOFError`."""


class ByteStream(Protocol):
    """What can be read from its beginning to its end."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""


@dataclass(frozen=True)
class VoxelData:
    """Where the voxels of an image file are and how they are coded.

    Attributes
    ----------
    file : str
        The file that holds them.
    offset : int
        Bytes before the first voxel, counted after decompression for ``gzip-file``, before it else.
    coding : {"raw", "gzip", "gzip-file", "bzip2", "zlib"}
        Compression.
    dtype : dtype
        With its byte order.
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
    """HU of a volume slab by slab; see `lungmix.formats.Scan.slabs`."""
    check_size(data, shape)
    nz, ny, nx = shape
    name = Path(data.file).name
    # Stored values may be four times as long as HU: they are never held for a whole slab.
    step = max(_AT_ONCE // (ny * nx * data.dtype.itemsize), 1)
    with _opened(data) as stream:
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


def stored_slabs(data: VoxelData, shape: tuple[int, int, int], size: int) -> Iterator[npt.NDArray[Any]]:
    """Give stored values, not HU, in slabs of some bytes and at least one slice.

    Raises
    ------
    SourceError
        If the file is cut short or too long.
    """
    check_size(data, shape)
    nz, ny, nx = shape
    step = max(size // (ny * nx * data.dtype.itemsize), 1)
    with _opened(data) as stream:
        for start in range(0, nz, step):
            yield _read(stream, data, (min(step, nz - start), ny, nx), start, nz)


def check_size(data: VoxelData, shape: tuple[int, int, int]) -> None:
    """Refuse a size that the file cannot hold, or does not fill, before any memory is asked for.

    Raises
    ------
    SourceError
        If the file is too short or too long.
    """
    wanted = int(np.prod([int(n) for n in shape], dtype=object)) * data.dtype.itemsize
    there = max(Path(data.file).stat().st_size - (0 if data.coding == "gzip-file" else data.offset), 0)
    if wanted > (there if data.coding == "raw" else there * MOST_EXPANSION + FREE_IN_STREAM):
        raise SourceError(
            f"{mark_path(data.file)} is cut short: its header promises {wanted:,} bytes of voxels, "
            f"the file has {there:,}; get the file again"
        )
    if data.coding == "raw" and wanted < there:
        raise _too_long(Path(data.file).name)


def _read(stream: ByteStream, data: VoxelData, shape: tuple[int, ...], first: int, slices: int) -> npt.NDArray[Any]:
    values = np.empty(shape, data.dtype)
    name = Path(data.file).name
    filled = _fill(stream, memoryview(values.reshape(-1).view(np.uint8)), name)  # type: ignore[arg-type]
    if filled < values.nbytes:
        raise SourceError(
            f"{mark_path(name)} is cut short: its voxels end in slice {first + filled // values[0].nbytes} of "
            f"{slices}; "
            "get the file again"
        )
    return values


def _check_end(stream: ByteStream, name: str) -> None:
    """Read on to the end, where compressed streams carry their checksum; there must be nothing more."""
    try:
        more = stream.read(1)
    except EOFError:
        raise SourceError(
            f"{mark_path(name)} is cut short: its compressed voxels have no end; get the file again"
        ) from None
    except DAMAGED:
        raise _damaged(name) from None
    if more:
        raise _too_long(name)


def _damaged(name: str) -> SourceError:
    return SourceError(f"{mark_path(name)} is damaged: its compressed voxels cannot be read; get the file again")


def _too_long(name: str) -> SourceError:
    return SourceError(
        f"{mark_path(name)} holds more voxels than its header promises: one of them is wrong; export the scan again"
    )


def to_hu(
    values: npt.NDArray[Any], slope: float, intercept: float, name: str, first_slice: int
) -> npt.NDArray[np.int16]:
    """Stored values as int16 HU, rounded to the nearest integer.

    Raises
    ------
    SourceError
        If a value is NaN or infinite, or lies outside int16.
    """
    plain = slope == 1.0 and intercept == 0.0
    if plain and values.dtype.kind == "i" and values.dtype.itemsize <= 2:
        return np.ascontiguousarray(values, np.int16)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        scaled = values if plain else values.astype(np.float64) * slope + intercept
    if scaled.dtype.kind == "f":
        bad = ~np.isfinite(scaled)
        if bad.any():
            z, y, x = (int(i) for i in np.argwhere(bad)[0])
            raise SourceError(
                f"{mark_path(name)} holds {scaled[z, y, x]} at slice {z + first_slice}, row {y}, column {x}: "
                "a CT has finite HU; export it again as integers"
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
def _opened(data: VoxelData) -> Iterator[ByteStream]:
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
    """A zlib stream that is read as it is inflated, with bounded memory."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._inflate = zlib.decompressobj()
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._inflate.eof:
            piece = self._rest or self._file.read(_PIECE)
            out = self._inflate.decompress(piece, max(size, 1))
            self._rest = self._inflate.unconsumed_tail
            if out:
                return out
            if not piece:
                raise EOFError
        return b""


def _fill(stream: ByteStream, target: memoryview, name: str) -> int:
    filled = 0
    try:
        while filled < len(target):
            piece = stream.read(min(len(target) - filled, 8 * _PIECE))
            if not piece:
                break
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
    except EOFError:
        return filled
    except DAMAGED:
        raise _damaged(name) from None
    return filled


def _skip(stream: ByteStream, size: int, name: str) -> None:
    _fill(stream, memoryview(bytearray(size)), name)
