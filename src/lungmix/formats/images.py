"""Reader of image files: NRRD, NIfTI and MetaImage.

The geometry is that of SimpleITK, except where SimpleITK deviates from the format. Voxels are read slab by slab.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from lungmix.errors import SourceError, mark_path
from lungmix.formats.header import POSTERIOR, PREFIX, FileAt, Header, largest_shift
from lungmix.formats.labels import labels_of
from lungmix.formats.limits import check_geometry
from lungmix.formats.metaimage import read_meta
from lungmix.formats.nifti import read_nifti
from lungmix.formats.nrrd import read_nrrd
from lungmix.formats.scan import Scan, case_name, fingerprint_of, location_digest
from lungmix.formats.tempdirs import scratch
from lungmix.formats.voxel_streams import check_size, voxel_slabs
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.s3 import is_remote

KINDS = {
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "meta",
    ".mhd": "meta",
    ".nii": "nifti",
    ".nii.gz": "nifti",
}

_HEADERS: Mapping[str, Callable[[Path, FileAt | None], Header]] = MappingProxyType(
    {"nrrd": read_nrrd, "meta": read_meta, "nifti": lambda path, _: read_nifti(path)}
)

_ROUNDING = 1e-3


class LabelMapError(SourceError):
    """Error for a label map that was given in place of a CT."""


def extension_of(path: Path) -> str | None:
    """Return the extension of an image file, such as ``.nii.gz``; None for other names."""
    name = path.name.lower()
    return next((ext for ext in sorted(KINDS, key=len, reverse=True) if name.endswith(ext)), None)


def read_header(path: Path, file_at: FileAt | None = None) -> Scan:
    """Return the scan in an image file. `file_at` locates voxels in an object store, see `data_file_path`.

    Raises
    ------
    LabelMapError
        If its voxels are labels.
    SourceError
        If it is not a 3-D image with one value per voxel.
    """
    extension = extension_of(path)
    assert extension is not None
    kind = KINDS[extension]
    header = header_of(path, kind, file_at)
    if header.is_segmentation:
        raise LabelMapError(
            f"{mark_path(path)} is a segmentation by its header, not CT: give the CT that it belongs to"
        )
    if f"{PREFIX}{POSTERIOR}" in header.keys:
        raise LabelMapError(
            f"{mark_path(path)} holds posteriors of a tissue by its header, not CT: give the CT that it belongs to"
        )
    geometry = geometry_of(path, header)
    check_size(header.data, geometry.shape)
    values = labels_of(header.data, geometry.shape)
    if values is not None:
        raise LabelMapError(
            f"{mark_path(path)} is a label map, not CT (it holds the values {values}): give the CT that it belongs to"
        )
    files = tuple(dict.fromkeys((str(path), header.data.file)))
    return Scan(
        name=case_name(path.name[: -len(extension)]),
        path=str(path),
        kind=kind,
        geometry=geometry,
        acquisition=Acquisition(),
        fingerprint=fingerprint_of(files),
        key=location_digest(str(path.resolve())),
        files=files,
        notes=header.notes,
        reader=slabs_of,
    )


def slabs_of(scan: Scan, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the HU of an image file slab by slab; see `Scan.slabs`."""
    # A header can name only one object by its address: the file with the voxels, which is the last file of the scan.
    file_at: FileAt | None = (lambda _: Path(scan.files[-1])) if is_remote(scan.path) else None
    data = header_of(Path(scan.files[0]), scan.kind, file_at).data
    yield from voxel_slabs(data, scan.geometry.shape, thickness)


def header_of(path: Path, kind: str, file_at: FileAt | None = None) -> Header:
    """Return the checked header of an image file; `kind` is a value of `KINDS`.

    Raises
    ------
    SourceError
        If it is empty, corrupt or of an unsupported kind.
    """
    if path.stat().st_size == 0:
        raise SourceError(f"{mark_path(path)} is empty: get the file again")
    return _HEADERS[kind](path, file_at)


def geometry_of(path: Path, header: Header) -> Geometry:
    """Return the geometry of an image file.

    It is the geometry that SimpleITK reads, or `header.geometry` where that is given and differs.

    Raises
    ------
    SourceError
        If the header is not that of a plausible 3-D volume with one value per voxel.
    """
    geometry = _read_with_simpleitk(path, header)
    if header.geometry is not None and (geometry is None or not _is_same_geometry(geometry, header.geometry)):
        geometry = header.geometry
    if geometry is None:
        raise SourceError(
            f"{mark_path(path)} is not an image that can be read: its geometry is invalid; export it again"
        )
    geometry = replace(geometry, orientation_known=header.orientation_known)
    check_geometry(path, geometry)
    return geometry


def _read_with_simpleitk(path: Path, header: Header) -> Geometry | None:
    """Return the geometry that SimpleITK reads from the clean header; None where it rejects the header."""
    reader = sitk.ImageFileReader()
    with scratch(path) as folder:
        clean = folder / f"header{header.extension}"
        clean.write_bytes(header.clean)
        reader.SetFileName(str(clean))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if components != 1:
        raise SourceError(
            f"{mark_path(path)} has {components} values per voxel, like a colour image or a time series: "
            "give one 3-D volume"
        )
    if dimension != 3:
        raise SourceError(f"{mark_path(path)} is a {dimension}-D image: give one 3-D volume")
    return Geometry.from_sitk(reader)


def _is_same_geometry(first: Geometry, second: Geometry) -> bool:
    """Return True if two geometries have equal sizes, and no corner differs by a thousandth of a voxel or more."""
    return first.size == second.size and largest_shift(first, second) < _ROUNDING
