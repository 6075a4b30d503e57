"""Export of DICOM segmentations and reports to a DICOMweb server (STOW-RS)."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pydicom
from pydicom.dataset import Dataset

from lungmix.atomic import atomic_file
from lungmix.errors import UsageError
from lungmix.export.formats import DICOM, Format, Options, check_options
from lungmix.formats.dicom.elements import RawHeader
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from lungmix.formats.dicomweb.address import is_dicomweb, parse_address
from lungmix.formats.dicomweb.answers import Json
from lungmix.formats.tempdirs import temporary_folder
from lungmix.store import Case

if TYPE_CHECKING:
    from lungmix.formats.dicomweb.server import DicomwebServer

_OF_STUDY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "StudyID", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes by which servers file the objects of a study, and which all objects of a study share."""

_PIXEL_HEADER_BYTES = 12
"""Length of tag, value representation and length of pixels in explicit little endian."""

_IDENTIFIERS = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]


def base_for_objects(address: str, target: Format, options: Options) -> str:
    """Return the URL of the server at an address.

    Raises
    ------
    UsageError
        If the address is not that of a server, or the format holds no DICOM objects or cannot use the options.
    """
    if not is_dicomweb(address):
        raise UsageError("objects are sent to a DICOMweb server: give its address, dicomweb+https://HOST/PATH")
    parsed = parse_address(address)
    if parsed.study is not None or parsed.study_query or parsed.series_query:
        raise UsageError(
            "objects are filed by the study in them: give the address of the server, without study or query"
        )
    if target.name not in DICOM:
        raise UsageError(f"a DICOMweb server takes DICOM objects: choose {' or '.join(DICOM)} as format")
    check_options(target, options)
    return parsed.base


@hide_warnings_of("pydicom", "highdicom")
def store_case(server: DicomwebServer, case: Case, target: Format, image: str, options: Options) -> int:
    """Send the objects of a case to a server, and return their number; they are on the disk only meanwhile.

    Objects of the original study get the attributes of the patient and the study that the server has, so that it files
    them with the study.

    Parameters
    ----------
    server : DicomwebServer
        The server.
    case : Case
        Case of a cohort.
    target : Format
        A format of DICOM objects.
    image : str
        Image to write; formats of measurements write their own.
    options : Options
        Options of DICOM segmentations.

    Raises
    ------
    SourceError
        If the server does not take an object, or does not list it afterwards.
    """
    with temporary_folder() as folder:
        written = target.write(case, folder / f"{case.name}.dcm", image, options)
        files = _referenced_first(written)
        headers = [pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_IDENTIFIERS) for file in files]
        if options.series:
            for study in server.studies({"StudyInstanceUID": str(headers[0].StudyInstanceUID)})[:1]:
                for file in files:
                    _file_under(study, file)
        for file in files:
            server.store(file)
        by_series: dict[tuple[str, str], list[str]] = defaultdict(list)
        for header in headers:
            series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
            by_series[series].append(str(header.SOPInstanceUID))
        for series, instances in by_series.items():
            server.check_stored(*series, instances)
        return len(files)


def _referenced_first(written: Sequence[Path]) -> list[Path]:
    """Return the files in an order in which each follows those that it refers to: CT, segmentations, report."""
    files: list[Path] = []
    for path in reversed(written):
        files += sorted(path.iterdir()) if path.is_dir() else [path]
    return files


def _file_under(study: Json, file: Path) -> None:
    """Write the attributes of a study, as the server has them, to a file that was marked as anonymous.

    The pixels are copied as they are, in pieces.
    """
    with file.open("rb") as stream:
        pixels = RawHeader.read(stream, [])
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        server_values = Dataset.from_json({key: element for key, element in study.items() if isinstance(element, dict)})
        for name in _OF_STUDY:
            if name in server_values:
                dataset[name] = server_values[name]
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientIdentityRemoved = "NO"
        if "DeidentificationMethodCodeSequence" in dataset:
            del dataset.DeidentificationMethodCodeSequence
        with atomic_file(file) as out:
            dataset.save_as(out, enforce_file_format=True)
            if pixels.pixel_bytes is not None:
                stream.seek(pixels.pixel_offset - _PIXEL_HEADER_BYTES)
                shutil.copyfileobj(stream, out)
