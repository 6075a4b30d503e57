"""Image files: NRRD, NIfTI and MetaImage. Geometry is what SimpleITK reads; voxels are streamed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from lungmix.errors import SourceError, named
from lungmix.formats.bounds import check_geometry
from lungmix.formats.header import Header
from lungmix.formats.meta import read_meta
from lungmix.formats.nifti import read_nifti
from lungmix.formats.nrrd import read_nrrd
from lungmix.formats.scan import Scan, case_name, fingerprint_of, key_of_place
from lungmix.formats.streams import check_size, voxel_slabs
from lungmix.geometry import Geometry
from lungmix.scan import Acquisition

KINDS = {
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "meta",
    ".mhd": "meta",
    ".nii": "nifti",
    ".nii.gz": "nifti",
}

_HEADERS: Mapping[str, Callable[[Path], Header]] = MappingProxyType(
    {"nrrd": read_nrrd, "meta": read_meta, "nifti": read_nifti}
)


def extension_of(path: Path) -> str | None:
    """The extension of an image file, ``.nii.gz`` as one; None if it is no image file by name."""
    name = path.name.lower()
    return next((ext for ext in sorted(KINDS, key=len, reverse=True) if name.endswith(ext)), None)


def read_header(path: Path) -> Scan:
    """The scan of an image file.

    Raises
    ------
    SourceError
        If it is not one 3-D image with one value a voxel.
    """
    extension = extension_of(path)
    assert extension is not None
    kind = KINDS[extension]
    header = _header(path, kind)
    geometry = _geometry(path, header)
    check_size(header.data, geometry.shape)
    files = tuple(dict.fromkeys((str(path), header.data.file)))
    return Scan(
        name=case_name(path.name[: -len(extension)]),
        path=str(path),
        kind=kind,
        geometry=geometry,
        acquisition=Acquisition(),
        fingerprint=fingerprint_of(files),
        key=key_of_place(str(path.resolve())),
        files=files,
    )


def slabs_of(scan: Scan, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
    """See `Scan.slabs`."""
    data = _header(Path(scan.files[0]), scan.kind).data
    yield from voxel_slabs(data, scan.geometry.shape, thickness)


def _header(path: Path, kind: str) -> Header:
    if path.stat().st_size == 0:
        raise SourceError(f"{named(path)} is empty: get the file again")
    return _HEADERS[kind](path)


def _geometry(path: Path, header: Header) -> Geometry:
    reader = sitk.ImageFileReader()
    with tempfile.TemporaryDirectory(prefix="lungmix-") as folder:
        clean = Path(folder) / f"header{header.extension}"
        clean.write_bytes(header.clean)
        reader.SetFileName(str(clean))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            raise SourceError(
                f"{named(path)} is not an image that can be read: its geometry makes no sense; export it again"
            ) from None
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if components != 1:
        raise SourceError(
            f"{named(path)} has {components} values a voxel, such as a colour image or a time series: "
            "give one CT volume"
        )
    if dimension != 3:
        raise SourceError(f"{named(path)} is a {dimension}-D image: give one 3-D CT volume")
    geometry = Geometry.from_sitk(reader)
    check_geometry(path, geometry)
    return geometry
