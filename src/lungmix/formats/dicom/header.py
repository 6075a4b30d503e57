"""One DICOM file seen through its header, read once: an image, something without one, or a damaged file."""

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

from lungmix.formats.dicom.checks import fault_of_coding, fault_of_pixels, fault_of_values
from lungmix.formats.dicom.elements import UNDEFINED, RawHeader, tags_of
from lungmix.formats.dicom.image_types import is_computed, is_other_quantity
from lungmix.formats.dicom.raw_reader import HEAD, beginning_of_pixels, elements_of, is_of_file_system, may_be_bare
from lungmix.privacy.acquisition import Acquisition
from lungmix.privacy.identity import KEYWORDS, NOBODY, Identity

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_CT = (CTImageStorage, *ENHANCED)
_LOCALIZERS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW")
_CAPTURES = ("SCREEN SAVE", "CAPTURE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT", "PROTOCOL")

_TECHNICAL = ("Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "SliceThickness")
_DOSE = ("Exposure", "XRayTubeCurrent", "ExposureTime", "SpiralPitchFactor", "CTDIvol")
# Those of PS3.3, C.7.3.1.1.1, that are images; another word may be anything.
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
"""What `Header.phase` holds of a file of one slice, and of a frame."""
HINTS = (
    "AcquisitionNumber", "TriggerTime", "AcquisitionTime", "ImageType", "KVP", "FilterType", "ReconstructionDiameter",
    "SliceThickness", "SeriesNumber", "ContentTime",
)  # fmt: skip
"""What tells the images of a series apart that lie at one position, in the order in which it is tried."""

_UNKNOWN = Acquisition()
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_TAGS = tags_of(
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
    """What the header of one image says; unknown texts are empty, other unknown values None.

    Attributes
    ----------
    file, folder : str
        Path, and that of its folder.
    frame : int or None
        Number of the image in a multi-frame file, from 0.
    state : bytes
        Digest of size, time of change and beginning of the file.
    sop_class, sop_uid, series_uid, modality, kernel : str
        As in the file.
    image_type : tuple of str
        Upper case.
    rows, columns, samples, frames : int
        Of the pixels; no rows where there are none.
    spacing : tuple of float or None
        Between rows and between columns, mm.
    position, orientation : tuple of float or None
        Centre of the first pixel; directions of the row and the column. LPS, mm.
    between, location, tilt : float or None
        Spacing between slices and slice location, mm; gantry tilt, degrees.
    number, announced : int or None
        Instance number; number of images that the series is said to have.
    phase : tuple of str
        Values of `PHASES`, or of a frame those of `FRAME_PHASES`.
    hints : tuple of str
        Values of `HINTS`.
    event : str
        Identifier of the irradiation.
    padding : tuple of int or None
        Stored values from one to the other that stand for no tissue.
    rescale : tuple of float
        Slope and intercept.
    unsaid : tuple of str
        ``slope`` and ``intercept``, where the header does not say them.
    quantity : str
        What pixels are after slope and intercept, such as ``HU``; empty if the header does not say.
    contradiction : str
        What of the pixels or of the numbers of a plain slice makes no sense, and what to do, after "the file"; empty
        if they do.
    lossy : bool
        Whether pixels were once compressed with loss.
    burned_in : bool
        Whether the header says that text may stand in the pixels.
    identity : Identity
        Who it is of.
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
    unsaid: tuple[str, ...] = ()
    quantity: str = ""
    contradiction: str = ""
    lossy: bool = False
    burned_in: bool = False
    identity: Identity = NOBODY
    acquisition: Acquisition = _UNKNOWN

    @property
    def unused(self) -> str | None:
        """Why this is no slice of a CT; None if it may be one."""
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
            return "is no CT image but another object"
        if any(word in part for part in self.image_type for word in _LOCALIZERS):
            return "is a localizer"
        if is_other_quantity(self.quantity):
            return "is a map of a material or another quantity, not a CT in HU"
        if is_computed(self.image_type):
            return "is a projection or was computed otherwise, not a CT in HU"
        return None


@dataclass(frozen=True)
class Damaged:
    """A file that is or was DICOM and cannot be used.

    Attributes
    ----------
    header : Header
        What can still be read; texts may be cut.
    fault : str
        What is wrong with it, after "the file".
    marked : bool
        Whether it certainly is DICOM.
    read : bool
        Whether its bytes could be read.
    """

    header: Header
    fault: str
    marked: bool = True
    read: bool = True


@dataclass(frozen=True)
class Index:
    """A DICOMDIR: it names files, which are found without it."""

    file: str


class HeaderReader:
    """Reads headers; what many files have in common is kept once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Identity, Acquisition]] = {}

    def read(self, path: Path) -> list[Header] | Damaged | Index | None:
        """The images of a file, a single header without rows where there are none; None if it is not DICOM.

        Raises
        ------
        OSError
            If the file cannot be read.
        """
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            marked = head[128:132] == b"DICM"
            if not marked and not may_be_bare(head):
                return None
            state = os.fstat(stream.fileno())
            digest = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns} ".encode())
            digest.update(head)
            blank = Header(str(path), str(path.parent), digest.digest())
            try:
                elements, deflated = elements_of(head, stream, state.st_size, _TAGS)
            except Exception as error:  # pydicom raises whatever broken bytes lead to
                if isinstance(error, MemoryError) or is_of_file_system(error):
                    raise
                return Damaged(blank, "has a damaged header") if marked else None
            encapsulated = elements.pixel_bytes == UNDEFINED and not deflated
            beginning = beginning_of_pixels(head, stream, elements.pixel_offset) if encapsulated else b""
        if not marked and not elements.text("SOPClassUID").startswith("1.2.840.10008."):
            return None
        if elements.text("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return Index(str(path))
        header = self._header(blank, elements)
        fault = _fault(header, elements, None if deflated else state.st_size, beginning)
        if fault:
            return Damaged(header, fault)
        if header.sop_class in ENHANCED and header.rows and "PerFrameFunctionalGroupsSequence" in elements:
            from lungmix.formats.dicom.enhanced_ct import headers_of_frames

            try:
                return headers_of_frames(header, elements)
            except (TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError):
                return Damaged(header, "has damaged descriptions of its frames")
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
            spacing=_some(elements.numbers("PixelSpacing"), 2),
            position=_some(elements.numbers("ImagePositionPatient"), 3),
            orientation=_some(elements.numbers("ImageOrientationPatient"), 6),
            between=elements.number("SpacingBetweenSlices"),
            location=elements.number("SliceLocation"),
            tilt=elements.number("GantryDetectorTilt"),
            number=elements.integer("InstanceNumber"),
            announced=elements.integer("NumberOfSeriesRelatedInstances"),
            phase=(*map(elements.text, _PHASES), *(_shown(elements.real(name)) for name in _BINARY_PHASES)),
            hints=tuple(map(elements.text, HINTS)),
            event=elements.text("IrradiationEventUID"),
            padding=_padding(elements),
            rescale=(slope or 1.0, intercept or 0.0),
            unsaid=unsaid_of(slope, intercept),
            quantity=elements.text("RescaleType"),
            contradiction=fault_of_coding(elements) or fault_of_values(elements) or "",
            lossy=elements.text("LossyImageCompression") == "01",
            burned_in=elements.text("BurnedInAnnotation").upper() == "YES",
            identity=identity,
            acquisition=acquisition,
        )

    def _common(self, elements: RawHeader) -> tuple[Identity, Acquisition]:
        key = elements.as_written(_COMMON)
        if key not in self._known:
            acquisition = Acquisition(
                modality="CT" if elements.text("Modality") == "CT" else None,
                manufacturer=_short(elements.converted("Manufacturer")),
                model=_short(elements.converted("ManufacturerModelName")),
                kernel=_short(elements.converted("ConvolutionKernel")),
                kvp=elements.number("KVP"),
                slice_thickness=elements.number("SliceThickness"),
                # These may change from slice to slice: those of the first one stand for all.
                exposure=elements.number("Exposure"),
                tube_current=elements.number("XRayTubeCurrent"),
                exposure_time=elements.number("ExposureTime"),
                pitch=elements.real("SpiralPitchFactor"),
                ctdi_vol=elements.real("CTDIvol"),
            )
            self._known[key] = Identity.read(elements.converted), acquisition
        return self._known[key]


def _fault(header: Header, elements: RawHeader, size: int | None, beginning: bytes) -> str | None:
    if elements.pixel_bytes is None:
        # Of a class that is known to hold no image, or of a maker's own; an identifier that was cut is neither.
        name = UID(header.sop_class).name if header.sop_class else ""
        own = not header.sop_class.startswith("1.2.840.") and header.series_uid
        known = name != header.sop_class and "Image Storage" not in name
        return None if (known or own) and not header.rows and not elements.cut else "is cut short"
    if elements.cut:
        return "is cut short"
    if not header.rows or not header.columns:
        return "has no size"
    bits = elements.short("BitsAllocated") or 16
    needed = header.rows * header.columns * header.samples * max(header.frames, 1) * bits // 8
    fault = fault_of_pixels(elements, header.rows, header.columns, needed, beginning)
    if fault or elements.pixel_bytes == UNDEFINED:
        return fault
    if size is not None and elements.pixel_offset + elements.pixel_bytes > size:
        return "is cut short: its pixels end early"
    if elements.pixel_bytes < needed:
        return "holds fewer pixels than its header promises"
    return None


def unsaid_of(slope: float | None, intercept: float | None) -> tuple[str, ...]:
    """Return which of slope and intercept a header does not say."""
    return tuple(name for name, value in (("slope", slope), ("intercept", intercept)) if value is None)


def _padding(elements: RawHeader) -> tuple[int, int] | None:
    """Lowest and highest stored value of the padding.

    Some scanners give it the wrong type, unsigned where pixels are signed or the other way round; the bits are right.
    """
    value = elements.short("PixelPaddingValue")
    if value is None:
        return None
    limit = elements.short("PixelPaddingRangeLimit")
    stored = min(elements.short("BitsStored") or 16, 16)
    # Decoders leave the bits out that are said not to be stored: what does not fit is what is left of it.
    pair = [bits & ((1 << stored) - 1) for bits in (value, value if limit is None else limit)]
    if elements.short("PixelRepresentation") == 1:
        pair = [bits - (1 << stored) if bits >= 1 << (stored - 1) else bits for bits in pair]
    return min(pair), max(pair)


def _some(values: tuple[float, ...] | None, length: int) -> tuple[float, ...] | None:
    return values if values is not None and len(values) == length else None


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _short(text: str | None) -> str | None:
    return (text or "").strip()[:64] or None
