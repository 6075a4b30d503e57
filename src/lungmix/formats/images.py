"""Image files: NRRD, NIfTI and MetaImage. Geometry is what SimpleITK reads; voxels are streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from lungmix.errors import SourceError
from lungmix.formats.scan import Scan, case_name, fingerprint_of, key_of_place
from lungmix.formats.streams import VoxelData, check_size, voxel_slabs
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

_LONGEST_HEADER = 1 << 20
_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_NRRD_CODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}


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
    geometry = _geometry(path)
    kind = KINDS[extension]
    data = _voxel_data(path, kind, geometry)
    check_size(data, geometry.shape)
    files = tuple(dict.fromkeys((str(path), data.file)))
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
    path = Path(scan.files[0])
    data = _voxel_data(path, scan.kind, scan.geometry)
    yield from voxel_slabs(data, scan.geometry.shape, thickness)


def _geometry(path: Path) -> Geometry:
    if path.stat().st_size == 0:
        raise SourceError(f"{path.name} is empty: get the file again")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise SourceError(
            f"{path.name} is not an image that can be read: its header is damaged or of another format"
        ) from None
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if components != 1:
        raise SourceError(
            f"{path.name} has {components} values a voxel, such as a colour image or a time series: give one CT volume"
        )
    if dimension != 3:
        raise SourceError(f"{path.name} is a {dimension}-D image: give one 3-D CT volume")
    if (
        min(reader.GetSize()) < 1
        or not np.isfinite([*reader.GetSpacing(), *reader.GetOrigin(), *reader.GetDirection()]).all()
    ):
        raise SourceError(f"{path.name} has no usable geometry (size {reader.GetSize()}): export it again")
    if not all(0 < s < 1000 for s in reader.GetSpacing()):
        raise SourceError(
            f"{path.name} has a spacing of {reader.GetSpacing()} mm: a CT has millimetres; export it again"
        )
    return Geometry.from_sitk(reader)


def _voxel_data(path: Path, kind: str, geometry: Geometry) -> VoxelData:
    try:
        data = {"nrrd": _nrrd, "nifti": _nifti, "meta": _meta}[kind](path)
    except SourceError:
        raise
    except Exception as error:  # header libraries raise whatever a damaged field leads to
        raise SourceError(
            f"{path.name} has a damaged header ({type(error).__name__}: {error}); get the file again"
        ) from None
    if data.dtype.kind not in "iuf":
        raise SourceError(f"{path.name} stores {data.dtype}, not numbers: export the CT as 16-bit integers")
    return data


def _nrrd(path: Path) -> VoxelData:
    with path.open("rb") as stream:
        header = nrrd.read_header(stream)
        offset = stream.tell()
    dtype = np.dtype(nrrd.reader._determine_datatype(header))
    file = path
    if "data file" in header or "datafile" in header:
        file, offset = _beside(path, str(header.get("data file", header.get("datafile")))), 0
    if header.get("line skip", header.get("lineskip", 0)) or header.get("byte skip", header.get("byteskip", 0)):
        raise SourceError(
            f"{path.name} skips lines or bytes before its voxels, which is not read: save it again as .nrrd"
        )
    coding = _NRRD_CODINGS.get(str(header.get("encoding", "")).lower())
    if coding is None:
        raise SourceError(f"{path.name} has the encoding {header.get('encoding')!r}: save it again as raw or gzip")
    return VoxelData(str(file), offset, coding, dtype)


def _nifti(path: Path) -> VoxelData:
    # A loaded header has its scaling taken out; the array proxy carries it.
    image = nibabel.load(path)
    header, slope, intercept = image.header, float(image.dataobj.slope), float(image.dataobj.inter)
    coding = "gzip-file" if path.name.lower().endswith(".gz") else "raw"
    # A header may say 0 for single files; ITK and nibabel then read from behind the header.
    offset = int(header["vox_offset"]) or int(header.single_vox_offset)
    if offset > _LONGEST_HEADER * 16:
        raise SourceError(f"{path.name} puts its voxels at byte {offset}: its header is damaged; get the file again")
    return VoxelData(str(path), offset, coding, header.get_data_dtype(), slope, intercept)


def _meta(path: Path) -> VoxelData:
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields and stream.tell() < _LONGEST_HEADER:
            line = stream.readline(4096)
            if not line:
                break
            key, _, value = line.decode("latin-1").partition("=")
            fields[key.strip()] = value.strip()
        offset = stream.tell()
    element = _META_TYPES.get(fields.get("ElementType", ""))
    target = fields.get("ElementDataFile")
    if element is None or not target:
        raise SourceError(f"{path.name} lacks ElementType or ElementDataFile, or has an unknown one: export it again")
    if fields.get("HeaderSize", "0") not in ("0", ""):
        raise SourceError(f"{path.name} skips a header before its voxels, which is not read: save it again as .mha")
    big = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower() == "true"
    if target.upper() in ("LOCAL", "LOCALDATA"):
        file = path
    else:
        file, offset = _beside(path, target), 0
    coding = "zlib" if fields.get("CompressedData", "False").lower() == "true" else "raw"
    return VoxelData(str(file), offset, coding, np.dtype(element).newbyteorder(">" if big else "<"))


def _beside(header: Path, name: Any) -> Path:
    """The data file of a header: a plain name in the same folder, nothing else."""
    file = header.parent / str(name)
    inside = file.resolve().parent == header.parent.resolve()
    if "/" in str(name) or "\\" in str(name) or not inside:
        raise SourceError(f"{header.name} names a data file outside its own folder: put both into one folder")
    if not file.is_file():
        raise SourceError(f"{header.name} names a data file that is not there: put {Path(str(name)).name} beside it")
    return file
