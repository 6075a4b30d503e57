"""DICOM slices that a segmentation refers to: the original series, or a series derived from the store.

The store keeps no identifiers of the original slices, because these lead to the patient. The user can give the original
series again; it is recognized by its geometry and voxels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from lungmix._version import __version__
from lungmix.atomic import atomic_write
from lungmix.errors import SourceError, UsageError, mark_path
from lungmix.export.images import require, slabs_of
from lungmix.formats import RejectedSource, Scan, SeriesFilter, find_scans
from lungmix.formats.header import is_same_place
from lungmix.formats.remote import downloaded
from lungmix.stages import convert
from lungmix.stages.derived_series import derived_series
from lungmix.store import Case

_TOLERANCE_MM = 1e-3
# A case may come from a series that the default filter would skip.
_ALL_SERIES = SeriesFilter("all")
_SLAB = 16
_NO_DATE = "19700101"

# A segmentation copies identifiers and numbers of a slice, and no text, which may hold a name.
_REFERENCE_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
)  # fmt: skip


def find_series(sources: Sequence[str | Path]) -> list[Scan]:
    """Return all DICOM series in folders or archives.

    Raises
    ------
    SourceError
        If the sources hold no DICOM series.
    """
    results = [result for source in sources for result in find_scans(source, _ALL_SERIES)]
    series = [scan for scan in results if isinstance(scan, Scan) and scan.kind == "dicom"]
    if not series:
        reasons = [rejected.reason for rejected in results if isinstance(rejected, RejectedSource)]
        names = ", ".join(map(mark_path, sources))
        raise SourceError(
            f"{names} holds no DICOM series to refer to: {reasons[0] if reasons else 'give its folder'}",
            path=sources[0],
        )
    return series


def original_slices(case: Case, series: Sequence[Scan]) -> list[Dataset]:
    """Return headers of the original slices of a case in the order of z, without attributes of the patient.

    Parameters
    ----------
    case : Case
        Case whose geometry and digest of voxels identify the series.
    series : sequence of Scan
        Candidate series.

    Raises
    ------
    SourceError
        If no series has the geometry and the voxels of the case.
    """
    matching = [scan for scan in series if _has_geometry_of(case, scan)]
    if not matching:
        raise SourceError(
            f"none of the {len(series)} DICOM series has the geometry of case {case.name} "
            f"({' x '.join(map(str, case.geometry.size))} voxels): give the folder of its original slices, "
            "or `with_ct=True`",
            case=case.name,
        )
    plain = [scan for scan in matching if scan.stack is not None and scan.stack.is_plain]
    if not plain:
        raise SourceError(
            f"the DICOM series with the geometry of case {case.name} is a multi-frame file or was straightened, so "
            "its files are not the slices of the case: give `with_ct=True`",
            case=case.name,
        )
    for scan in plain:
        with downloaded(scan) as local:
            if _digest_of(local) == case.stages[convert.STAGE]["voxels_sha256"]:
                headers = (pydicom.dcmread(file, stop_before_pixels=True) for file in local.files)
                return [_reference(header, case, index) for index, header in enumerate(headers)]
    raise SourceError(
        f"{len(matching)} DICOM series have the geometry of case {case.name}, but other voxels, so they are other "
        "reconstructions: give the folder of its original slices, or `with_ct=True`",
        case=case.name,
    )


def derived_slices(case: Case) -> list[Dataset]:
    """Return headers of the slices that `write_ct` derives from the store, in the order of z."""
    series = derived_series(case)
    return [_reference(series.header(index), case, index) for index in range(case.geometry.shape[0])]


def referenced_slices(case: Case, series: Sequence[Scan], *, with_ct: bool) -> list[Dataset]:
    """Return headers of the slices that an exported object refers to, in the order of z.

    Parameters
    ----------
    case, series
        See `original_slices`.
    with_ct : bool
        True for the slices that `write_ct` writes, False for those of the original series.
    """
    return derived_slices(case) if with_ct else original_slices(case, series)


def check_orientation(case: Case) -> None:
    """Raise if the orientation of a case is unknown, because DICOM slices must state it.

    Raises
    ------
    UsageError
        If the orientation is unknown; the message names other formats.
    """
    if not case.geometry.orientation_known:
        raise UsageError(
            f"the orientation of case {case.name} is unknown, and DICOM requires it: write .nrrd, "
            ".mha or .nii.gz, or convert the case again from a file that states its orientation"
        )


def write_ct(case: Case, folder: Path) -> Path:
    """Write the CT of a case as an anonymous DICOM series, slab by slab; the folder appears once it is complete.

    Raises
    ------
    UsageError
        If the folder holds other files.
    """
    require(case, "ct")
    check_orientation(case)
    if folder.exists() and not (folder.is_dir() and all(_is_slice(file) for file in folder.iterdir())):
        raise UsageError(f"{folder} holds other files than DICOM slices: give another name for the segmentation")
    series = derived_series(case)
    with atomic_write(folder) as partial_path:
        partial_path.mkdir()
        index = 0
        for slab in slabs_of(case, "ct"):
            for plane in slab:
                dataset = series.slice(index, plane)
                _describe_patient(dataset, case)
                mark_anonymous(dataset, case)
                dataset.BurnedInAnnotation = "NO"
                dataset.SeriesDescription, dataset.SoftwareVersions = "CT, derived", f"lungmix {__version__}"
                dataset.save_as(partial_path / f"{index + 1:05d}.dcm", enforce_file_format=True)
                index += 1
    return folder


def _has_geometry_of(case: Case, scan: Scan) -> bool:
    return is_same_place(scan.geometry, case.geometry, _TOLERANCE_MM)


def _digest_of(scan: Scan) -> str:
    digest = hashlib.sha256()
    for slab in scan.slabs(_SLAB):
        digest.update(np.ascontiguousarray(slab).data)
    return digest.hexdigest()


def _reference(slice_: Dataset, case: Case, index: int) -> Dataset:
    out = Dataset()
    out.Modality, out.ImageType, out.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], index + 1
    out.PositionReferenceIndicator = ""
    for name in _REFERENCE_TAGS:
        if name in slice_:
            setattr(out, name, slice_[name].value)
    if out.get("SliceThickness") is None:
        out.SliceThickness = case.geometry.spacing[2]
    out.PatientID, out.PatientName = case.name, ""
    out.PatientBirthDate = out.PatientSex = out.AccessionNumber = out.StudyID = ""
    out.StudyDate = out.StudyTime = out.ReferringPhysicianName = ""
    _describe_patient(out, case)
    return out


def _describe_patient(dataset: Dataset, case: Case) -> None:
    """Write the attributes of the patient that the store keeps if the user asked for it: sex, age, shifted date."""
    acquisition = case.acquisition
    dataset.PatientSex, dataset.StudyDate = acquisition.sex or "", acquisition.study_date or ""
    if acquisition.age is not None:
        dataset.PatientAge = f"{acquisition.age:03d}Y"


def remove_dates(dataset: Dataset, case: Case) -> None:
    """Remove the dates at which an object was created, which may be close to the date of the scan.

    DICOM requires a ContentDate in a segmentation: the shifted date of the study if the store has it, else 1970-01-01.
    """
    for name in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        if name in dataset:
            delattr(dataset, name)
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    dataset.ContentDate, dataset.ContentTime = case.acquisition.study_date or _NO_DATE, "000000"


def mark_anonymous(dataset: Dataset, case: Case, *, same_uids: bool = False) -> None:
    """Mark an object as de-identified, with the codes of the profile and its options (DICOM PS3.15, annex E).

    Parameters
    ----------
    dataset : Dataset
        Object, changed in place.
    case : Case
        Case, whose attributes tell what was kept on request.
    same_uids : bool
        True if the object contains identifiers of the original series.
    """
    acquisition = case.acquisition
    options = (
        (same_uids, codes.DCM.RetainUidsOption),
        (acquisition.sex is not None or acquisition.age is not None, codes.DCM.RetainPatientCharacteristicsOption),
        (acquisition.study_date is not None, codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption),
    )
    method_codes = [codes.DCM.BasicApplicationConfidentialityProfile, *(code for kept, code in options if kept)]
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethodCodeSequence = [_item(code) for code in method_codes]


def _item(code: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _is_slice(file: Path) -> bool:
    return file.is_file() and re.fullmatch(r"\d{5}\.dcm", file.name) is not None
