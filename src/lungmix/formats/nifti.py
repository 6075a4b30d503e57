"""Headers of NIfTI files."""

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
from lungmix.formats.header import LONGEST_HEADER, Header, damaged, largest_shift, unusable
from lungmix.formats.voxel_streams import DAMAGED, VoxelData
from lungmix.geometry import Geometry

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MAGIC = {348: b"n+1", 540: b"n+2"}
_FARTHEST_VOXELS = 16 * LONGEST_HEADER
_INTENT_LABEL = 1002
_SAME_LENGTH = 0.01
_ROUNDED = 1e-5
_SAME_PLACE = 0.5
"""Voxels by which sform and qform may differ at a corner without a word."""


def read_nifti(path: Path) -> Header:
    """The header of a ``.nii`` or ``.nii.gz`` file.

    Raises
    ------
    SourceError
        If it is damaged or says what is not read.
    """
    packed = path.name.lower().endswith(".gz")
    block = _beginning(path, packed=packed)
    header = _parsed(path, block)
    least = len(header.binaryblock) + 4
    _check(path, header)
    offset = float(header["vox_offset"])
    if not offset.is_integer() or not (offset == 0 or least <= offset <= _FARTHEST_VOXELS):
        raise damaged(path, "vox_offset")
    slope, intercept = _scaling(path, header)
    geometry, notes = _geometry(header)
    dtype = np.dtype(_TYPES[int(header["datatype"])]).newbyteorder(header.endianness)
    data = VoxelData(str(path), int(offset) or least, "gzip-file" if packed else "raw", dtype, slope, intercept)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = least, 0, 0
    clean, is_labels = header.binaryblock + bytes(4), int(header["intent_code"]) == _INTENT_LABEL
    known = geometry is not None
    return Header(clean, ".nii", data, geometry, orientation_known=known, notes=notes, is_segmentation=is_labels)


def _beginning(path: Path, *, packed: bool) -> bytes:
    try:
        with path.open("rb") as file:
            if packed:
                with igzip.IGzipFile(fileobj=file) as stream:
                    return stream.read(544)
            return file.read(544)
    except (EOFError, *DAMAGED):
        raise SourceError(
            f"{mark_path(path)} is not an image that can be read: it is no gzip file, or damaged; get the file again"
        ) from None


def _parsed(path: Path, block: bytes) -> Any:
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        size = kind.sizeof_hdr
        if len(block) < size or size not in (int.from_bytes(block[:4], order) for order in ("little", "big")):
            continue
        order = "<" if int.from_bytes(block[:4], "little") == size else ">"
        header = kind(block[:size], endianness=order, check=False)
        if bytes(header["magic"])[:3] == _MAGIC[size]:
            return header
    raise SourceError(f"{mark_path(path)} is not an image that can be read: it is no NIfTI file; check its format")


def _check(path: Path, header: Any) -> None:
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise damaged(path, "dim")
    if dims[0] > 3 and max(dims[4 : dims[0] + 1]) > 1:
        raise SourceError(f"{mark_path(path)} is a {dims[0]}-D image, such as a time series: give one 3-D CT volume")
    if dims[0] < 3:
        raise SourceError(f"{mark_path(path)} is a {dims[0]}-D image: give one 3-D CT volume")
    if int(header["datatype"]) not in _TYPES:
        raise SourceError(f"{mark_path(path)} stores no numbers that are read: export the CT as 16-bit integers")
    if int(header["bitpix"]) != 8 * np.dtype(_TYPES[int(header["datatype"])]).itemsize:
        raise damaged(path, "bitpix")
    spacing = np.asarray(header["pixdim"][1:4], np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise unusable(path, "its pixdim is not above 0")
    if int(header["qform_code"]) > 0:
        quaternion = [float(header[f"quatern_{axis}"]) for axis in "bcd"]
        shift = [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
        if (
            not np.isfinite([*quaternion, *shift, float(header["pixdim"][0])]).all()
            or np.hypot.reduce(quaternion) > 1.001
        ):
            raise unusable(path, "its qform is no rotation")
    if int(header["sform_code"]) > 0:
        rows = np.asarray([header[f"srow_{axis}"] for axis in "xyz"], np.float64)
        if not np.isfinite(rows).all():
            raise unusable(path, "its sform is not finite")
        lengths = np.linalg.norm(rows[:, :3], axis=0)
        if not (lengths > 0).all() or (np.abs(lengths - spacing) > _SAME_LENGTH * spacing).any():
            raise unusable(path, "its sform and its pixdim differ in the spacing")


def _geometry(header: Any) -> tuple[Geometry | None, tuple[str, ...]]:
    """Return the place that nibabel reads, the sform before the qform, and a note where they contradict each other.

    It is None where both codes are 0: such a file says how large voxels are, and not how they lie in the patient.
    """
    by_sform = _placed(header, _sform(header)) if int(header["sform_code"]) > 0 else None
    by_qform = _placed(header, _qform(header)) if int(header["qform_code"]) > 0 else None
    if by_sform is None or by_qform is None:
        return by_sform or by_qform, ()
    apart = largest_shift(by_sform, by_qform)
    if apart <= _SAME_PLACE:
        return by_sform, ()
    named_axes = [" ".join(nibabel.aff2axcodes(form(header))) for form in (_sform, _qform)]
    differ = (
        f"its axes run to {named_axes[0]} by the sform and to {named_axes[1]} by the qform"
        if named_axes[0] != named_axes[1]
        else f"its sform and its qform lie up to {apart:.1f} voxels apart"
    )
    return by_sform, (f"{differ}: the sform is taken, as nibabel does",)


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


def _placed(header: Any, affine: npt.NDArray[np.float64]) -> Geometry | None:
    """Return the geometry of an affine in RAS, or None if an axis has no length."""
    columns = affine[:3, :3] * np.array([[-1], [-1], [1]])
    lengths = np.linalg.norm(columns, axis=0)
    if not (lengths > 0).all():
        return None
    spacing = np.asarray(header["pixdim"][1:4], np.float64)
    # Three numbers of the sform have more rounding in them than one of pixdim.
    spacing = np.where(np.abs(lengths - spacing) <= _ROUNDED * spacing, spacing, lengths)
    size = tuple(int(n) for n in header["dim"][1:4])
    origin = affine[:3, 3] * (-1, -1, 1)
    return Geometry(size, tuple(spacing), tuple(origin), tuple((columns / lengths).ravel()))  # type: ignore[arg-type]


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN says that there is none."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):
        if np.isfinite(intercept) and intercept != 0:
            raise damaged(path, "scl_slope")
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        raise damaged(path, "scl_slope or scl_inter")
    return slope, intercept
