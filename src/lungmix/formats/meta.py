"""Headers of MetaImage files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lungmix.errors import SourceError, named
from lungmix.formats.header import (
    LONGEST_HEADER,
    LONGEST_VALUE,
    Header,
    beside,
    counts,
    damaged,
    numbers,
    once,
    unusable,
)
from lungmix.formats.streams import VoxelData

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
    "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "ElementDataFile",
}  # fmt: skip
_LINE = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.-]{0,100})\s*=\s*(.*?)\s*", re.ASCII)
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
                f"{named(path)} lacks {field}, or has a damaged header before it: export it again, or check its format"
            )
    if fields["ObjectType"] != "Image":
        raise SourceError(f"{named(path)} describes no image but another object: give one CT volume")
    clean = _clean(path, fields)
    code = _TYPES.get(fields["ElementType"])
    if code is None:
        raise SourceError(f"{named(path)} stores no numbers that are read: export the CT as 16-bit integers")
    if fields.get("HeaderSize", "0") not in ("0", ""):
        raise SourceError(f"{named(path)} skips a header before its voxels, which is not read: save it again as .mha")
    if not _switch(path, fields, "BinaryData", default=True):
        raise SourceError(f"{named(path)} has its voxels as text, which is not read: save it again as binary")
    for field, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if field in fields and numbers(fields[field]) != [plain]:
            raise SourceError(f"{named(path)} rescales its voxels ({field}), which is not read: export it in HU")
    big = _switch(path, fields, "BinaryDataByteOrderMSB", default=False)
    compressed = _switch(path, fields, "CompressedData", default=False)
    file, offset = _data_file(path, fields["ElementDataFile"], offset)
    if compressed:
        # Without it SimpleITK takes whatever the memory holds for voxels.
        promised = numbers(fields.get("CompressedDataSize", ""))
        if promised != [float(file.stat().st_size - offset)]:
            raise SourceError(
                f"{named(file)} is cut short or damaged: it does not have the size that its header promises "
                "(CompressedDataSize); get the file again"
            )
    dtype = np.dtype(code).newbyteorder(">" if big else "<")
    return Header(clean, ".mha", VoxelData(str(file), offset, "zlib" if compressed else "raw", dtype))


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields, and where the voxels of a file with both begin."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields:
            line = stream.readline(LONGEST_HEADER)
            if not line:
                break
            if stream.tell() > LONGEST_HEADER:
                raise SourceError(f"{named(path)} has a header without an end: get the file again")
            if not line.strip():
                continue
            match = _LINE.fullmatch(line.decode("latin-1"))
            if match is None:
                raise SourceError(
                    f"{named(path)} is not an image that can be read: its header has a line that is no field; "
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


def _data_file(path: Path, name: str, offset: int) -> tuple[Path, int]:
    if name.upper() in ("LOCAL", "LOCALDATA"):
        return path, offset
    if name.upper().startswith("LIST") or "%" in name:
        raise SourceError(f"{named(path)} has its voxels in several files, which is not read: save it again as .mha")
    return beside(path, name), 0
