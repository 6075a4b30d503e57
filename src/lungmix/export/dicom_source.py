"""The DICOM slices that a segmentation refers to: the original series, or one derived from the store.

The store keeps no identifiers of the original slices, for they would tell whose they are. Whoever has the original
series can give it again: it is known by its geometry and its voxels.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from lungmix._version import __version__
from lungmix.errors import SourceError, UsageError, mark_path
from lungmix.export.images import require, slabs_of
from lungmix.formats import RejectedSource, Scan, SeriesFilter, find_scans
from lungmix.formats.dicom.write import CtSeries
from lungmix.formats.remote import downloaded
from lungmix.geometry import Geometry
from lungmix.stages import convert
from lungmix.store import Case

_TOLERANCE_MM = 1e-3
# Cases may have been made of any series, whichever would be chosen now.
_EVERY = SeriesFilter("all")
_SLAB = 16
_NO_DATE = "19700101"

# What a segmentation takes over from a slice: identifiers and numbers. No text, for in a text a name may stand.
_REFERENCE_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
)  # fmt: skip


def find_series(sources: Sequence[str | Path]) -> list[Scan]:
    """All DICOM series in folders or archives.

    Raises
    ------
    SourceError
        If there is none.
    """
    found = [one for source in sources for one in find_scans(source, _EVERY)]
    series = [one for one in found if isinstance(one, Scan) and one.kind == "dicom"]
    if not series:
        reasons = [one.reason for one in found if isinstance(one, RejectedSource)]
        where = ", ".join(map(mark_path, sources))
        raise SourceError(f"{where} holds no DICOM series to refer to: {reasons[0] if reasons else 'give its folder'}")
    return series


def original_slices(case: Case, series: Sequence[Scan]) -> list[Dataset]:
    """Headers of the slices that a case was made from, in the order of z, without anything of the patient.

    Parameters
    ----------
    case : Case
        Its geometry and the digest of its voxels decide.
    series : sequence of Scan
        Candidates.

    Raises
    ------
    SourceError
        If no series has the geometry of the case, or none its voxels.
    """
    near = [scan for scan in series if _same_place(case, scan)]
    if not near:
        raise SourceError(
            f"none of the {len(series)} DICOM series lies where case {case.name} lies "
            f"({' x '.join(map(str, case.geometry.size))} voxels): give the folder of its original slices, or --with-ct"
        )
    plain = [scan for scan in near if scan.stack is not None and scan.stack.is_plain]
    if not plain:
        raise SourceError(
            f"the DICOM series where case {case.name} lies is a multi-frame file or was straightened, so that "
            "no file is a slice of the case: give --with-ct"
        )
    for scan in plain:
        with downloaded(scan) as local:
            if _digest_of(local) == case.stages[convert.STAGE]["voxels_sha256"]:
                headers = (pydicom.dcmread(file, stop_before_pixels=True) for file in local.files)
                return [_reference(header, case, index) for index, header in enumerate(headers)]
    raise SourceError(
        f"{len(near)} DICOM series lie where case {case.name} lies, but their voxels differ from it: they are other "
        "reconstructions; give the folder of its original slices, or --with-ct"
    )


def derived_series(case: Case) -> CtSeries:
    """An anonymous series of the CT in the store.

    Its identifiers are those of the case alone: the same whenever it is exported, of random digits that nobody outside
    the store knows, and of none of the original ones.
    """
    key = str(case.stages[convert.STAGE].get("voxels_sha256"))
    entropy = (case.salt, key, case.name, "ct")
    return CtSeries(case.geometry, case.acquisition, "", case.name, entropy, ("DERIVED", "SECONDARY", "AXIAL"))


def derived_slices(case: Case) -> list[Dataset]:
    """Headers of the derived series, in the order of z."""
    series = derived_series(case)
    return [_reference(series.header(index), case, index) for index in range(case.geometry.shape[0])]


def check_orientation(case: Case) -> None:
    """Refuse a case of unknown orientation: each DICOM slice says where it lies in the patient.

    Raises
    ------
    UsageError
        Which says what to write instead.
    """
    if not case.geometry.orientation_known:
        raise UsageError(
            f"the orientation of case {case.name} is not known, and DICOM has no way to leave it open: write .nrrd, "
            ".mha or .nii.gz, or convert the case again from a file that says how it lies in the patient"
        )


def write_ct(case: Case, folder: Path) -> Path:
    """Write the CT of a case as an anonymous DICOM series, slab by slab; the folder becomes visible as a whole.

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
    passing = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    passing.mkdir(parents=True)
    try:
        index = 0
        for slab in slabs_of(case, "ct"):
            for plane in slab:
                dataset = series.slice(index, plane)
                _describe_patient(dataset, case)
                mark_anonymous(dataset, case)
                dataset.BurnedInAnnotation = "NO"
                dataset.SeriesDescription, dataset.SoftwareVersions = "CT, derived", f"lungmix {__version__}"
                dataset.save_as(passing / f"{index + 1:05d}.dcm", enforce_file_format=True)
                index += 1
        if folder.exists():
            shutil.rmtree(folder)
        passing.replace(folder)
    finally:
        shutil.rmtree(passing, ignore_errors=True)
    return folder


def _same_place(case: Case, scan: Scan) -> bool:
    if scan.geometry.size != case.geometry.size:
        return False
    one, two = (_corners(geometry) for geometry in (scan.geometry, case.geometry))
    return bool(np.abs(one - two).max() < _TOLERANCE_MM)


def _corners(geometry: Geometry) -> npt.NDArray[np.float64]:
    axes = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    last = np.array(geometry.size) - 1
    return np.array([geometry.origin + axes @ (last * corner) for corner in np.ndindex(2, 2, 2)])


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
    """What a store was asked to keep of the patient: sex, age, shifted date."""
    known = case.acquisition
    dataset.PatientSex, dataset.StudyDate = known.sex or "", known.study_date or ""
    if known.age is not None:
        dataset.PatientAge = f"{known.age:03d}Y"


def leave_out_dates(dataset: Dataset, case: Case) -> None:
    """Take out when an object was made: not long after the scan, as a rule.

    DICOM wants a date of the content of a segmentation: it is that of the study, if the store has one, shifted, or
    else the first day of 1970.
    """
    for name in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        if name in dataset:
            delattr(dataset, name)
    for item in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in item:
            del item.ContributionDateTime
    dataset.ContentDate, dataset.ContentTime = case.acquisition.study_date or _NO_DATE, "000000"


def mark_anonymous(dataset: Dataset, case: Case, *, same_uids: bool = False) -> None:
    """Say in an object that nothing in it tells who the patient is, and by which profile (DICOM PS3.15, annex E).

    Parameters
    ----------
    dataset : Dataset
        Changed in place.
    case : Case
        Whose attributes say what was asked to be kept.
    same_uids : bool
        Whether it refers to the original objects.
    """
    known = case.acquisition
    options = (
        (same_uids, codes.DCM.RetainUidsOption),
        (known.sex is not None or known.age is not None, codes.DCM.RetainPatientCharacteristicsOption),
        (known.study_date is not None, codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption),
    )
    used = [codes.DCM.BasicApplicationConfidentialityProfile, *(code for kept, code in options if kept)]
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethodCodeSequence = [_item(code) for code in used]


def _item(code: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _is_slice(file: Path) -> bool:
    return file.is_file() and re.fullmatch(r"\d{5}\.dcm", file.name) is not None
