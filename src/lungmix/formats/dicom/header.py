"""Headers of DICOM files: of an image, an object without one, or a damaged file."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from lungmix.formats.dicom.image_types import is_computed, is_other_quantity
from lungmix.privacy.acquisition import Acquisition
from lungmix.privacy.identity import NOBODY, Identity

_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_CT = (CTImageStorage, *ENHANCED)
_LOCALIZERS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW")
_CAPTURES = ("SCREEN SAVE", "CAPTURE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT", "PROTOCOL")

# Terms of PS3.3, C.7.3.1.1.1; any other value is untrusted text.
_MODALITIES = (
    "BI", "CR", "CT", "DG", "DX", "ECG", "ES", "GM", "IO", "IVOCT", "IVUS", "KO", "MG", "MR", "NM", "OCT", "OP", "OPT",
    "OT", "PR", "PT", "PX", "REG", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "RWV", "SC", "SEG", "SM",
    "SR", "US", "XA", "XC",
)  # fmt: skip
PHASES = (
    "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfRespiratoryPhase",
)  # fmt: skip
FRAME_PHASES = ("StackID", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase")
"""Attributes in `Header.phase`: `PHASES` for a single-slice file, `FRAME_PHASES` for a frame."""
HINTS = (
    "AcquisitionNumber", "TriggerTime", "AcquisitionTime", "ImageType", "KVP", "FilterType", "ReconstructionDiameter",
    "SliceThickness", "SeriesNumber", "ContentTime",
)  # fmt: skip
"""Attributes that may separate images at one position of a series, in the order in which they are tried."""

_UNKNOWN = Acquisition()


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

    def hint(self, name: str) -> str:
        """Return the value of one of `HINTS`; empty where the header of a frame lacks it."""
        index = HINTS.index(name)
        return self.hints[index] if index < len(self.hints) else ""

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


def find_missing_rescale(slope: float | None, intercept: float | None) -> tuple[str, ...]:
    """Return ``slope`` if the slope is missing, and ``intercept`` if the intercept is missing."""
    return tuple(name for name, value in (("slope", slope), ("intercept", intercept)) if value is None)
