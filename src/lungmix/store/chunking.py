"""Layout of volumes: levels, chunks, shards and the slabs that tasks read and write.

A slab is a range of slices whose shards, on every level, belong to no other slab. Tasks read and write whole slabs, so
that two tasks never write to the same shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zarr.codecs
from zarr.abc.codec import BytesBytesCodec

from lungmix.errors import AlignmentError, UsageError
from lungmix.geometry import Geometry
from lungmix.kernels.downsampling import mean_of_blocks
from lungmix.kernels.reduction import level_factors

_SLAB_BYTES = 64 << 20
_MAX_SLAB_SLICES = 64
_MIN_SLAB_SLICES = 8
_CHUNK_EDGE = 128
POSSIBLE_SLICES = (8, 16, 32, 64)
"""Valid values of `chunk_slices`, the slices of a chunk at full resolution. Chunks of coarser levels have fewer."""


@dataclass(frozen=True)
class Level:
    """One resolution of a volume.

    Attributes
    ----------
    factors : tuple of int
        Voxels of level 0 in one voxel of this level, along z, y, x.
    shape, chunks, shards : tuple of int
        Shapes of the zarr array, its chunks and its shards, voxels, ``(z, y, x)``.
    """

    factors: tuple[int, int, int]
    shape: tuple[int, int, int]
    chunks: tuple[int, int, int]
    shards: tuple[int, int, int]


@dataclass(frozen=True)
class Layout:
    """Division of a volume into levels, slabs, chunks and shards.

    Attributes
    ----------
    shape : tuple of int
        Shape of level 0, voxels, ``(z, y, x)``.
    slab : int
        Number of slices in a slab, a power of two.
    levels : tuple of Level
        Levels from the finest to the coarsest.
    """

    shape: tuple[int, int, int]
    slab: int
    levels: tuple[Level, ...]

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Yield ``(start, stop)`` of each slab: index of its first slice, and index after its last slice."""
        yield from self.within(0, self.shape[0])

    @property
    def stored(self) -> list[int]:
        """Number of slices of each slab."""
        return [stop - start for start, stop in self.slabs()]

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield ``(start, stop)`` of each slab in a range of slices that begins and ends at borders of slabs."""
        for first in range(start, stop, self.slab):
            yield first, min(first + self.slab, stop)

    def check(self, start: int, stop: int) -> None:
        """Raise `AlignmentError` unless slices ``start`` to ``stop`` (exclusive) are complete slabs."""
        depth = self.shape[0]
        if not 0 <= start < stop <= depth or start % self.slab or (stop % self.slab and stop != depth):
            raise AlignmentError(
                f"slices {start} to {stop} of {depth} do not cover whole shards of {self.slab} slices; "
                f"other slices of these shards would be lost: write multiples of {self.slab} slices"
            )


def check_slices(chunk_slices: int | None) -> None:
    """Raise `UsageError` if `chunk_slices` is neither None nor one of `POSSIBLE_SLICES`."""
    if chunk_slices is not None and chunk_slices not in POSSIBLE_SLICES:
        possible = ", ".join(map(str, POSSIBLE_SLICES))
        raise UsageError(f"chunks of {chunk_slices} slices are not possible: give one of {possible}")


def layout_of(geometry: Geometry, chunk_slices: int | None = None) -> Layout:
    """Return the levels, chunks and shards for the size and spacing of a volume.

    Parameters
    ----------
    geometry : Geometry
        Geometry of the volume.
    chunk_slices : int, optional
        Slices of a chunk and of a slab, one of `POSSIBLE_SLICES`. The default is the largest with which a shard has at
        most 64 MiB of int16 voxels, but at least 8. For a volume with fewer slices, the smallest number that covers the
        volume is used.

    Raises
    ------
    UsageError
        If `chunk_slices` is not valid.
    """
    check_slices(chunk_slices)
    shape = geometry.shape
    plane = shape[1] * shape[2] * 2
    slab, max_bytes = (_MAX_SLAB_SLICES, _SLAB_BYTES) if chunk_slices is None else (chunk_slices, chunk_slices * plane)
    while slab > _MIN_SLAB_SLICES and (slab * plane > max_bytes or slab // 2 >= shape[0]):
        slab //= 2
    levels = []
    for factors in level_factors(geometry.spacing_zyx):
        size = tuple(-(-n // f) for n, f in zip(shape, factors, strict=True))
        edges = [min(_CHUNK_EDGE, n) for n in size[1:]]
        depth = max(slab // factors[0], 1)
        chunks = (depth, edges[0], edges[1])
        shards = (depth, *(-(-n // edge) * edge for n, edge in zip(size[1:], edges, strict=True)))
        levels.append(Level(factors, size, chunks, shards))  # type: ignore[arg-type]
    return Layout(shape, slab, tuple(levels))


def codecs_for(dtype: npt.DTypeLike) -> list[BytesBytesCodec]:
    """Return the codecs of a data type: shuffled Zstandard for HU, plain Zstandard for labels; then a checksum."""
    checksum = zarr.codecs.Crc32cCodec()
    if np.dtype(dtype).itemsize > 1:
        return [zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), checksum]
    return [zarr.codecs.ZstdCodec(level=1), checksum]


def shrink_mean(slab: npt.NDArray[np.int16], factors: tuple[int, int, int]) -> npt.NDArray[np.int16]:
    """Return means of blocks of voxels, rounded half up; incomplete blocks are filled up with the last voxel."""
    if factors == (1, 1, 1):
        return slab
    return mean_of_blocks(slab, factors)


def shrink_nearest(slab: npt.NDArray[np.uint8], factors: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Return the first voxel of each block, so that labels are never averaged."""
    z, y, x = factors
    return slab[::z, ::y, ::x]
