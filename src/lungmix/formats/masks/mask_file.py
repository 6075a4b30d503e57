"""Files of lung masks and label maps, which are read slab by slab."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, error_about, mark_path
from lungmix.formats.header import PREFIX, largest_shift
from lungmix.geometry import Geometry
from lungmix.parameters import MaskParameters, mask_of_text

Labels = npt.NDArray[np.uint8]
SlabReader = Callable[["MaskFile", Mapping[int, int], Geometry, int], Iterator[Labels]]

MAX_SHIFT = 1e-3
"""Greatest distance in voxels between the same corner of two grids that count as equal."""


class EmptyMaskError(SourceError):
    """Error for a mask in which no voxel has a requested label; it is raised after the last slab."""


@dataclass(frozen=True, repr=False)
class Segment:
    """Segment of a mask: a label, a segment of DICOM SEG or 3D Slicer, or a structure of an RTSTRUCT.

    `repr` shows no name, because text of a file may name a patient.

    Attributes
    ----------
    number : int
        Voxel value, or number of the segment or structure in the file.
    name : str
        Name in the file, untrusted text; empty if the file gives none.
    code : tuple of str or None
        Coding scheme and code value of what the segment is; None if the file gives none.
    region : str or None
        Region or tissue that name and code stand for, see `lungmix.formats.masks.words`; None if they are unknown.
    """

    number: int
    name: str
    code: tuple[str, str] | None
    region: str | None

    def __repr__(self) -> str:
        return f"<Segment {self.number}: {self.region or 'unknown'}>"


@dataclass(frozen=True)
class Overlap:
    """Label to write to voxels that have labels of two groups, because segments, or files of a mask, overlap.

    Attributes
    ----------
    first, second : tuple of int
        Labels of the two groups.
    label : int
        Label to write.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    label: int

    def is_in(self, slabs: Sequence[Labels]) -> npt.NDArray[np.bool_]:
        """Return True for each voxel that has a label of the first group in a slab and one of the second in another."""
        shared: npt.NDArray[np.bool_] = np.logical_and(
            *(np.logical_or.reduce([np.isin(slab, group) for slab in slabs]) for group in (self.first, self.second))
        )
        return shared


def write_over(labels: Labels, written: Labels, overlap: Overlap | None = None) -> None:
    """Write labels over those of earlier segments, in place.

    Parameters
    ----------
    labels : ndarray of uint8
        Labels of earlier segments, which are changed.
    written : ndarray of uint8
        Labels of a segment; 0 writes nothing.
    overlap : Overlap, optional
        Label of voxels with two labels; without it the later label counts.
    """
    if overlap is not None:
        written = np.where(overlap.is_in([labels, written]), np.uint8(overlap.label), written)
        written[(labels == overlap.label) & np.isin(written, overlap.first + overlap.second)] = overlap.label
    np.copyto(labels, written, where=written > 0)


def parameters_in(keys: Mapping[str, str]) -> MaskParameters | None:
    """Return the parameters of a mask, or of its right and left lung, from keys that this package wrote to a header."""
    return mask_of_text(keys.get(f"{PREFIX}sides") or keys.get(f"{PREFIX}mask") or "")


@dataclass(frozen=True, repr=False)
class MaskFile:
    """Mask or label map that another program wrote; can be pickled, `repr` shows no names.

    Attributes
    ----------
    path : str
        Path of the file.
    kind : {"image", "seg", "rtstruct", "mixed"}
        Image file, DICOM segmentation, DICOM structure set, or files of several of these kinds.
    geometry : Geometry or None
        Grid of the labels; None for a structure set, whose contours are filled on any grid.
    segments : tuple of Segment
        Segments that the file names; empty for an image without names.
    series_uid : str or None
        SeriesInstanceUID of the CT series that the mask was made on; None if unknown.
    frame_uid : str or None
        FrameOfReferenceUID; None if unknown.
    made_by : str or None
        Program or manufacturer that wrote the file; None unless it is a known one.
    fingerprint : str
        Digest of the state of the file; contains no names.
    data_file : str or None
        Second file, with the voxels, for a header without voxels.
    file_count : int
        Number of files, see `lungmix.formats.masks.combined`.
    overlap : Overlap or None
        Label for voxels to which two segments give different labels; if None, the label of the later segment counts.
    reader : callable
        Function of the mask, values, geometry and thickness that yields the labels; see `label_slabs`.
    may_overlap : bool
        True where a voxel may belong to several segments.
    parameters : MaskParameters or None
        Parameters by which this package made the mask, or its right and left lung; None if the file has none.
    """

    path: str
    kind: Literal["image", "seg", "rtstruct", "mixed"]
    geometry: Geometry | None
    segments: tuple[Segment, ...]
    series_uid: str | None
    frame_uid: str | None
    made_by: str | None
    fingerprint: str
    data_file: str | None = None
    file_count: int = 1
    overlap: Overlap | None = None
    reader: SlabReader = field(kw_only=True)
    may_overlap: bool = field(default=False, kw_only=True)
    parameters: MaskParameters | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        return f"<MaskFile: {self.kind}, {len(self.segments)} segments>"

    def label_slabs(self, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
        """Yield labels on a grid slab by slab, from the first slice to the last.

        Parameters
        ----------
        values : mapping of int to int
            Label to yield, 1 to 255, by the number of a segment; all other voxels are 0. Where segments overlap, the
            last segment in the mapping counts.
        geometry : Geometry
            Grid of the labels to yield. For an image or a segmentation, it must contain the grid of the file, to
            within a thousandth of a voxel (`offset_in_grid`). For a structure set, any grid is possible.
        thickness : int
            Number of slices of a slab; the last slab may be thinner.

        Yields
        ------
        ndarray of uint8, shape (slices, y, x)
            Labels.

        Raises
        ------
        EmptyMaskError
            If no voxel has one of the labels, after the last slab.
        SourceError
            If the file is truncated or corrupt, or its grid is not contained in `geometry`.
        ValueError
            If a label is not from 1 to 255.
        """
        if not all(1 <= label <= 255 for label in values.values()):
            raise ValueError("labels to write must be from 1 to 255")
        grid = self.geometry or geometry
        offset = offset_in_grid(grid, geometry)
        if offset is None:
            raise SourceError(
                f"{mark_path(self.path)} has another grid than the scan: resample it first", path=self.path
            )
        is_empty = True
        with error_about(path=self.path):
            slabs = self.reader(self, values, grid, thickness)
            if grid.size != geometry.size:
                slabs = _surrounded(slabs, geometry.shape, offset, thickness)
            for slab in slabs:
                is_empty = is_empty and not slab.any()
                yield slab
            if is_empty:
                raise EmptyMaskError(
                    f"{mark_path(self.path)} has no voxel of the labels {_listed(values)}: check what its labels are"
                )


def is_same_grid(first: Geometry, second: Geometry) -> bool:
    """Return True if two grids have equal sizes, and no corner differs by more than a thousandth of a voxel."""
    return first.size == second.size and largest_shift(first, second) <= MAX_SHIFT


def offset_in_grid(part: Geometry, geometry: Geometry) -> tuple[int, int, int] | None:
    """Return the slice, row and column of a grid at which a part of it begins; None if `part` is not a part of it.

    Mask files may cover a part of the grid of a scan: DICOM SEG omits slices without a segment, and 3D Slicer saves
    only the box around all segments.

    Parameters
    ----------
    part : Geometry
        Grid that may be a part. Its corners may be up to a thousandth of a voxel away from voxels of `geometry`.
    geometry : Geometry
        The larger grid, or an equal one.
    """
    if part.size != geometry.size and not (part.orientation_known and geometry.orientation_known):
        return None
    steps = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    start = np.rint(np.linalg.solve(steps, np.subtract(part.origin, geometry.origin)))
    if (start < 0).any() or not (start + part.size <= geometry.size).all():
        return None
    origin = tuple(geometry.origin + steps @ start)
    if largest_shift(part, replace(geometry, size=part.size, origin=origin)) > MAX_SHIFT:
        return None
    x, y, z = (int(index) for index in start)
    return z, y, x


def _surrounded(
    slabs: Iterator[Labels], shape: tuple[int, int, int], offset: tuple[int, int, int], thickness: int
) -> Iterator[Labels]:
    """Yield slabs of a whole grid from slabs of a part of it; voxels outside the part are 0."""

    def parts() -> Iterator[Labels]:
        slices = offset[0]
        yield from empty_slabs(slices)
        for slab in slabs:
            placed = np.zeros((len(slab), *shape[1:]), np.uint8)
            placed[:, offset[1] : offset[1] + slab.shape[1], offset[2] : offset[2] + slab.shape[2]] = slab
            slices += len(slab)
            yield placed
        yield from empty_slabs(shape[0] - slices)

    def empty_slabs(count: int) -> Iterator[Labels]:
        for first in range(0, count, thickness):
            yield np.zeros((min(thickness, count - first), *shape[1:]), np.uint8)

    yield from rechunk(parts(), thickness)


def rechunk(slabs: Iterator[Labels], thickness: int) -> Iterator[Labels]:
    """Yield the same slices in slabs of `thickness` slices; the last slab may be thinner."""
    pending: list[Labels] = []
    count = 0
    for slab in slabs:
        start = 0
        while start < len(slab):
            part = slab[start : start + thickness - count]
            pending.append(part)
            count += len(part)
            start += len(part)
            if count == thickness:
                yield pending[0] if len(pending) == 1 else np.concatenate(pending)
                pending, count = [], 0
    if pending:
        yield np.concatenate(pending)


def _listed(values: Mapping[int, int]) -> str:
    numbers = sorted(values)
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
