"""Reader of headers of MetaImage files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lungmix.errors import SourceError, mark_path
from lungmix.formats.header import (
    MAX_HEADER_BYTES,
    MAX_VALUE_LENGTH,
    PREFIX,
    WRITTEN_KEYS,
    FileAt,
    Header,
    check_not_repeated,
    corrupt_header_error,
    geometry_error,
    one_data_file,
    parse_counts,
    parse_numbers,
    type_error,
)
from lungmix.formats.voxel_streams import VoxelData

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_SYNONYMS = {
    "Position": "Offset", "Origin": "Offset", "Orientation": "TransformMatrix", "Rotation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}  # fmt: skip
_FIELDS = {
    "ObjectType", "NDims", "DimSize", "ElementType", "ElementNumberOfChannels", "BinaryData", "BinaryDataByteOrderMSB",
    "CompressedData", "CompressedDataSize", "HeaderSize", "Offset", "TransformMatrix", "ElementSpacing", "ElementSize",
    "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "ElementDataFile", "AnatomicalOrientation",
}  # fmt: skip
# SimpleITK writes metadata of other formats under keys such as NRRD_kinds[0] and 0008|0060.
_LINE = re.compile(r"\s*([^\s\x00-\x1f\x7f-\xff=][^\x00-\x1f\x7f-\xff=]{0,100}?)\s*=\s*(.*?)\s*")
# Three letters: side of the patient at which each axis begins. The identity matrix is RAI.
_ORIENTATION = re.compile("(?=.*[RL])(?=.*[AP])(?=.*[IS])[RLAPIS]{3}")
_IDENTITY_ORIENTATION = "RAI"
_SPACING_TOLERANCE = 0.01
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def read_meta(path: Path, file_at: FileAt | None = None) -> Header:
    """Return the checked header of a ``.mha`` or ``.mhd`` file; for `file_at` see `data_file_path`.

    Raises
    ------
    SourceError
        If it is corrupt, names a file outside its folder or uses an unsupported feature.
    """
    fields, keys, offset = _read_fields(path)
    for field in ("ObjectType", "NDims", "DimSize", "ElementType", "ElementDataFile"):
        if not fields.get(field):
            raise SourceError(
                f"{mark_path(path)} lacks the field {field}, or its header is corrupt before that field: export it "
                "again, or check its format"
            )
    if fields["ObjectType"] != "Image":
        raise SourceError(f"{mark_path(path)} holds an object that is not an image: give one 3-D volume")
    fields = _drop_singleton_axes(fields)
    clean = _clean_header(path, fields)
    type_code = _TYPES.get(fields["ElementType"])
    if type_code is None:
        raise type_error(path)
    if fields.get("HeaderSize", "0") not in ("0", ""):
        raise SourceError(
            f"{mark_path(path)} skips a header before its voxels, which is not supported: save it again as .mha"
        )
    if not _parse_boolean(path, fields, "BinaryData", default=True):
        raise SourceError(f"{mark_path(path)} has its voxels as text, which is not supported: save it again as binary")
    for field, neutral in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if field in fields and parse_numbers(fields[field]) != [neutral]:
            raise SourceError(
                f"{mark_path(path)} rescales its voxels ({field}), which is not supported: export it in HU"
            )
    is_big_endian = _parse_boolean(path, fields, "BinaryDataByteOrderMSB", default=False)
    compressed = _parse_boolean(path, fields, "CompressedData", default=False)
    file, offset = _data_file(path, fields["ElementDataFile"], offset, file_at)
    if compressed:
        # Without this field SimpleITK returns uninitialised memory as voxels.
        declared = parse_numbers(fields.get("CompressedDataSize", ""))
        if declared != [float(file.stat().st_size - offset)]:
            raise SourceError(
                f"{mark_path(file)} is cut short or corrupt: it does not have the size that its header declares "
                "(CompressedDataSize); get the file again"
            )
    dtype = np.dtype(type_code).newbyteorder(">" if is_big_endian else "<")
    data = VoxelData(str(file), offset, "zlib" if compressed else "raw", dtype)
    orientation_known, notes = _orientation(fields)
    return Header(
        clean, ".mha", data, orientation_known=orientation_known, notes=(*notes, *_spacing_notes(fields)), keys=keys
    )


def _drop_singleton_axes(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields without the axes after the third, if all of these have one voxel."""
    sizes = fields["DimSize"].split()
    axes = len(sizes)
    if fields["NDims"] != str(axes) or axes <= 3 or any(size != "1" for size in sizes[3:]):
        return fields
    fields = {**fields, "NDims": "3", "DimSize": " ".join(sizes[:3])}
    for field in ("Offset", "ElementSpacing", "ElementSize"):
        words = fields.get(field, "").split()
        if len(words) == axes:
            fields[field] = " ".join(words[:3])
    matrix = fields.get("TransformMatrix", "").split()
    if len(matrix) == axes * axes:
        rows = [matrix[axis * axes : (axis + 1) * axes] for axis in range(3)]
        # A direction along a fourth axis of space leaves too many numbers, which `_clean_header` rejects.
        if all(parse_numbers(word) == [0.0] for row in rows for word in row[3:]):
            fields["TransformMatrix"] = " ".join(word for row in rows for word in row[:3])
    return fields


def _orientation(fields: dict[str, str]) -> tuple[bool, tuple[str, ...]]:
    """Return whether the orientation of the axes is known, and a note on inconsistent fields."""
    letters = fields.get("AnatomicalOrientation", "").upper()
    letters = letters if _ORIENTATION.fullmatch(letters) else ""
    if "TransformMatrix" not in fields:
        if letters and letters != _IDENTITY_ORIENTATION:
            return False, (
                f"it has AnatomicalOrientation ({letters}) and no TransformMatrix, which programs read differently: "
                "right and left are not known",
            )
        return letters == _IDENTITY_ORIENTATION, ()
    matrix = parse_numbers(fields["TransformMatrix"])
    if not letters or matrix is None or len(matrix) != 9:
        return True, ()
    axes = np.reshape(matrix, (3, 3))
    along = np.abs(axes).argmax(axis=1)
    by_matrix = "".join("RAI"[a] if axes[i, a] > 0 else "LPS"[a] for i, a in enumerate(along))
    if by_matrix == letters:
        return True, ()
    return True, (
        f"its AnatomicalOrientation ({letters}) and its TransformMatrix ({by_matrix}) differ: the matrix is used",
    )


def _spacing_notes(fields: dict[str, str]) -> tuple[str, ...]:
    spacing, size = (parse_numbers(fields.get(field, "")) for field in ("ElementSpacing", "ElementSize"))
    if not spacing or not size or np.allclose(spacing, size, rtol=_SPACING_TOLERANCE, atol=0):
        return ()
    return ("its ElementSpacing and its ElementSize differ: ElementSpacing is used",)


def _read_fields(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the fields, the keys that this package writes, and the offset of the end of the header."""
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields:
            line = stream.readline(MAX_HEADER_BYTES)
            if not line:
                break
            if stream.tell() > MAX_HEADER_BYTES:
                raise SourceError(f"{mark_path(path)} has a header without an end: get the file again")
            if not line.strip():
                continue
            match = _LINE.fullmatch(line.decode("latin-1"))
            if match is None:
                raise SourceError(
                    f"{mark_path(path)} is not an image that can be read: its header has a line that is no field; "
                    "check its format, or get the file again"
                )
            field = _SYNONYMS.get(match[1], match[1])
            if field in _FIELDS:
                check_not_repeated(path, tuple(fields), field)
                fields[field] = match[2]
            elif field.removeprefix(PREFIX) in WRITTEN_KEYS:
                keys[field] = match[2]
        return fields, keys, stream.tell()


def _clean_header(path: Path, fields: dict[str, str]) -> bytes:
    for field in fields:
        value = fields[field]
        if field != "ElementDataFile" and not (
            value.isascii() and value.isprintable() and len(value) <= MAX_VALUE_LENGTH
        ):
            raise corrupt_header_error(path, field)
    dimension = parse_counts(fields["NDims"])
    if dimension is None or len(dimension) != 1 or not 1 <= dimension[0] <= 10:
        raise corrupt_header_error(path, "NDims")
    axes = dimension[0]
    sizes = parse_counts(fields["DimSize"])
    if sizes is None or len(sizes) != axes or min(sizes) < 1:
        raise corrupt_header_error(path, "DimSize")
    channels = parse_counts(fields.get("ElementNumberOfChannels", "1"))
    if channels is None or len(channels) != 1 or not 1 <= channels[0] <= 10_000:
        raise corrupt_header_error(path, "ElementNumberOfChannels")
    lines = ["ObjectType = Image", f"NDims = {axes}", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    for field, count in (
        ("TransformMatrix", axes * axes),
        ("Offset", axes),
        ("ElementSpacing", axes),
        ("ElementSize", axes),
    ):
        if field not in fields:
            continue
        values = parse_numbers(fields[field])
        if values is None or len(values) != count:
            raise geometry_error(path, f"its {field} does not consist of {count} finite numbers")
        if field.startswith("Element") and min(values) <= 0:
            raise geometry_error(path, f"its {field} is not positive")
        lines.append(f"{field} = {fields[field]}")
    lines += [
        f"DimSize = {' '.join(map(str, sizes))}",
        f"ElementNumberOfChannels = {channels[0]}",
        f"ElementType = {fields['ElementType'] if fields['ElementType'] in _TYPES else 'MET_SHORT'}",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _parse_boolean(path: Path, fields: dict[str, str], field: str, *, default: bool) -> bool:
    if field not in fields:
        return default
    value = _BOOLEANS.get(fields[field].lower())
    if value is None:
        raise corrupt_header_error(path, field)
    return value


def _data_file(path: Path, value: str, offset: int, file_at: FileAt | None) -> tuple[Path, int]:
    if value.upper() in ("LOCAL", "LOCALDATA"):
        return path, offset
    is_split = value.upper().startswith("LIST") or "%" in value
    return one_data_file(path, value, ".mha", file_at, is_split=is_split), 0
