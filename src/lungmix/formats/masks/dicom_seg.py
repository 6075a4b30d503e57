"""DICOM segmentations (SEG): binary, fractional and label maps, whose frames may come in any order and with gaps.

Source: DICOM PS3.3, A.51 and C.8.20. A voxel belongs to a segment of a fractional segmentation where its value is at
least half of MaximumFractionalValue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.elements import RawHeader
from lungmix.formats.limits import MAX_SLICE_PIXELS
from lungmix.formats.masks.dicom_file import (
    code_of,
    codes_of,
    corrupt_errors,
    first_item,
    items_of,
    number_of,
    read_elements,
    text_of,
    uid_of,
)
from lungmix.formats.masks.images import relabel
from lungmix.formats.masks.mask_file import Labels, MaskFile, Overlap, Segment, parameters_in, write_over
from lungmix.formats.masks.seg_grid import FramePosition, grid_of_frames
from lungmix.formats.masks.seg_pixels import FramePixels, open_pixels
from lungmix.formats.masks.words import canonical_code, maker_of, region_of
from lungmix.formats.scan import fingerprint_of
from lungmix.geometry import Geometry
from lungmix.parameters import MaskParameters

_KEYWORDS = (
    "SpecificCharacterSet", "FrameOfReferenceUID", "Manufacturer", "ManufacturerModelName", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "SegmentationType", "MaximumFractionalValue",
    "SegmentSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence",
)  # fmt: skip
_BITS = {"BINARY": (1, 8), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}
_MAX_BYTES = 256 << 20
_MAX_FRAMES = 1 << 18
_MAX_SEGMENTS = 1 << 16
# Codes of types of a segment that are too general to name a region: tissue, organ, anatomical structure.
_GENERIC_TYPES = {
    ("SCT", "85756007"), ("SRT", "T-D0050"), ("SCT", "113343008"), ("SCT", "91723000"), ("SRT", "T-D000A"),
    ("SCT", "123037004"),
}  # fmt: skip


@dataclass(frozen=True)
class _Segmentation:
    """Header of a segmentation.

    Attributes
    ----------
    kind : {"BINARY", "FRACTIONAL", "LABELMAP"}
        SegmentationType.
    threshold : int
        Smallest stored value inside a segment.
    geometry : Geometry
        Grid of the frames.
    frames : mapping of (int, int) to int
        Index of the frame of a segment (0 in a label map) in a slice of the grid.
    pixels : FramePixels
        Location of the pixels.
    elements : RawHeader
        All elements before the pixels.
    """

    kind: str
    threshold: int
    geometry: Geometry
    frames: Mapping[tuple[int, int], int]
    pixels: FramePixels
    elements: RawHeader


def open_seg(path: Path) -> MaskFile:
    """Return the mask in a DICOM segmentation; its pixels are not read.

    Raises
    ------
    SourceError
        If the file is corrupt or truncated, its frames form no grid, or it names no CT series that it was made on.
    """
    with corrupt_errors(path):
        segmentation = _read(path)
        dataset = segmentation.elements.dataset
        series = {uid_of(item, "SeriesInstanceUID") for item in items_of(dataset, "ReferencedSeriesSequence")} - {None}
        if not series:
            raise SourceError(f"{mark_path(path)} names no series that it was made on: export it with its CT series")
        return MaskFile(
            path=str(path),
            kind="seg",
            geometry=segmentation.geometry,
            segments=_segments(path, dataset),
            series_uid=series.pop() if len(series) == 1 else None,
            frame_uid=uid_of(dataset, "FrameOfReferenceUID"),
            made_by=maker_of(text_of(dataset, "ManufacturerModelName"), text_of(dataset, "Manufacturer")),
            fingerprint=fingerprint_of([path]),
            reader=label_slabs_of,
            may_overlap=segmentation.kind != "LABELMAP",
            parameters=_parameters(dataset),
        )


def label_slabs_of(mask: MaskFile, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
    """Yield labels of segments slab by slab; see `MaskFile.label_slabs`."""
    path = Path(mask.path)
    with corrupt_errors(path):
        segmentation = _read(path)
    with path.open("rb") as stream:
        for start in range(0, geometry.shape[0], thickness):
            slab = np.zeros((min(thickness, geometry.shape[0] - start), *geometry.shape[1:]), np.uint8)
            with corrupt_errors(path):
                for number, plane in enumerate(slab, start=start):
                    _paint(plane, stream, segmentation, number, values, mask.overlap)
            yield slab


def _paint(
    plane: Labels,
    stream: Any,
    segmentation: _Segmentation,
    number: int,
    values: Mapping[int, int],
    overlap: Overlap | None,
) -> None:
    pixels, frames = segmentation.pixels, segmentation.frames
    if segmentation.kind == "LABELMAP":
        if (0, number) in frames:
            plane[:] = relabel(pixels.read(stream, frames[0, number]), values)
        return
    for segment, label in values.items():
        if (segment, number) in frames:
            is_inside = pixels.read(stream, frames[segment, number]) >= segmentation.threshold
            write_over(plane, np.where(is_inside, np.uint8(label), np.uint8(0)), overlap)


def _read(path: Path) -> _Segmentation:
    elements = read_elements(path, _KEYWORDS, _MAX_BYTES)
    dataset = elements.dataset
    kind = text_of(dataset, "SegmentationType").upper()
    bits, samples = number_of(dataset, "BitsAllocated"), number_of(dataset, "SamplesPerPixel")
    rows, columns = number_of(dataset, "Rows") or 0, number_of(dataset, "Columns") or 0
    count = number_of(dataset, "NumberOfFrames") or 0
    if kind not in _BITS or bits not in _BITS[kind] or samples != 1:
        raise SourceError(
            f"{mark_path(path)} is a segmentation of an unsupported type: export it as binary, fractional or label map"
        )
    if min(rows, columns, count) < 1 or rows * columns > MAX_SLICE_PIXELS or count > _MAX_FRAMES:
        raise SourceError(
            f"{mark_path(path)} declares {count} frames of {columns} x {rows} pixels, which no CT has: its header is "
            "corrupt; export it again"
        )
    positions, segments = _positions(path, dataset, kind, count)
    geometry, slices = grid_of_frames(path, positions, (rows, columns))
    frames: dict[tuple[int, int], int] = {}
    for index, key in enumerate(zip(segments, slices, strict=True)):
        if frames.setdefault(key, index) != index:
            raise SourceError(f"{mark_path(path)} has two frames of one segment in one slice: export it again")
    greatest = number_of(dataset, "MaximumFractionalValue") or 255
    threshold = -(-greatest // 2) if kind == "FRACTIONAL" else 1
    pixels = open_pixels(path, elements, (rows, columns), bits or 1, count)
    return _Segmentation(kind, max(threshold, 1), geometry, frames, pixels, elements)


def _positions(path: Path, dataset: Any, kind: str, count: int) -> tuple[list[FramePosition], list[int]]:
    """Return position and segment number of each frame, from its own functional groups or else the shared ones."""
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    groups = items_of(dataset, "PerFrameFunctionalGroupsSequence")
    if len(groups) != count:
        raise SourceError(
            f"{mark_path(path)} describes {len(groups)} of its {count} frames, so their slices are not known: export "
            "it again"
        )
    positions, segments = [], []
    for group in groups:

        def item(keyword: str, frame: Any = group) -> Any:
            return first_item(frame if keyword in frame else shared, keyword)

        measures = item("PixelMeasuresSequence")
        positions.append(
            FramePosition(
                _numbers(item("PlanePositionSequence"), "ImagePositionPatient", 3),
                _numbers(item("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
                _numbers(measures, "PixelSpacing", 2),
                _steps(measures),
            )
        )
        identity = item("SegmentIdentificationSequence")
        segments.append(0 if kind == "LABELMAP" else number_of(identity, "ReferencedSegmentNumber") or 0)
    if None in (value for position in positions for value in (position.origin, position.axes, position.spacing)):
        raise SourceError(f"{mark_path(path)} does not say where its frames lie in the patient: export it again")
    return positions, segments


def _numbers(dataset: Any, keyword: str, length: int) -> tuple[float, ...] | None:
    value = dataset.get(keyword)
    if value is None or isinstance(value, str) or not hasattr(value, "__len__") or len(value) != length:
        return None
    numbers = tuple(float(part) for part in value)
    return numbers if np.isfinite(numbers).all() and np.abs(numbers).max() < 1e6 else None


def _steps(measures: Any) -> tuple[float, ...]:
    """Return the distances between slices that a frame declares, mm: SpacingBetweenSlices, then SliceThickness."""
    values = [measures.get(keyword) for keyword in ("SpacingBetweenSlices", "SliceThickness")]
    steps = [abs(float(value)) for value in values if value not in (None, "")]
    return tuple(step for step in steps if 0 < step < 1e6)


def _segments(path: Path, dataset: Any) -> tuple[Segment, ...]:
    items = items_of(dataset, "SegmentSequence")
    if len(items) > _MAX_SEGMENTS:
        raise SourceError(f"{mark_path(path)} has more than {_MAX_SEGMENTS} segments: export fewer of them")
    segments = [_segment(item) for item in items if number_of(item, "SegmentNumber")]
    if len({segment.number for segment in segments}) < len(segments):
        raise SourceError(f"{mark_path(path)} has two segments of one number: export it again")
    return tuple(segments)


def _parameters(dataset: Any) -> MaskParameters | None:
    """Return the parameters of the mask that an export of this package records in AlgorithmParameters."""
    identifications = (
        first_item(segment, "SegmentationAlgorithmIdentificationSequence")
        for segment in items_of(dataset, "SegmentSequence")
    )
    texts = (text_of(identification, "AlgorithmParameters") for identification in identifications)
    pairs = (pair.partition("=") for text in texts for pair in text.split(","))
    return parameters_in({key: value for key, _, value in pairs})


def _segment(item: Any) -> Segment:
    name, coded = text_of(item, "SegmentLabel"), first_item(item, "SegmentedPropertyTypeCodeSequence")
    place = first_item(item, "AnatomicRegionSequence")
    code, modifiers = code_of(coded), codes_of(coded, "SegmentedPropertyTypeModifierCodeSequence")
    sides = codes_of(place, "AnatomicRegionModifierSequence")
    region = region_of(name, code, modifiers or sides)
    if region is None and code is not None and canonical_code(code) in _GENERIC_TYPES:
        region = region_of(name, code_of(place), sides)
    return Segment(number_of(item, "SegmentNumber") or 0, name, code, region)
