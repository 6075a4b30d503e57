"""Reader of the headers of DICOM files: images, objects without an image, and damaged files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.uid import UID, MediaStorageDirectoryStorage

from lungmix.formats.dicom.checks import check_coding, check_pixels, check_values
from lungmix.formats.dicom.elements import UNDEFINED, RawHeader, tags_for
from lungmix.formats.dicom.enhanced_ct import FrameCountError, read_frame_headers
from lungmix.formats.dicom.header import ENHANCED, HINTS, PHASES, DamagedFile, DicomDir, Header, find_missing_rescale
from lungmix.formats.dicom.raw_reader import (
    HEAD,
    is_file_system_error,
    may_lack_preamble,
    read_elements,
    read_pixel_start,
)
from lungmix.privacy.acquisition import Acquisition
from lungmix.privacy.identity import KEYWORDS, Identity

_TECHNICAL = ("Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "SliceThickness")
_DOSE = ("Exposure", "XRayTubeCurrent", "ExposureTime", "SpiralPitchFactor", "CTDIvol")
_COMMON = (*KEYWORDS.values(), *_TECHNICAL)
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
HEADER_TAGS = tags_for(
    iter((
        "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated",
        "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices",
        "SliceLocation", "GantryDetectorTilt", "InstanceNumber", "BurnedInAnnotation", "PixelPaddingValue",
        "PixelPaddingRangeLimit", "PixelRepresentation", "BitsStored", "PhotometricInterpretation", "RescaleSlope",
        "RescaleIntercept", "RescaleType", "HighBit", "LossyImageCompression", "IrradiationEventUID",
        "NumberOfSeriesRelatedInstances", *_TECHNICAL, *_DOSE, *PHASES, *HINTS,
        *KEYWORDS.values(), *_GROUPS,
    ))
)  # fmt: skip


class HeaderReader:
    """Reader of headers that keeps equal values of many files only once in memory."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Any, ...], tuple[Identity, Acquisition]] = {}

    def read(self, path: Path) -> list[Header] | DamagedFile | DicomDir | None:
        """Return one header per image of a file; one header with 0 rows if it has no image; None if it is not DICOM.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            has_prefix = head[128:132] == b"DICM"
            if not has_prefix and not may_lack_preamble(head):
                return None
            state = os.fstat(stream.fileno())
            digest = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns} ".encode())
            digest.update(head)
            blank = Header(str(path), str(path.parent), digest.digest())
            try:
                elements, deflated = read_elements(head, stream, state.st_size, HEADER_TAGS)
            except Exception as error:  # pydicom raises any exception on corrupt files
                if isinstance(error, MemoryError) or is_file_system_error(error):
                    raise
                return DamagedFile(blank, "has a damaged header") if has_prefix else None
            encapsulated = elements.pixel_bytes == UNDEFINED and not deflated
            pixel_start = read_pixel_start(head, stream, elements.pixel_offset) if encapsulated else b""
        if not has_prefix and not elements.text("SOPClassUID").startswith("1.2.840.10008."):
            return None
        if elements.text("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return DicomDir(str(path))
        header = self._header(blank, elements)
        problem = _find_problem(header, elements, None if deflated else state.st_size, pixel_start)
        if problem:
            return DamagedFile(header, problem)
        if header.sop_class in ENHANCED and header.rows and "PerFrameFunctionalGroupsSequence" in elements:
            try:
                return read_frame_headers(header, elements)
            except FrameCountError as error:
                return DamagedFile(header, str(error))
            except (TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError):
                return DamagedFile(header, "has damaged descriptions of its frames")
        return [header]

    def _header(self, blank: Header, elements: RawHeader) -> Header:
        identity, acquisition = self._common(elements)
        slope, intercept = elements.number("RescaleSlope"), elements.number("RescaleIntercept")
        return replace(
            blank,
            sop_class=elements.text("SOPClassUID") or elements.text("MediaStorageSOPClassUID"),
            sop_uid=elements.text("SOPInstanceUID") or elements.text("MediaStorageSOPInstanceUID"),
            series_uid=elements.text("SeriesInstanceUID"),
            modality=elements.text("Modality"),
            kernel=elements.text("ConvolutionKernel"),
            image_type=tuple(part.upper() for part in elements.texts("ImageType")),
            rows=elements.short("Rows") or 0,
            columns=elements.short("Columns") or 0,
            samples=elements.short("SamplesPerPixel") or 1,
            frames=elements.integer("NumberOfFrames") or 1,
            spacing=_with_length(elements.numbers("PixelSpacing"), 2),
            position=_with_length(elements.numbers("ImagePositionPatient"), 3),
            orientation=_with_length(elements.numbers("ImageOrientationPatient"), 6),
            between=elements.number("SpacingBetweenSlices"),
            location=elements.number("SliceLocation"),
            tilt=elements.number("GantryDetectorTilt"),
            number=elements.integer("InstanceNumber"),
            announced=elements.integer("NumberOfSeriesRelatedInstances"),
            phase=(elements.text(PHASES[0]), *(_format_number(elements.real(name)) for name in PHASES[1:])),
            hints=tuple(map(elements.text, HINTS)),
            event=elements.text("IrradiationEventUID"),
            padding=_padding(elements),
            rescale=(slope or 1.0, intercept or 0.0),
            missing_rescale=find_missing_rescale(slope, intercept),
            quantity=elements.text("RescaleType"),
            inconsistency=check_coding(elements) or check_values(elements) or "",
            lossy=elements.text("LossyImageCompression") == "01",
            burned_in=elements.text("BurnedInAnnotation").upper() == "YES",
            identity=identity,
            acquisition=acquisition,
        )

    def _common(self, elements: RawHeader) -> tuple[Identity, Acquisition]:
        key = elements.raw_values(_COMMON)
        if key not in self._cache:
            acquisition = Acquisition(
                modality="CT" if elements.text("Modality") == "CT" else None,
                manufacturer=_shorten(elements.decode_text("Manufacturer")),
                model=_shorten(elements.decode_text("ManufacturerModelName")),
                kernel=_shorten(elements.decode_text("ConvolutionKernel")),
                kvp=elements.number("KVP"),
                slice_thickness=elements.number("SliceThickness"),
                # These may vary between slices: the values of the first slice are recorded.
                exposure=elements.number("Exposure"),
                tube_current=elements.number("XRayTubeCurrent"),
                exposure_time=elements.number("ExposureTime"),
                pitch=elements.real("SpiralPitchFactor"),
                ctdi_vol=elements.real("CTDIvol"),
            )
            self._cache[key] = Identity.read(elements.decode_text), acquisition
        return self._cache[key]


def _find_problem(header: Header, elements: RawHeader, size: int | None, pixel_start: bytes) -> str | None:
    if elements.pixel_bytes is None:
        # A known class without images, or a private class; a truncated identifier is neither.
        name = UID(header.sop_class).name if header.sop_class else ""
        is_private = not header.sop_class.startswith("1.2.840.") and header.series_uid
        is_known_class = name != header.sop_class and "Image Storage" not in name
        return (
            None if (is_known_class or is_private) and not header.rows and not elements.is_truncated else "is cut short"
        )
    if elements.is_truncated:
        return "is cut short"
    if not header.rows or not header.columns:
        return "has no size"
    bits = elements.short("BitsAllocated") or 16
    needed = header.rows * header.columns * header.samples * max(header.frames, 1) * bits // 8
    problem = check_pixels(elements, header.rows, header.columns, needed, pixel_start)
    if problem or elements.pixel_bytes == UNDEFINED:
        return problem
    if size is not None and elements.pixel_offset + elements.pixel_bytes > size:
        return "is cut short: its pixels end early"
    if elements.pixel_bytes < needed:
        return "holds fewer pixels than its header declares"
    return None


def _padding(elements: RawHeader) -> tuple[int, int] | None:
    """Return the lowest and highest stored value of the padding; None without padding.

    Some scanners declare the padding value as signed where pixels are unsigned, or the reverse; its bits are correct.
    """
    value = elements.short("PixelPaddingValue")
    if value is None:
        return None
    limit = elements.short("PixelPaddingRangeLimit")
    stored = min(elements.short("BitsStored") or 16, 16)
    # Decoders drop bits beyond BitsStored, so the same is done to the padding value.
    pair = [bits & ((1 << stored) - 1) for bits in (value, value if limit is None else limit)]
    if elements.short("PixelRepresentation") == 1:
        pair = [bits - (1 << stored) if bits >= 1 << (stored - 1) else bits for bits in pair]
    return min(pair), max(pair)


def _with_length(values: tuple[float, ...] | None, length: int) -> tuple[float, ...] | None:
    return values if values is not None and len(values) == length else None


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _shorten(text: str | None) -> str | None:
    return (text or "").strip()[:64] or None
