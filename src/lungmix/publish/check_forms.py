"""Checks of published images in other formats than NRRD: their geometry, their voxels, and what their headers say."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
import zarr
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import PYDICOM_ROOT_UID

from lungmix.formats.header import is_same_place
from lungmix.geometry import Geometry
from lungmix.publish.folder import DICOM_SEG, ImageFile
from lungmix.publish.identifiers import IdentifierSearch
from lungmix.store.metadata import ATTRIBUTE

TOLERANCE_MM = 1e-2
"""NIfTI has 32-bit floats, and DICOM decimal numbers of 16 characters."""

_STANDARD_UIDS = ("1.2.840.10008.", PYDICOM_ROOT_UID)
_OWN_META = ("ImplementationClassUID", "ImplementationVersionName")
_NO_DATES = ("", "19700101", "000000")
_NAMES, _DATES, _UIDS = ("PN",), ("DA", "DT", "TM"), ("UI",)
READ_ERRORS: tuple[type[Exception], ...] = (
    OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, InvalidDicomError,
    NotImplementedError,
)  # fmt: skip
"""Errors of libraries that read a corrupt file."""


def geometry_of(file: Path) -> Geometry:
    """Return the geometry in the header of an NRRD or NIfTI file, as SimpleITK reads it."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    return Geometry.from_sitk(reader)


def problems_of_folder(root: Path, image: ImageFile, ct: Geometry, search: IdentifierSearch) -> list[str]:
    """Return the problems of an image that is a folder of files.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    image : ImageFile
        The image, in DICOM or as OME-Zarr.
    ct : Geometry
        Geometry of the CT of its case.
    search : IdentifierSearch
        Search for identifiers in values of headers and in decompressed voxels.
    """
    try:
        if image.format == DICOM_SEG:
            return list(dict.fromkeys(_problems_of_dicom(root / image.path, image, ct, search)))
        return list(dict.fromkeys(_problems_of_zarr(root / image.path, image, ct, search)))
    except READ_ERRORS as error:
        return [f"cannot be read ({type(error).__name__})"]


def _problems_of_zarr(folder: Path, image: ImageFile, ct: Geometry, search: IdentifierSearch) -> Iterator[str]:
    group = zarr.open_group(str(folder), mode="r", zarr_format=3, use_consolidated=False)
    attributes: dict[str, Any] = dict(group.attrs)
    (scales,) = attributes["ome"]["multiscales"]
    if image.image == "ct" and not is_same_place(
        Geometry.from_dict(attributes[ATTRIBUTE]["geometry"]), ct, TOLERANCE_MM
    ):
        yield "does not have the geometry of its CT"
    for index, level in enumerate(scales["datasets"]):
        array: Any = group[level["path"]]
        if index == 0:
            scale = level["coordinateTransformations"][0]["scale"]
            if array.shape != ct.shape or not np.allclose(scale, ct.spacing_zyx, rtol=0, atol=1e-6):
                yield "does not have the geometry of its CT"
        step = (array.shards or array.chunks)[0]
        for start in range(0, array.shape[0], step):
            if search.is_in(np.ascontiguousarray(array[start : start + step]).tobytes()):
                yield "an identifier of the key table is in its decompressed bytes"


def _problems_of_dicom(folder: Path, image: ImageFile, ct: Geometry, search: IdentifierSearch) -> Iterator[str]:
    positions: dict[str, tuple[float, ...]] = {}
    segmentations: list[Dataset] = []
    for name in sorted(image.members):
        dataset = pydicom.dcmread(folder / name)
        yield from _problems_of_header(dataset, image.case, search)
        if (dataset.Rows, dataset.Columns) != ct.shape[1:]:
            yield "does not have the size of its CT"
        if dataset.Modality == "SEG":
            segmentations.append(dataset)
        else:
            positions[str(dataset.SOPInstanceUID)] = tuple(map(float, dataset.ImagePositionPatient))
            if len(dataset.PixelData) != 2 * dataset.Rows * dataset.Columns:
                yield "does not have the voxels of its size"
            if not np.allclose(dataset.ImageOrientationPatient, _axes_of(ct), rtol=0, atol=1e-5):
                yield "does not have the geometry of its CT"
    ends = [np.array(ct.origin) + _normal_of(ct) * ct.spacing[2] * index for index in range(ct.size[2])]
    places = list(positions.values())
    if len(places) != len(ends) or np.abs(np.subtract(places, ends)).max() > TOLERANCE_MM:
        yield "does not have the geometry of its CT"
    for dataset in segmentations:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            place = frame.PlanePositionSequence[0].ImagePositionPatient
            expected = positions.get(str(source), (np.inf,) * 3)
            if not np.allclose(np.array(place, np.float64), expected, rtol=0, atol=TOLERANCE_MM):
                yield "refers to slices that are not in its folder, or at other places"


def _problems_of_header(dataset: Dataset, case: str, search: IdentifierSearch) -> Iterator[str]:
    """Yield problems with the values of all elements but the pixels: names, dates, foreign UIDs and identifiers."""
    meta = [element for element in dataset.file_meta if element.keyword not in _OWN_META]
    for element in chain(meta, dataset.iterall()):
        if element.keyword == "PixelData" or element.VR == "SQ":
            continue
        values = element.value if element.VM > 1 else [element.value]
        texts = [str(value) for value in values if value is not None]
        if element.VR in _NAMES and any(texts):
            yield "has the name of a person"
        if element.VR in _DATES and not set(texts) <= set(_NO_DATES):
            yield "has a date or time"
        if element.VR in _UIDS and not all(text.startswith(_STANDARD_UIDS) for text in texts if text):
            yield "has a UID that is not derived from the data set"
        if any(search.is_in(text.encode("utf-8", "surrogateescape")) for text in texts):
            yield "an identifier of the key table is in a value of its header"
    if dataset.PatientID != case or dataset.PatientIdentityRemoved != "YES":
        yield "has another patient than its case"


def _axes_of(geometry: Geometry) -> list[float]:
    return [*geometry.direction[0::3], *geometry.direction[1::3]]


def _normal_of(geometry: Geometry) -> Any:
    return np.array(geometry.direction[2::3])
