"""Headers of the frames of enhanced multi-frame CT, like the headers of single-slice files (DICOM PS3.3, C.7.6.16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset

from lungmix.errors import count_of
from lungmix.formats.dicom.checks import GIVE_ORIGINAL, check_coding
from lungmix.formats.dicom.elements import RawHeader
from lungmix.formats.dicom.header import Header, find_missing_rescale

_MAX_FRAMES = 100_000


class FrameCountError(ValueError):
    """Error for a file with an inconsistent or too large number of frames; the message follows "the file"."""


def read_frame_headers(header: Header, elements: RawHeader) -> list[Header]:
    """Return one header per frame, from the shared functional groups and those of the frame, which take precedence.

    Raises
    ------
    FrameCountError
        If the number of frame descriptions differs from the number of frames, or is too large.
    """
    shared = _first(elements.dataset, "SharedFunctionalGroupsSequence")
    frames = elements.dataset.PerFrameFunctionalGroupsSequence
    if len(frames) != header.frames:
        raise FrameCountError(f"describes {count_of(len(frames), 'frame')} and declares {header.frames:,}")
    if len(frames) > _MAX_FRAMES:
        raise FrameCountError(f"has {count_of(len(frames), 'frame')}, more than any CT")
    signed = elements.short("PixelRepresentation") == 1
    # Values that a single-slice file has at the top level, such as the spacing, are in the functional groups here.
    header = replace(header, inconsistency=check_coding(elements) or "")
    return [_header(header, index, frame, shared, signed) for index, frame in enumerate(frames)]


def _header(header: Header, index: int, frame: Dataset, shared: Dataset, signed: bool) -> Header:
    def group(name: str) -> Dataset:
        return _first(frame, name) if name in frame else _first(shared, name)

    content, measures, frame_type = (
        group("FrameContentSequence"),
        group("PixelMeasuresSequence"),
        group("CTImageFrameTypeSequence"),
    )
    plane, orientation = group("PlanePositionSequence"), group("PlaneOrientationSequence")
    values, cardiac = group("PixelValueTransformationSequence"), group("CardiacSynchronizationSequence")
    kernel = str(group("CTReconstructionSequence").get("ConvolutionKernel") or header.kernel)
    thickness = _number(measures.get("SliceThickness"))
    slope, intercept = _number(values.get("RescaleSlope")), _number(values.get("RescaleIntercept"))
    missing_rescale = find_missing_rescale(slope, intercept)
    return replace(
        header,
        frame=index,
        image_type=tuple(str(part).upper() for part in frame_type.get("FrameType") or header.image_type),
        spacing=_numbers(measures.get("PixelSpacing"), 2),
        position=_numbers(plane.get("ImagePositionPatient"), 3),
        orientation=_numbers(orientation.get("ImageOrientationPatient"), 6),
        between=_number(measures.get("SpacingBetweenSlices")),
        location=None,
        tilt=_number(group("CTPositionSequence").get("GantryDetectorTilt")) or header.tilt,
        # Frames are numbered within their stack; the InstanceNumber of the file does not order them.
        number=int(content.InStackPositionNumber) if content.get("InStackPositionNumber") is not None else None,
        kernel=kernel,
        phase=(
            str(content.get("StackID") or ""),
            str(content.get("TemporalPositionIndex") or ""),
            str(cardiac.get("NominalPercentageOfCardiacPhase") or ""),
        ),
        hints=(
            str(content.get("FrameAcquisitionNumber") or ""),
            "",
            str(content.get("FrameAcquisitionDateTime") or ""),
        ),
        rescale=(slope or 1.0, intercept or 0.0),
        missing_rescale=missing_rescale,
        quantity=str(values.get("RescaleType") or ""),
        inconsistency=header.inconsistency
        or (
            f"has no valid rescaling of its pixels to HU: {GIVE_ORIGINAL}"
            if slope == 0 or ("intercept" in missing_rescale and not signed)
            else ""
        ),
        acquisition=replace(
            header.acquisition,
            kernel=kernel[:64] or None,
            slice_thickness=thickness if thickness is not None else header.acquisition.slice_thickness,
        ),
    )


def _first(dataset: Dataset, name: str) -> Dataset:
    items = dataset.get(name)
    return items[0] if items else Dataset()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(values: Any, length: int) -> tuple[float, ...] | None:
    return tuple(float(v) for v in values) if values is not None and len(values) == length else None
