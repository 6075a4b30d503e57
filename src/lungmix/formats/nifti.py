"""Reader of headers of NIfTI files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from isal import igzip
from nibabel.quaternions import quat2mat

from lungmix.errors import SourceError, mark_path
from lungmix.formats.header import (
    MAX_HEADER_BYTES,
    PREFIX,
    WRITTEN_KEYS,
    Header,
    corrupt_header_error,
    geometry_error,
    largest_shift,
    type_error,
)
from lungmix.formats.voxel_streams import DECOMPRESSION_ERRORS, VoxelData
from lungmix.geometry import Geometry

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MAGIC = {348: b"n+1", 540: b"n+2"}
_MAX_OFFSET = 16 * MAX_HEADER_BYTES
_INTENT_LABEL = 1002
_SPACING_TOLERANCE = 0.01
_ROUNDING = 1e-5
_MAX_SHIFT = 0.5
"""Distance in voxels between a corner by sform and by qform, from which on a note is given."""


def read_nifti(path: Path) -> Header:
    """Return the header of a ``.nii`` or ``.nii.gz`` file.

    Raises
    ------
    SourceError
        If it is corrupt or uses an unsupported feature.
    """
    is_gzip = path.name.lower().endswith(".gz")
    content = _read_beginning(path, is_gzip=is_gzip)
    header = _parse(path, content)
    min_offset = len(header.binaryblock) + 4
    _check(path, header)
    offset = float(header["vox_offset"])
    if not offset.is_integer() or not (offset == 0 or min_offset <= offset <= _MAX_OFFSET):
        raise corrupt_header_error(path, "vox_offset")
    slope, intercept = _scaling(path, header)
    geometry, notes = _geometry(header)
    dtype = np.dtype(_TYPES[int(header["datatype"])]).newbyteorder(header.endianness)
    data = VoxelData(str(path), int(offset) or min_offset, "gzip-file" if is_gzip else "raw", dtype, slope, intercept)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = min_offset, 0, 0
    clean, is_labels = header.binaryblock + bytes(4), int(header["intent_code"]) == _INTENT_LABEL
    orientation_known = geometry is not None
    return Header(
        clean, ".nii", data, geometry, orientation_known=orientation_known, notes=notes, is_segmentation=is_labels,
        keys=_keys(header),
    )  # fmt: skip


def _keys(header: Any) -> dict[str, str]:
    """Return the keys that this package writes into ``intent_name`` and into ``descrip``, such as ``mask physical``."""
    text, image = (bytes(header[field]).rstrip(b"\0").decode("latin-1") for field in ("descrip", "intent_name"))
    pairs = (part.partition(" ") for part in text.split("; "))
    keys = {f"{PREFIX}{key}": value for key, _, value in pairs if key in WRITTEN_KEYS}
    return {f"{PREFIX}image": image, **keys} if keys and image else keys


def _read_beginning(path: Path, *, is_gzip: bool) -> bytes:
    try:
        with path.open("rb") as file:
            if is_gzip:
                with igzip.IGzipFile(fileobj=file) as stream:
                    return stream.read(544)
            return file.read(544)
    except (EOFError, *DECOMPRESSION_ERRORS):
        raise SourceError(
            f"{mark_path(path)} is not an image that can be read: it is no gzip file, or corrupt; get the file again"
        ) from None


def _parse(path: Path, content: bytes) -> Any:
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        size = kind.sizeof_hdr
        if len(content) < size or size not in (int.from_bytes(content[:4], order) for order in ("little", "big")):
            continue
        order = "<" if int.from_bytes(content[:4], "little") == size else ">"
        header = kind(content[:size], endianness=order, check=False)
        if bytes(header["magic"])[:3] == _MAGIC[size]:
            return header
    raise SourceError(f"{mark_path(path)} is not an image that can be read: it is no NIfTI file; check its format")


def _check(path: Path, header: Any) -> None:
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise corrupt_header_error(path, "dim")
    if dims[0] > 3 and max(dims[4 : dims[0] + 1]) > 1:
        raise SourceError(f"{mark_path(path)} is a {dims[0]}-D image, such as a time series: give one 3-D volume")
    if dims[0] < 3:
        raise SourceError(f"{mark_path(path)} is a {dims[0]}-D image: give one 3-D volume")
    if int(header["datatype"]) not in _TYPES:
        raise type_error(path)
    if int(header["bitpix"]) != 8 * np.dtype(_TYPES[int(header["datatype"])]).itemsize:
        raise corrupt_header_error(path, "bitpix")
    spacing = np.asarray(header["pixdim"][1:4], np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise geometry_error(path, "its pixdim is not positive")
    if int(header["qform_code"]) > 0:
        quaternion = [float(header[f"quatern_{axis}"]) for axis in "bcd"]
        shift = [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
        if (
            not np.isfinite([*quaternion, *shift, float(header["pixdim"][0])]).all()
            or np.hypot.reduce(quaternion) > 1.001
        ):
            raise geometry_error(path, "its qform is no rotation")
    if int(header["sform_code"]) > 0:
        rows = np.asarray([header[f"srow_{axis}"] for axis in "xyz"], np.float64)
        if not np.isfinite(rows).all():
            raise geometry_error(path, "its sform is not finite")
        lengths = np.linalg.norm(rows[:, :3], axis=0)
        if not (lengths > 0).all() or (np.abs(lengths - spacing) > _SPACING_TOLERANCE * spacing).any():
            raise geometry_error(path, "its sform and its pixdim differ in the spacing")


def _geometry(header: Any) -> tuple[Geometry | None, tuple[str, ...]]:
    """Return the geometry by the sform, or else by the qform, as nibabel does, and a note if the two are inconsistent.

    The geometry is None where both codes are 0: such a file has a voxel size, but no orientation in the patient.
    """
    by_sform = _geometry_of_affine(header, _sform(header)) if int(header["sform_code"]) > 0 else None
    by_qform = _geometry_of_affine(header, _qform(header)) if int(header["qform_code"]) > 0 else None
    if by_sform is None or by_qform is None:
        return by_sform or by_qform, ()
    shift = largest_shift(by_sform, by_qform)
    if shift <= _MAX_SHIFT:
        return by_sform, ()
    axis_names = [" ".join(nibabel.aff2axcodes(form(header))) for form in (_sform, _qform)]
    difference = (
        f"its axes run to {axis_names[0]} by the sform and to {axis_names[1]} by the qform"
        if axis_names[0] != axis_names[1]
        else f"its sform and its qform are up to {shift:.1f} voxels apart"
    )
    return by_sform, (f"{difference}: the sform is used, as in nibabel",)


def _sform(header: Any) -> npt.NDArray[np.float64]:
    """Return the affine of the sform; patient space is RAS."""
    rows = [np.asarray(header[f"srow_{axis}"], np.float64) for axis in "xyz"]
    return np.vstack([*rows, (0, 0, 0, 1)])


def _qform(header: Any) -> npt.NDArray[np.float64]:
    """Return the affine of the qform; patient space is RAS."""
    b, c, d = (float(header[f"quatern_{axis}"]) for axis in "bcd")
    rotation = quat2mat((math.sqrt(max(1 - b * b - c * c - d * d, 0)), b, c, d))
    steps = np.asarray(header["pixdim"][1:4], np.float64)
    if float(header["pixdim"][0]) < 0:
        steps = steps * (1, 1, -1)
    affine = np.eye(4)
    affine[:3, :3] = rotation * steps
    affine[:3, 3] = [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _geometry_of_affine(header: Any, affine: npt.NDArray[np.float64]) -> Geometry | None:
    """Return the geometry of an affine in RAS, or None if an axis has no length."""
    columns = affine[:3, :3] * np.array([[-1], [-1], [1]])
    lengths = np.linalg.norm(columns, axis=0)
    if not (lengths > 0).all():
        return None
    spacing = np.asarray(header["pixdim"][1:4], np.float64)
    # A length computed from three numbers of the sform has a larger rounding error than the one number of pixdim.
    spacing = np.where(np.abs(lengths - spacing) <= _ROUNDING * spacing, spacing, lengths)
    size = tuple(int(n) for n in header["dim"][1:4])
    origin = affine[:3, 3] * (-1, -1, 1)
    return Geometry(size, tuple(spacing), tuple(origin), tuple((columns / lengths).ravel()))  # type: ignore[arg-type]


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    """Return slope and intercept of stored values: 1 and 0 where the header has the slope 0 or NaN."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        if np.isfinite(intercept) and intercept != 0:
            raise corrupt_header_error(path, "scl_slope")
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        raise corrupt_header_error(path, "scl_slope or scl_inter")
    return slope, intercept
