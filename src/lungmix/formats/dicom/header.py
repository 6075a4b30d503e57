"""Headers of DICOM files, each read once: of an image, an object without one, or a damaged file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from lungmix.formats.dicom.checks import check_coding, check_pixels, check_values
from lungmix.formats.dicom.elements import UNDEFINED, RawHeader, tags_for
from lungmix.formats.dicom.image_types import is_computed, is_other_quantity
from lungmix.formats.dicom.raw_reader import (
    HEAD,
    is_file_system_error,
    may_lack_preamble,
    read_elements,
    read_pixel_start,
)
from lungmix.privacy.acquisition import Acquisition
from lungmix.privacy.identity import KEYWORDS, NOBODY, Identity

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_CT = (CTImageStorage, *ENHANCED)
_LOCALIZERS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW")
_CAPTURES = ("SCREEN SAVE", "CAPTURE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT", "PROTOCOL")

_TECHNICAL = ("Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "SliceThickness")
_DOSE = ("Exposure", "XRayTubeCurrent", "ExposureTime", "SpiralPitchFactor", "CTDIvol")
# Terms of PS3.3, C.7.3.1.1.1; any other value is untrusted text.
_MODALITIES = (
    "BI", "CR", "CT", "DG", "DX", "ECG", "ES", "GM", "IO", "IVOCT", "IVUS", "KO", "MG", "MR", "NM", "OCT", "OP", "OPT",
    "OT", "PR", "PT", "PX", "REG", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "RWV", "SC", "SEG", "SM",
    "SR", "US", "XA", "XC",
)  # fmt: skip
_COMMON = (*KEYWORDS.values(), *_TECHNICAL)
_PHASES = ("TemporalPositionIdentifier",)
_BINARY_PHASES = (
    "NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime", "NominalPercentageOfRespiratoryPhase",
)  # fmt: skip
PHASES = (*_PHASES, *_BINARY_PHASES)
FRAME_PHASES = ("StackID", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase")
"""Attributes in `Header.phase`: `PHASES` for a single-slice file, `FRAME_PHASES` for a frame."""
HINTS = (
    "AcquisitionNumber", "TriggerTime", "AcquisitionTime", "ImageType", "KVP", "FilterType", "ReconstructionDiameter",
    "SliceThickness", "SeriesNumber", "ContentTime",
)  # fmt: skip
"""Attributes that may separate images at one position of a series, in the order in which they are tried."""

_UNKNOWN = Acquisition()
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = tags_for(
    iter((
        "SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated",
        "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices",
        "SliceLocation", "GantryDetectorTilt", "InstanceNumber", "BurnedInAnnotation", "PixelPaddingValue",
        "PixelPaddingRangeLimit", "PixelRepresentation", "BitsStored", "PhotometricInterpretation", "RescaleSlope",
        "RescaleIntercept", "RescaleType", "HighBit", "LossyImageCompression", "IrradiationEventUID",
        "NumberOfSeriesRelatedInstances", *_TECHNICAL, *_DOSE, *_PHASES, *_BINARY_PHASES, *HINTS,
        *KEYWORDS.values(), *_GROUPS,
    ))
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """Header of one image; missing texts are empty, other missing values None.

    Attributes
    ----------
    file, folder : str
        Paths of the file and of its folder.
    frame : int or None
        Number of the image in a multi-frame file, from 0.
    state : bytes
        Digest of size, modification time and first bytes of the file.
    sop_class, sop_uid, series_uid, modality, kernel : str
        Values in the file.
    image_type : tuple of str
        Values in upper case.
    rows, columns, samples, frames : int
        Shape of the pixels; 0 rows without pixels.
    spacing : tuple of float or None
        Distances between rows and between columns, mm.
    position, orientation : tuple of float or None
        Centre of the first pixel; directions of the row and the column. LPS, mm.
    between, location, tilt : float or None
        Spacing between slices and slice location, mm; gantry tilt, degrees.
    number, announced : int or None
        Instance number; declared number of images in the series.
    phase : tuple of str
        Values of `PHASES`, or of `FRAME_PHASES` for a frame.
    hints : tuple of str
        Values of `HINTS`.
    event : str
        IrradiationEventUID.
    padding : tuple of int or None
        Lowest and highest stored value of the padding.
    rescale : tuple of float
        Rescale slope and intercept.
    missing_rescale : tuple of str
        ``slope`` and ``intercept`` where the header lacks them.
    quantity : str
        RescaleType, such as ``HU``; empty if missing.
    inconsistency : str
        Problem of the pixels or values of a plain slice, with a remedy, as a phrase that follows "the file"; empty if
        there is none.
    lossy : bool
        True where pixels were compressed with loss at any time.
    burned_in : bool
        True where the header declares text in the pixels.
    identity : Identity
        Attributes that identify the patient and the study.
    acquisition : Acquisition
        Technical attributes.
    """

    file: str
    folder: str = ""
    state: bytes = b""
    frame: int | None = None
    sop_class: str = ""
    sop_uid: str = ""
    series_uid: str = ""
    modality: str = ""
    kernel: str = ""
    image_type: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0
    samples: int = 1
    frames: int = 1
    spacing: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    between: float | None = None
    location: float | None = None
    tilt: float | None = None
    number: int | None = None
    announced: int | None = None
    phase: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    event: str = ""
    padding: tuple[int, int] | None = None
    rescale: tuple[float, float] = (1.0, 0.0)
    missing_rescale: tuple[str, ...] = ()
    quantity: str = ""
    inconsistency: str = ""
    lossy: bool = False
    burned_in: bool = False
    identity: Identity = NOBODY
    acquisition: Acquisition = _UNKNOWN

    @property
    def exclusion_reason(self) -> str | None:
        """Reason why the image is not a CT slice; None if it may be one."""
        if not self.rows:
            name = UID(self.sop_class).name if self.sop_class.startswith("1.2.840.10008.") else "an unknown object"
            return f"holds no image ({name})"
        if self.sop_class.startswith(_CAPTURE) or any(word in self.image_type for word in _CAPTURES):
            return "is a secondary capture, a picture of a screen or of a page"
        if self.modality != "CT":
            return f"is of modality {self.modality if self.modality in _MODALITIES else 'unknown'}, not CT"
        if self.samples != 1:
            return "is a colour image, not a CT in HU"
        if self.sop_class and self.sop_class not in _CT:
            return "is another object than a CT image"
        if any(word in part for part in self.image_type for word in _LOCALIZERS):
            return "is a localizer"
        if is_other_quantity(self.quantity):
            return "is a map of a material or another quantity, not a CT in HU"
        if is_computed(self.image_type):
            return "is a projection or another computed image, not a CT in HU"
        return None


@dataclass(frozen=True)
class DamagedFile:
    """A DICOM file that cannot be used.

    Attributes
    ----------
    header : Header
        Header as far as it is readable; texts may be truncated.
    problem : str
        Problem of the file as a phrase that follows "the file".
    has_prefix : bool
        True where the file has the DICM prefix, and so is certainly DICOM.
    is_readable : bool
        True where the bytes of the file could be read.
    """

    header: Header
    problem: str
    has_prefix: bool = True
    is_readable: bool = True


@dataclass(frozen=True)
class DicomDir:
    """A DICOMDIR, an index of files that are also found without it."""

    file: str


class HeaderReader:
    """Reader of headers that keeps values shared by many files only once."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Any, ...], tuple[Identity, Acquisition]] = {}

    def read(self, path: Path) -> list[Header] | DamagedFile | DicomDir | None:
        """Return the images of a file, or one header without rows if it has none; None if it is not DICOM.

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
                elements, deflated = read_elements(head, stream, state.st_size, _TAGS)
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
            from lungmix.formats.dicom.enhanced_ct import read_frame_headers

            try:
                return read_frame_headers(header, elements)
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
            phase=(*map(elements.text, _PHASES), *(_format_number(elements.real(name)) for name in _BINARY_PHASES)),
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


def find_missing_rescale(slope: float | None, intercept: float | None) -> tuple[str, ...]:
    """Return the names of those of slope and intercept that are missing."""
    return tuple(name for name, value in (("slope", slope), ("intercept", intercept)) if value is None)


def _padding(elements: RawHeader) -> tuple[int, int] | None:
    """Return the lowest and highest stored value of the padding.

    Some scanners write it with the wrong signedness; the bits are correct.
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
