"""Masks that consist of several files, each with other parts of the lungs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.limits import check_geometry
from lungmix.formats.masks.mask_file import EmptyMaskError, Labels, MaskFile, Segment, offset_in_grid, rechunk
from lungmix.geometry import Geometry

T = TypeVar("T")

_HIGHEST_VALUE = 255
_SLAB_BYTES = 64 << 20
"""Bytes of the slabs of all files that are in memory at once, where slices are large."""


@dataclass(frozen=True, repr=False)
class MaskPart:
    """One of the files that a mask consists of; `repr` shows no names.

    Attributes
    ----------
    mask : MaskFile
        The file.
    region : str or None
        Region that the file name states, for an image whose header names no labels: all its voxels that are not 0,
        which must have one value. None for a file whose header names its segments.
    """

    mask: MaskFile
    region: str | None = None

    def __repr__(self) -> str:
        return f"<MaskPart: {self.region or len(self.mask.segments)}>"

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments that the header of the file names, or one segment for the region that the file name states."""
        return self.mask.segments if self.region is None else (Segment(1, "", None, self.region),)

    def slabs(self, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
        """Yield labels slab by slab, see `MaskFile.label_slabs`; a file without voxels of these labels is no error."""
        stored = {value: value for value in range(1, _HIGHEST_VALUE + 1)}
        seen: set[int] = set()
        try:
            for slab in self.mask.label_slabs(values if self.region is None else stored, geometry, thickness):
                if self.region is None:
                    yield slab
                    continue
                seen.update((np.flatnonzero(np.bincount(slab.reshape(-1))[1:]) + 1).tolist())
                if len(seen) > 1:
                    raise SourceError(
                        f"{mark_path(self.mask.path)} is one part of the lungs by its name, but has the labels "
                        f"{', '.join(map(str, sorted(seen)[:5]))}: give one file per part, or one file with all parts"
                    )
                yield np.where(slab > 0, np.uint8(values[1]), np.uint8(0))
        except EmptyMaskError:
            return


def combine(parts: Sequence[MaskPart]) -> MaskFile:
    """Return several files as one mask, whose segments are numbered from 1, file by file.

    Parameters
    ----------
    parts : sequence of MaskPart
        The files, in any order.

    Raises
    ------
    SourceError
        If their grids are neither equal nor parts of one grid.
    """
    parts = sorted(parts, key=lambda part: part.mask.path)
    segments: list[Segment] = []
    numbers: list[dict[int, int]] = []
    for part in parts:
        first = len(segments) + 1
        numbers.append({first + index: segment.number for index, segment in enumerate(part.segments)})
        segments += [replace(segment, number=first + index) for index, segment in enumerate(part.segments)]
    masks = [part.mask for part in parts]
    # The digest contains the regions, which file names may state: it changes if two files exchange their names.
    states = sorted(
        f"{part.mask.fingerprint} {[(segment.number, segment.region) for segment in part.segments]}" for part in parts
    )
    kinds = {mask.kind for mask in masks}
    return MaskFile(
        path=masks[0].path,
        kind=kinds.pop() if len(kinds) == 1 else "mixed",
        geometry=_common_grid(masks),
        segments=tuple(segments),
        series_uid=_common([mask.series_uid for mask in masks]),
        frame_uid=_common([mask.frame_uid for mask in masks]),
        made_by=_common([mask.made_by for mask in masks]),
        fingerprint=hashlib.sha256("\n".join(states).encode()).hexdigest(),
        may_overlap=True,
        parameters=_common([mask.parameters for mask in masks]),
        file_count=sum(mask.file_count for mask in masks),
        reader=CombinedReader(tuple(zip(parts, numbers, strict=True))),
    )


@dataclass(frozen=True, repr=False)
class CombinedReader:
    """Reader of several files slab by slab, see `MaskFile.label_slabs`; `repr` shows no names.

    Attributes
    ----------
    parts : tuple of (MaskPart, mapping of int to int)
        The files, each with a mapping from the number of a segment in the combined mask to its number in the file.
    """

    parts: tuple[tuple[MaskPart, Mapping[int, int]], ...]

    def __repr__(self) -> str:
        return f"<CombinedReader: {len(self.parts)} files>"

    def __call__(
        self, mask: MaskFile, values: Mapping[int, int], geometry: Geometry, thickness: int
    ) -> Iterator[Labels]:
        """Yield the labels of all files; files without a requested segment are not read."""
        # Where files overlap, the label of the highest rank counts, whatever the order of the files.
        ranks, labels = _ranks_of(values)
        requests = []
        for part, numbers in self.parts:
            ranked = {numbers[number]: rank for number, rank in ranks.items() if number in numbers}
            if ranked:
                requests.append((part, ranked))
        _, ny, nx = geometry.shape
        slices = max(min(thickness, _SLAB_BYTES // (nx * ny * max(len(requests), 1))), 1)
        streams = [part.slabs(ranked, geometry, slices) for part, ranked in requests]
        yield from rechunk(_merged(mask, streams, labels), thickness)


def _merged(mask: MaskFile, streams: Sequence[Iterator[Labels]], labels: npt.NDArray[np.uint8]) -> Iterator[Labels]:
    """Yield the label of the highest rank at each voxel, from streams of slabs of ranks, one stream per file."""
    while streams:
        # Every stream is read to its end, because a file is checked after its last slab.
        slabs = [slab for stream in streams if (slab := next(stream, None)) is not None]
        if not slabs:
            return
        if len({slab.shape for slab in slabs}) > 1 or len(slabs) < len(streams):
            raise SourceError(
                f"{mark_path(mask.path)} and the other files of this mask do not hold the slices that they declare: "
                "get the files again"
            )
        written = labels[np.maximum.reduce(slabs)]
        if mask.overlap is not None:
            written[mask.overlap.is_in([labels[slab] for slab in slabs])] = mask.overlap.label
        yield written


def _ranks_of(values: Mapping[int, int]) -> tuple[dict[int, int], npt.NDArray[np.uint8]]:
    """Return the rank of each segment number, higher for labels later in the mapping, and the label of each rank."""
    labels = [0]
    ranks: dict[int, int] = {}
    for number, label in values.items():
        if label != labels[-1]:
            labels.append(label)
        ranks[number] = len(labels) - 1
    if len(labels) > _HIGHEST_VALUE + 1:
        raise ValueError(f"{len(labels) - 1} labels to write, but a voxel of 8 bits holds at most {_HIGHEST_VALUE}")
    return ranks, np.array(labels, np.uint8)


def _common(values: Sequence[T | None]) -> T | None:
    """Return the only value besides None; None if there are several values, or none."""
    distinct = {*values} - {None}
    return distinct.pop() if len(distinct) == 1 else None


def _common_grid(masks: Sequence[MaskFile]) -> Geometry | None:
    """Return the smallest grid that contains the grids of all files; None if a file has contours instead of a grid."""
    grids = [mask.geometry for mask in masks if mask.geometry is not None]
    if len(grids) < len(masks):
        return None
    reference = max(grids, key=lambda grid: (grid.size, grid.origin))
    steps = np.reshape(reference.direction, (3, 3)) * reference.spacing
    # Grids may differ in size: 3D Slicer saves only the box around the segments of a file.
    starts = [np.rint(np.linalg.solve(steps, np.subtract(grid.origin, reference.origin))) for grid in grids]
    first = np.min(starts, axis=0)
    last = np.max([start + grid.size for start, grid in zip(starts, grids, strict=True)], axis=0)
    if np.abs([first, last]).max() < np.iinfo(np.int32).max:
        x, y, z = (int(count) for count in last - first)
        common = replace(reference, size=(x, y, z), origin=tuple(reference.origin + steps @ first))
        if all(offset_in_grid(grid, common) is not None for grid in grids):
            check_geometry(Path(masks[0].path), common)
            return common
    raise SourceError(
        f"{mark_path(masks[0].path)} and {mark_path(masks[1].path)} are parts of one mask with different grids: export "
        "them on the grid of the scan"
    )
