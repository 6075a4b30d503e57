"""Structure sets of radiotherapy (RTSTRUCT), whose contours are filled on the grid of a scan.

Source: DICOM PS3.3, C.8.8.5 (Structure Set) and C.8.8.6 (ROI Contour). A voxel belongs to a structure where its centre
lies inside an odd number of the structure's contours in its slice: a contour inside another contour is a hole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.masks.contour_planes import PlanarContours, place_contours
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
from lungmix.formats.masks.mask_file import Labels, MaskFile, Segment, write_over
from lungmix.formats.masks.words import LUNG_REGIONS, maker_of, region_of
from lungmix.formats.scan import fingerprint_of
from lungmix.geometry import Geometry
from lungmix.kernels.contours import crosses_itself

_KEYWORDS = (
    "SpecificCharacterSet", "FrameOfReferenceUID", "Manufacturer", "ManufacturerModelName",
    "ReferencedFrameOfReferenceSequence", "StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence",
)  # fmt: skip
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_NOT_CLOSED = {"POINT": "a point", "OPEN_PLANAR": "an open contour", "OPEN_NONPLANAR": "an open contour"}

_MAX_BYTES = 256 << 20
_MAX_STRUCTURES = 2000
_MAX_CONTOURS = 100_000
_MAX_POINTS = 5_000_000
_MAX_COORDINATE_MM = 1e6
_MAX_LENGTH_MM = 1e8
"""Greatest length of all contours of a structure together; contours of both lungs have about 1 km (1e6 mm)."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Structures:
    """Content of a structure set; `contours` are items of ContourSequence by the number of the structure."""

    segments: tuple[Segment, ...]
    contours: Mapping[int, list[Any]]
    series_uid: str | None
    frame_uid: str | None
    made_by: str | None


def open_rtstruct(path: Path) -> MaskFile:
    """Return the mask in an RTSTRUCT file. Contours of lungs are checked, other contours only when they are filled.

    Raises
    ------
    SourceError
        If the file is corrupt, has no contours or several frames of reference, or if a contour of a lung is open or
        crosses itself.
    """
    with corrupt_errors(path):
        structures = _read(path)
        for segment in structures.segments:
            if segment.region in LUNG_REGIONS:
                _check_contours(path, segment.number, _points_of(path, structures, segment.number))
    return MaskFile(
        path=str(path),
        kind="rtstruct",
        geometry=None,
        segments=structures.segments,
        series_uid=structures.series_uid,
        frame_uid=structures.frame_uid,
        made_by=structures.made_by,
        fingerprint=fingerprint_of([path]),
        reader=label_slabs_of,
        may_overlap=True,
    )


def label_slabs_of(mask: MaskFile, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
    """Yield labels of structures on a grid slab by slab; see `MaskFile.label_slabs`."""
    path = Path(mask.path)
    if not geometry.orientation_known:
        raise SourceError(
            f"{mark_path(path)} has contours in coordinates of the patient, and the scan does not say how its axes lie "
            "in the patient: give the CT series on which the contours were drawn"
        )
    placed: list[tuple[int, PlanarContours]] = []
    with corrupt_errors(path):
        structures = _read(path)
        for number, label in values.items():
            if number in structures.contours:
                contours = _points_of(path, structures, number)
                _check_contours(path, number, contours)
                placed.append((label, place_contours(path, number, contours, geometry)))
    for start in range(0, geometry.shape[0], thickness):
        stop = min(start + thickness, geometry.shape[0])
        slab = np.zeros((stop - start, *geometry.shape[1:]), np.uint8)
        for label, planes in placed:
            if mask.overlap is None:
                planes.paint(slab, start, label)
            else:
                filled = np.zeros_like(slab)
                planes.paint(filled, start, label)
                write_over(slab, filled, mask.overlap)
        yield slab


def _read(path: Path) -> _Structures:
    dataset = read_elements(path, _KEYWORDS, _MAX_BYTES).dataset
    if len(items_of(dataset, "StructureSetROISequence")) > _MAX_STRUCTURES:
        raise SourceError(f"{mark_path(path)} has more than {_MAX_STRUCTURES} structures: export fewer of them")
    contours: dict[int, list[Any]] = {}
    for item in items_of(dataset, "ROIContourSequence"):
        number, parts = number_of(item, "ReferencedROINumber"), items_of(item, "ContourSequence")
        if number is not None and parts:
            if number in contours:
                raise SourceError(f"{mark_path(path)} has the contours of structure {number} twice: export it again")
            contours[number] = parts
    if not contours:
        raise SourceError(f"{mark_path(path)} is an RTSTRUCT without contours: export it again")
    if sum(map(len, contours.values())) > _MAX_CONTOURS:
        raise SourceError(f"{mark_path(path)} has more than {_MAX_CONTOURS:,} contours: export fewer structures")
    observations = {
        number_of(item, "ReferencedROINumber"): item for item in items_of(dataset, "RTROIObservationsSequence")
    }
    segments, frames = [], set()
    for item in items_of(dataset, "StructureSetROISequence"):
        number = number_of(item, "ROINumber")
        if number is not None and number in contours:
            segments.append(_segment(number, item, observations.get(number, {})))
            frames.add(uid_of(item, "ReferencedFrameOfReferenceUID"))
    numbers = [segment.number for segment in segments]
    if len(set(numbers)) < len(numbers):
        raise SourceError(f"{mark_path(path)} has two structures of one number: export it again")
    references = items_of(dataset, "ReferencedFrameOfReferenceSequence")
    series = {
        uid_of(series, "SeriesInstanceUID")
        for reference in references
        for study in items_of(reference, "RTReferencedStudySequence")
        for series in items_of(study, "RTReferencedSeriesSequence")
    } - {None}
    if not frames - {None}:
        frames = {uid_of(reference, "FrameOfReferenceUID") for reference in references}
        frames |= {uid_of(dataset, "FrameOfReferenceUID")}
    frames -= {None}
    if len(frames) > 1:
        raise SourceError(
            f"{mark_path(path)} has structures in several frames of reference: export those of one CT series"
        )
    return _Structures(
        tuple(segments),
        contours,
        series.pop() if len(series) == 1 else None,
        frames.pop() if frames else None,
        maker_of(text_of(dataset, "Manufacturer"), text_of(dataset, "ManufacturerModelName")),
    )


def _segment(number: int, item: Any, observation: Any) -> Segment:
    name = text_of(item, "ROIName")
    for keyword in ("RTROIIdentificationCodeSequence", "SegmentedPropertyTypeCodeSequence"):
        coded = first_item(observation, keyword)
        code = code_of(coded)
        if code is not None:
            modifiers = codes_of(coded, "SegmentedPropertyTypeModifierCodeSequence")
            return Segment(number, name, code, region_of(name, code, modifiers))
    return Segment(number, name, None, region_of(name))


def _points_of(path: Path, structures: _Structures, number: int) -> list[Points]:
    """Return the points of the contours of a structure, in mm in the patient.

    Raises
    ------
    SourceError
        If a contour is open, has fewer than three points, or is corrupt.
    """
    contours, count = [], 0
    for item in structures.contours[number]:
        kind = text_of(item, "ContourGeometricType")
        if kind not in _CLOSED:
            what = _NOT_CLOSED.get(kind, "a contour of an unknown type")
            raise SourceError(
                f"{mark_path(path)} has {what} in structure {number}, which encloses no area: export it with closed "
                "contours"
            )
        points = _parse(path, number, item)
        count += len(points)
        if count > _MAX_POINTS:
            raise SourceError(
                f"{mark_path(path)} has more than {_MAX_POINTS:,} points in structure {number}: export fewer points"
            )
        contours.append(points)
    return contours


def _parse(path: Path, number: int, item: Any) -> Points:
    element = item.get_item("ContourData")
    value = None if element is None else element.value
    if isinstance(value, bytes):
        text = value.decode("ascii", "replace").rstrip(" \0")
        parts = text.split("\\") if text else []
    else:
        parts = [] if value is None else [str(part) for part in value]
    corrupt = SourceError(f"{mark_path(path)} has a corrupt contour in structure {number}: export it again")
    if not set("".join(parts)) <= set("0123456789+-.eE "):
        raise corrupt
    try:
        values = np.array([float(part) for part in parts])
    except ValueError:
        raise corrupt from None
    declared = number_of(item, "NumberOfContourPoints")
    if len(values) % 3 or declared not in (None, len(values) // 3):
        raise corrupt
    if not (np.abs(values) <= _MAX_COORDINATE_MM).all():
        raise corrupt
    points = values.reshape(-1, 3)
    if len(points) < 3:
        raise SourceError(
            f"{mark_path(path)} has a contour of fewer than 3 points in structure {number}: remove it and export again"
        )
    return points


def _check_contours(path: Path, number: int, contours: list[Points]) -> None:
    length = 0.0
    for points in contours:
        length += float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        if length > _MAX_LENGTH_MM:
            raise SourceError(
                f"{mark_path(path)} has contours of more than {_MAX_LENGTH_MM / 1e6:g} km in structure {number}: "
                "export it again"
            )
        # The contour is projected along the axis of the patient in which it extends least.
        seen = np.delete(points, int(np.argmin(np.ptp(points, axis=0))), axis=1)
        if crosses_itself(seen):
            raise SourceError(
                f"{mark_path(path)} has a contour that crosses itself in structure {number}, so its inside is not "
                "clear: correct it and export again"
            )
