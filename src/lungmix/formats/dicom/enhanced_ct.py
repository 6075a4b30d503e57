"""Frames of enhanced multi-frame CT, each as if it were a file (DICOM PS3.3, C.7.6.16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydicom.dataset import Dataset

from lungmix.formats.dicom.checks import ORIGINAL, fault_of_coding
from lungmix.formats.dicom.elements import RawHeader
from lungmix.formats.dicom.header import Header, unsaid_of

_MOST_FRAMES = 100_000


def headers_of_frames(header: Header, elements: RawHeader) -> list[Header]:
    """One header a frame: what the shared groups say, unless the frame's own groups say otherwise.

    Raises
    ------
    ValueError
        If there are not as many descriptions as frames.
    """
    shared = _first(elements.dataset, "SharedFunctionalGroupsSequence")
    frames = elements.dataset.PerFrameFunctionalGroupsSequence
    if len(frames) != header.frames or len(frames) > _MOST_FRAMES:
        raise ValueError(f"{len(frames)} descriptions, {header.frames} frames")
    signed = elements.short("PixelRepresentation") == 1
    # What a file of one slice has to say of itself, such as its spacing, frames say in their groups.
    header = replace(header, contradiction=fault_of_coding(elements) or "")
    return [_header(header, index, frame, shared, signed) for index, frame in enumerate(frames)]


def _header(header: Header, index: int, frame: Dataset, shared: Dataset, signed: bool) -> Header:
    def group(name: str) -> Dataset:
        return _first(frame, name) if name in frame else _first(shared, name)

    content, measures, kind = (
        group("FrameContentSequence"),
        group("PixelMeasuresSequence"),
        group("CTImageFrameTypeSequence"),
    )
    plane, turn = group("PlanePositionSequence"), group("PlaneOrientationSequence")
    values, cardiac = group("PixelValueTransformationSequence"), group("CardiacSynchronizationSequence")
    kernel = str(group("CTReconstructionSequence").get("ConvolutionKernel") or header.kernel)
    thickness = _number(measures.get("SliceThickness"))
    slope, intercept = _number(values.get("RescaleSlope")), _number(values.get("RescaleIntercept"))
    unsaid = unsaid_of(slope, intercept)
    return replace(
        header,
        frame=index,
        image_type=tuple(str(part).upper() for part in kind.get("FrameType") or header.image_type),
        spacing=_numbers(measures.get("PixelSpacing"), 2),
        position=_numbers(plane.get("ImagePositionPatient"), 3),
        orientation=_numbers(turn.get("ImageOrientationPatient"), 6),
        between=_number(measures.get("SpacingBetweenSlices")),
        location=None,
        tilt=_number(group("CTPositionSequence").get("GantryDetectorTilt")) or header.tilt,
        # Frames are numbered within their stack; the file's own number says nothing of their order.
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
        unsaid=unsaid,
        quantity=str(values.get("RescaleType") or ""),
        contradiction=header.contradiction
        or (
            f"does not say what its pixels are in HU: {ORIGINAL}"
            if slope == 0 or ("intercept" in unsaid and not signed)
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
