"""From files to series: headers, grouping, order and spacing of slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage
from pydicom.valuerep import PersonName

from lungmix.errors import SourceError
from lungmix.formats.identity import KEYWORDS, Identity
from lungmix.formats.scan import Refusal, Scan, case_name, fingerprint_of, key_of_place
from lungmix.geometry import Geometry
from lungmix.scan import Acquisition

_TAGS = [
    "SOPClassUID", "Modality", "SeriesInstanceUID", "SOPInstanceUID", "ImageType", "Rows", "Columns", "SamplesPerPixel",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "Manufacturer", "ManufacturerModelName", "KVP", "ConvolutionKernel", "BitsAllocated",
    "ExposureTime", "XRayTubeCurrent", "Exposure", "CTDIvol", "SpacingBetweenSlices", "PixelPaddingValue",
    "BurnedInAnnotation", *KEYWORDS.values(),
]  # fmt: skip

# A file of these classes without pixels, or whose class cannot be read, was cut short.
_WITHOUT_PIXELS_DAMAGED = (None, CTImageStorage, EnhancedCTImageStorage)

# Positions are decimal strings of 16 characters; a hundredth of a millimetre is beyond any scanner's precision.
_LEAST_TOLERANCE_MM = 0.01
_RELATIVE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Slice:
    """Header of one file."""

    file: str
    tags: Any

    @property
    def position(self) -> tuple[float, ...]:
        """Centre of the first pixel, LPS, mm."""
        return tuple(float(v) for v in self.tags.ImagePositionPatient)

    @property
    def orientation(self) -> tuple[float, ...]:
        """Directions of the row and the column."""
        return tuple(float(v) for v in self.tags.ImageOrientationPatient)


def is_dicom(path: Path) -> bool:
    """Whether the file carries the DICOM mark."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_series(files: Sequence[Path]) -> list[Scan | Refusal]:
    """Every CT series among DICOM files, and every file or series that cannot be used.

    Localizers and objects without pixels are passed over where there are CT slices beside them.
    """
    found: list[Scan | Refusal] = []
    groups: dict[tuple[Any, ...], list[Slice]] = defaultdict(list)
    damaged: list[tuple[Path, Any]] = []
    for file in files:
        try:
            tags = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
            if "Rows" not in tags:
                if tags.get("SOPClassUID") in _WITHOUT_PIXELS_DAMAGED:
                    damaged.append((file, tags.get("SeriesInstanceUID")))
            elif "LOCALIZER" not in (tags.get("ImageType") or ()):
                groups[_group_of(file, tags)].append(Slice(str(file), tags))
        except (
            InvalidDicomError,
            EOFError,
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            KeyError,
            NotImplementedError,
        ):
            damaged.append((file, None))
    for file, _ in damaged:
        reason = f"{file.name} is a damaged DICOM file: get it again"
        found.append(Refusal(case_name(file.parent.name), str(file), reason))
    for (parent, uid, *_), group in groups.items():
        folder = Path(parent)
        # The identifier itself may have been cut: what is left of it is a beginning.
        missed = [file.name for file, part in damaged if file.parent == folder and uid.startswith(str(part or ""))]
        try:
            if missed:
                raise SourceError(
                    f"the series in {folder.name} ({len(group)} files) may lack {missed[0]}, which is damaged: get "
                    "that file again, or remove it if it belongs to another series"
                )
            found.append(_scan_of(group))
        except SourceError as error:
            found.append(Refusal(case_name(folder.name), str(folder), str(error)))
    return found


def _group_of(file: Path, tags: Any) -> tuple[Any, ...]:
    orientation = tuple(round(float(v), 3) for v in tags.get("ImageOrientationPatient") or ())
    return (
        str(file.parent),
        str(tags.get("SeriesInstanceUID")),
        int(tags.Rows),
        int(tags.Columns),
        orientation,
    )


def _scan_of(group: list[Slice]) -> Scan:
    folder = Path(group[0].file).parent
    first = group[0].tags
    title = f"the series in {folder.name} ({len(group)} files)"
    if first.get("Modality") != "CT":
        raise SourceError(f"{title} is of modality {first.get('Modality', 'unknown')}: give CT in HU")
    if int(first.get("SamplesPerPixel") or 1) != 1:
        raise SourceError(f"{title} is a colour image: give the original CT slices")
    if int(first.get("NumberOfFrames") or 1) != 1:
        raise SourceError(
            f"{title} is an enhanced multi-frame image, which is not read yet: convert it to one file a slice"
        )
    for one in group:
        if (
            len(one.tags.get("ImagePositionPatient") or ()) != 3
            or len(one.tags.get("ImageOrientationPatient") or ()) != 6
        ):
            raise SourceError(
                f"{title} lacks position or orientation in {Path(one.file).name}: give the original slices"
            )
    ordered = _in_order(group, title)
    geometry = _geometry(ordered, title)
    files = tuple(one.file for one in ordered)
    tags = ordered[0].tags
    uid = str(tags.get("SeriesInstanceUID"))
    return Scan(
        name=case_name(folder.name),
        path=str(folder),
        kind="dicom",
        geometry=geometry,
        acquisition=Acquisition(
            modality="CT",
            manufacturer=_text(tags.get("Manufacturer")),
            model=_text(tags.get("ManufacturerModelName")),
            kernel=_text(tags.get("ConvolutionKernel")),
            kvp=_number(tags.get("KVP")),
            slice_thickness=_number(tags.get("SliceThickness")),
        ),
        fingerprint=fingerprint_of(files),
        key=key_of_place(f"{folder.resolve()} {uid} {geometry.size} {geometry.direction}"),
        files=files,
        identity=Identity.read(lambda keyword: _text(tags.get(keyword))),
    )


def _in_order(group: list[Slice], title: str) -> list[Slice]:
    """Slices by their position along the normal, if they stand one behind the other at even distances."""
    row, column = np.reshape(group[0].orientation, (2, 3))
    normal = np.cross(row, column)
    if not 0.99 < np.linalg.norm(normal) < 1.01:
        raise SourceError(f"{title} has an orientation that is no rotation: give the original slices")
    places = np.array([one.position for one in group])
    along = places @ normal
    order = np.argsort(along, kind="stable")
    ordered = [group[i] for i in order]
    if len(group) == 1:
        return ordered
    steps = np.diff(along[order])
    usual = float(np.median(steps))
    tolerance = max(_LEAST_TOLERANCE_MM, _RELATIVE_TOLERANCE * usual)
    doubled = np.flatnonzero(steps < tolerance)
    if doubled.size:
        pair = " and ".join(Path(ordered[doubled[0] + i].file).name for i in (0, 1))
        raise SourceError(
            f"{title}: slices {doubled[0] + 1} and {doubled[0] + 2} lie at one position ({pair}): remove the duplicates"
        )
    uneven = np.flatnonzero(np.abs(steps - usual) > tolerance)
    if uneven.size:
        at = int(uneven[0])
        raise SourceError(
            f"{title}: between slices {at + 1} and {at + 2} of {len(group)} lie {steps[at]:.3f} mm, elsewhere "
            f"{usual:.3f} mm: slices are missing or unevenly spaced; give the complete series"
        )
    sideways = places[order] - places[order[0]] - np.outer(along[order] - along[order[0]], normal)
    if np.abs(sideways).max() > max(0.5, 0.01 * float(along.max() - along.min())):
        raise SourceError(
            f"{title} was taken with a tilted gantry or shifted slices, which is not read yet: resample it first"
        )
    return ordered


def _geometry(ordered: Sequence[Slice], title: str) -> Geometry:
    """What SimpleITK's series reader would say, from the two outer slices alone."""
    n = len(ordered)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([one.file for one in (ordered[0], ordered[-1])[: min(n, 2)]])
    try:
        ends = reader.Execute()
    except RuntimeError:
        raise SourceError(f"{title} cannot be decoded: a file is cut short or damaged; get the series again") from None
    x, y, z = ends.GetSpacing()
    if ends.GetNumberOfComponentsPerPixel() != 1 or ends.GetDimension() != 3:
        raise SourceError(f"{title} is not a stack of plain slices: give the original CT slices")
    size = ends.GetSize()
    return Geometry((size[0], size[1], n), (x, y, z / max(n - 1, 1)), ends.GetOrigin(), ends.GetDirection())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str | PersonName | int | float):
        return ("" if value is None else str(value)).strip()[:64] or None
    return "\\".join(str(part) for part in value)[:64] or None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
