"""Headers of MetaImage files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lungmix.errors import SourceError, mark_path
from lungmix.formats.header import (
    LONGEST_HEADER,
    LONGEST_VALUE,
    Header,
    beside,
    counts,
    damaged,
    data_name,
    is_beside,
    numbers,
    once,
    unusable,
)
from lungmix.formats.voxel_streams import VoxelData

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_SAME = {
    "Position": "Offset", "Origin": "Offset", "Orientation": "TransformMatrix", "Rotation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}  # fmt: skip
_READ = {
    "ObjectType", "NDims", "DimSize", "ElementType", "ElementNumberOfChannels", "BinaryData", "BinaryDataByteOrderMSB",
    "CompressedData", "CompressedDataSize", "HeaderSize", "Offset", "TransformMatrix", "ElementSpacing", "ElementSize",
    "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "ElementDataFile", "AnatomicalOrientation",
}  # fmt: skip
_LINE = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.-]{0,100})\s*=\s*(.*?)\s*", re.ASCII)
# The side of the patient that each axis begins at; those of the identity are RAI.
_LETTERS = re.compile("(?=.*[RL])(?=.*[AP])(?=.*[IS])[RLAPIS]{3}")
_PLAIN = "RAI"
_SAME_LENGTH = 0.01
_SWITCH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def read_meta(path: Path) -> Header:
    """The header of a ``.mha`` or ``.mhd`` file.

    Raises
    ------
    SourceError
        If it is damaged, leads out of its folder or says what is not read.
    """
    fields, offset = _fields(path)
    for field in ("ObjectType", "NDims", "DimSize", "ElementType", "ElementDataFile"):
        if not fields.get(field):
            raise SourceError(
                f"{mark_path(path)} lacks {field}, or has a damaged header before it: export it again, or check its "
                "format"
            )
    if fields["ObjectType"] != "Image":
        raise SourceError(f"{mark_path(path)} describes no image but another object: give one CT volume")
    fields = _three_axes(fields)
    clean = _clean(path, fields)
    code = _TYPES.get(fields["ElementType"])
    if code is None:
        raise SourceError(f"{mark_path(path)} stores no numbers that are read: export the CT as 16-bit integers")
    if fields.get("HeaderSize", "0") not in ("0", ""):
        raise SourceError(
            f"{mark_path(path)} skips a header before its voxels, which is not read: save it again as .mha"
        )
    if not _switch(path, fields, "BinaryData", default=True):
        raise SourceError(f"{mark_path(path)} has its voxels as text, which is not read: save it again as binary")
    for field, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if field in fields and numbers(fields[field]) != [plain]:
            raise SourceError(f"{mark_path(path)} rescales its voxels ({field}), which is not read: export it in HU")
    big = _switch(path, fields, "BinaryDataByteOrderMSB", default=False)
    compressed = _switch(path, fields, "CompressedData", default=False)
    file, offset = _data_file(path, fields["ElementDataFile"], offset)
    if compressed:
        # Without it SimpleITK takes whatever the memory holds for voxels.
        promised = numbers(fields.get("CompressedDataSize", ""))
        if promised != [float(file.stat().st_size - offset)]:
            raise SourceError(
                f"{mark_path(file)} is cut short or damaged: it does not have the size that its header promises "
                "(CompressedDataSize); get the file again"
            )
    dtype = np.dtype(code).newbyteorder(">" if big else "<")
    data = VoxelData(str(file), offset, "zlib" if compressed else "raw", dtype)
    known, notes = _orientation(fields)
    return Header(clean, ".mha", data, orientation_known=known, notes=(*notes, *_contradicting_sizes(fields)))


def _three_axes(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields without a fourth and further axes of one voxel."""
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
        # A direction along the fourth axis of space leaves too many numbers, which the check below refuses.
        if all(numbers(word) == [0.0] for row in rows for word in row[3:]):
            fields["TransformMatrix"] = " ".join(word for row in rows for word in row[:3])
    return fields


def _orientation(fields: dict[str, str]) -> tuple[bool, tuple[str, ...]]:
    """Return False where nothing says how the axes lie in the patient, and a note on two statements that differ."""
    letters = fields.get("AnatomicalOrientation", "").upper()
    letters = letters if _LETTERS.fullmatch(letters) else ""
    if "TransformMatrix" not in fields:
        if letters and letters != _PLAIN:
            return False, (
                f"it names its axes ({letters}) and gives no matrix for them, which programs read in different ways: "
                "right and left are not known",
            )
        return letters == _PLAIN, ()
    matrix = numbers(fields["TransformMatrix"])
    if not letters or matrix is None or len(matrix) != 9:
        return True, ()
    axes = np.reshape(matrix, (3, 3))
    along = np.abs(axes).argmax(axis=1)
    by_matrix = "".join("RAI"[a] if axes[i, a] > 0 else "LPS"[a] for i, a in enumerate(along))
    if by_matrix == letters:
        return True, ()
    return True, (
        f"its AnatomicalOrientation ({letters}) and its TransformMatrix ({by_matrix}) differ: the matrix is taken",
    )


def _contradicting_sizes(fields: dict[str, str]) -> tuple[str, ...]:
    spacing, size = (numbers(fields.get(field, "")) for field in ("ElementSpacing", "ElementSize"))
    if not spacing or not size or np.allclose(spacing, size, rtol=_SAME_LENGTH, atol=0):
        return ()
    return ("its ElementSpacing and its ElementSize differ: ElementSpacing is taken",)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields, and where the voxels of a file with both begin."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields:
            line = stream.readline(LONGEST_HEADER)
            if not line:
                break
            if stream.tell() > LONGEST_HEADER:
                raise SourceError(f"{mark_path(path)} has a header without an end: get the file again")
            if not line.strip():
                continue
            match = _LINE.fullmatch(line.decode("latin-1"))
            if match is None:
                raise SourceError(
                    f"{mark_path(path)} is not an image that can be read: its header has a line that is no field; "
                    "check its format, or get the file again"
                )
            field = _SAME.get(match[1], match[1])
            if field in _READ:
                once(path, tuple(fields), field)
                fields[field] = match[2]
        return fields, stream.tell()


def _clean(path: Path, fields: dict[str, str]) -> bytes:
    for field in fields:
        value = fields[field]
        if field != "ElementDataFile" and not (value.isascii() and value.isprintable() and len(value) <= LONGEST_VALUE):
            raise damaged(path, field)
    dimension = counts(fields["NDims"])
    if dimension is None or len(dimension) != 1 or not 1 <= dimension[0] <= 10:
        raise damaged(path, "NDims")
    axes = dimension[0]
    sizes = counts(fields["DimSize"])
    if sizes is None or len(sizes) != axes or min(sizes) < 1:
        raise damaged(path, "DimSize")
    channels = counts(fields.get("ElementNumberOfChannels", "1"))
    if channels is None or len(channels) != 1 or not 1 <= channels[0] <= 10_000:
        raise damaged(path, "ElementNumberOfChannels")
    lines = ["ObjectType = Image", f"NDims = {axes}", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    for field, wanted in (
        ("TransformMatrix", axes * axes),
        ("Offset", axes),
        ("ElementSpacing", axes),
        ("ElementSize", axes),
    ):
        if field not in fields:
            continue
        values = numbers(fields[field])
        if values is None or len(values) != wanted:
            raise unusable(path, f"its {field} has not {wanted} finite numbers")
        if field.startswith("Element") and min(values) <= 0:
            raise unusable(path, f"its {field} is not above 0")
        lines.append(f"{field} = {fields[field]}")
    lines += [
        f"DimSize = {' '.join(map(str, sizes))}",
        f"ElementNumberOfChannels = {channels[0]}",
        f"ElementType = {fields['ElementType'] if fields['ElementType'] in _TYPES else 'MET_SHORT'}",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _switch(path: Path, fields: dict[str, str], field: str, *, default: bool) -> bool:
    if field not in fields:
        return default
    value = _SWITCH.get(fields[field].lower())
    if value is None:
        raise damaged(path, field)
    return value


def _data_file(path: Path, value: str, offset: int) -> tuple[Path, int]:
    if value.upper() in ("LOCAL", "LOCALDATA"):
        return path, offset
    name = data_name(value)
    if (value.upper().startswith("LIST") or "%" in value) and not is_beside(path, name):
        raise SourceError(
            f"{mark_path(path)} has its voxels in several files, which is not read: save it again as .mha"
        )
    return beside(path, name), 0
