"""Reader of headers of NRRD files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungmix.errors import SourceError, mark_path
from lungmix.formats.header import (
    MAX_HEADER_BYTES,
    MAX_VALUE_LENGTH,
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
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: code for code, names in _TYPES.items() for name in names}
_CODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_SYNONYMS = {
    "axismins": "axis mins", "axismaxs": "axis maxs", "datafile": "data file", "lineskip": "line skip",
    "byteskip": "byte skip", "centerings": "centers", "oldmin": "old min", "oldmax": "old max",
    "blocksize": "block size", "sampleunits": "sample units",
}  # fmt: skip
# Fields that concern neither the geometry nor the storage of voxels.
_IGNORED_FIELDS = {
    "thicknesses", "labels", "measurement frame", "content", "min", "max", "old min", "old max",
    "number", "block size", "sample units",
}  # fmt: skip
# Fields of the geometry, in the order that readers expect.
_GEOMETRY_FIELDS = (
    "type", "dimension", "space", "space dimension", "sizes", "spacings", "axis mins", "axis maxs", "centers", "kinds",
    "space directions", "space origin",
)  # fmt: skip
_FIELDS = {*_GEOMETRY_FIELDS, "endian", "encoding", "data file", "line skip", "byte skip", "units", "space units"}
_PATIENT_SPACES = {
    "right-anterior-superior": "ras", "left-anterior-superior": "las", "left-posterior-superior": "lps",
}  # fmt: skip
# Keys that 3D Slicer writes for each segment of a segmentation; no field of NRRD has such a name.
_SEGMENT = re.compile(rb"Segment\d+_(?:ID|LabelValue|Name):=")
_KEY = re.compile(r"((?:Segment\d{1,6}|lungmix)_[A-Za-z_]{1,40}):=(.*)")
_SEGMENTS_FIELD = "segments:="
_WORDS = re.compile(r"[A-Za-z0-9?*()-]{1,40}(?: +[A-Za-z0-9?*()-]{1,40}){0,15}")
_WORD_OR_VECTOR = re.compile(r"\([^()]*\)|[^()\s]+")
_SPACING_TOLERANCE = 0.01
_MILLIMETRES = {"", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "???", "none"}
"""Units of length that count as millimetres; other readers, too, take an empty or unknown unit as millimetres."""
_UNIT = re.compile(r'"[^"]*"|[^\s"]+')
_VECTOR = re.compile(r"\(([^()]*)\)")


def read_nrrd(path: Path, file_at: FileAt | None = None) -> Header:
    """Return the checked header of a ``.nrrd`` or ``.nhdr`` file; for `file_at` see `data_file_path`.

    Raises
    ------
    SourceError
        If it is corrupt, names a file outside its folder or uses an unsupported feature.
    """
    magic, fields, keys, offset = _read_fields(path)
    for field in ("type", "dimension", "sizes", "encoding"):
        if field not in fields:
            raise corrupt_header_error(path, f"missing {field!r}")
    geometry = _geometry(path, fields)
    coding = _CODINGS.get(fields["encoding"].lower())
    if coding is None:
        raise SourceError(
            f"{mark_path(path)} has voxels in an encoding that is not supported: save it again as raw or gzip"
        )
    if any(fields.get(field, "0") != "0" for field in ("line skip", "byte skip")):
        raise SourceError(
            f"{mark_path(path)} skips lines or bytes before its voxels, which is not supported: save it again as .nrrd"
        )
    file = path
    if "data file" in fields:
        value = fields["data file"]
        # A list, or a pattern of numbered names, stands for several files.
        file = one_data_file(path, value, ".nrrd", file_at, is_split=_is_list(value) or "%" in value)
        offset = 0
    lines = [
        magic,
        *(f"{field}: {geometry[field]}" for field in _GEOMETRY_FIELDS if field in geometry),
        "endian: little",
        "encoding: raw",
    ]
    clean = ("\n".join(lines) + "\n\n").encode("ascii")
    data = VoxelData(str(file), offset, coding, _dtype(path, fields))
    # Directions give the orientation in the patient only if the space is that of the patient, not of a scanner.
    is_patient_space = _normalize_space(fields.get("space", "")) in _PATIENT_SPACES.values()
    orientation_known = "space directions" in fields and is_patient_space
    return Header(
        clean, ".nrrd", data, orientation_known=orientation_known, is_segmentation=_SEGMENTS_FIELD in fields,
        keys=keys, layers=_layers(fields),
    )  # fmt: skip


def _normalize_space(name: str) -> str:
    """Return a patient space as its three letters, such as ``lps``, without a time axis; other names in lower case."""
    name = name.lower().removesuffix("-time")
    name = _PATIENT_SPACES.get(name, name)
    return name[:3] if name in {f"{letters}t" for letters in _PATIENT_SPACES.values()} else name


def _layers(fields: dict[str, str]) -> int:
    """Return the number of layers of a segmentation, the size of a first axis of kind ``list``; 1 for other images."""
    kinds, sizes = fields.get("kinds", "").split(), fields["sizes"].split()
    return int(sizes[0]) if _SEGMENTS_FIELD in fields and len(sizes) == 4 and kinds[:1] == ["list"] else 1


def _read_fields(path: Path) -> tuple[str, dict[str, str], dict[str, str], int]:
    """Return the magic number, the fields, keys of segments with their values, and the offset of the voxels."""
    with path.open("rb") as stream:
        magic = stream.readline(16).rstrip(b"\r\n")
        if not re.fullmatch(rb"NRRD000[1-5]", magic):
            raise SourceError(
                f"{mark_path(path)} is not an image that can be read: it is no NRRD file; check its format"
            )
        fields: dict[str, str] = {}
        keys: dict[str, str] = {}
        while line := stream.readline(MAX_HEADER_BYTES):
            if stream.tell() > MAX_HEADER_BYTES:
                remedy = "export fewer segments" if _SEGMENTS_FIELD in fields else "get the file again"
                raise SourceError(f"{mark_path(path)} has a header of more than 1 MiB, which is not read: {remedy}")
            line = line.rstrip(b"\r\n")
            if not line:
                break
            if line.startswith(b"#"):
                continue
            if b":=" in line:
                if _SEGMENT.match(line):
                    fields[_SEGMENTS_FIELD] = "yes"
                if match := _KEY.fullmatch(line.decode("utf-8", "replace")):
                    keys[match[1]] = match[2]
                continue
            word, colon, value = line.decode("latin-1").partition(": ")
            field = _SYNONYMS.get(word.lower(), word.lower())
            if not colon or field not in _FIELDS | _IGNORED_FIELDS:
                raise SourceError(
                    f"{mark_path(path)} has a corrupt header (a line that is no field of NRRD): get the file again"
                )
            check_not_repeated(path, tuple(fields), field)
            fields[field] = value.strip(" \t")
            if field == "data file" and _is_list(fields[field]):
                break  # the remaining lines are file names
        return magic.decode(), fields, keys, stream.tell()


def _geometry(path: Path, fields: dict[str, str]) -> dict[str, str]:
    """Return the checked fields of the geometry, without singleton axes beyond three."""
    for field in (_FIELDS - {"data file"}) & fields.keys():
        if len(fields[field]) > MAX_VALUE_LENGTH or not fields[field].isascii() or not fields[field].isprintable():
            raise corrupt_header_error(path, repr(field))
    for field in ("units", "space units"):
        if not {unit.strip('"').lower() for unit in _UNIT.findall(fields.get(field, ""))} <= _MILLIMETRES:
            raise geometry_error(path, f"its {field!r} are not mm")
    dimension = parse_counts(fields["dimension"])
    if dimension is None or len(dimension) != 1 or not 1 <= dimension[0] <= 16:
        raise corrupt_header_error(path, "'dimension'")
    axes = dimension[0]
    sizes = parse_counts(fields["sizes"])
    if sizes is None or len(sizes) != axes or min(sizes) < 1:
        raise corrupt_header_error(path, "'sizes'")
    checked = {"type": fields["type"].lower(), "dimension": str(axes), "sizes": " ".join(map(str, sizes))}
    for field in ("space", "space dimension"):
        if field in fields:
            if not _WORDS.fullmatch(fields[field]):
                raise corrupt_header_error(path, repr(field))
            checked[field] = fields[field]
    for field in ("spacings", "axis mins", "axis maxs"):
        if field in fields:
            values = parse_numbers(re.sub(r"\b[nN]a[nN]\b", "0", fields[field]) if axes != 3 else fields[field])
            if values is None or len(values) != axes:
                raise geometry_error(path, f"its {field!r} are not finite numbers")
            checked[field] = fields[field]
    for field in ("centers", "kinds"):
        if field in fields:
            if not _WORDS.fullmatch(fields[field]) or len(fields[field].split()) != axes:
                raise corrupt_header_error(path, repr(field))
            checked[field] = fields[field]
    for field in ("space directions", "space origin"):
        if field in fields:
            _check_vectors(path, field, fields[field], axes if field == "space directions" else 1)
            checked[field] = fields[field]
    checked = _drop_axes(checked, [0]) if _layers(fields) > 1 else _drop_singleton_axes(checked)
    if checked["dimension"] == "3" and "spacings" in checked:
        spacings = parse_numbers(checked["spacings"])
        if spacings is None or min(spacings) <= 0:
            raise geometry_error(path, "its 'spacings' are not positive")
        checked = _spacings_to_directions(path, checked)
    return checked


def _drop_singleton_axes(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields with axes of one voxel removed until three axes remain.

    Axes without a direction are removed first, then axes after the third, the last axis first.
    """
    sizes = fields["sizes"].split()
    vectors = _WORD_OR_VECTOR.findall(fields.get("space directions", ""))
    singletons = [axis for axis, size in enumerate(sizes) if size == "1"]
    undirected = [axis for axis in singletons if vectors and vectors[axis] == "none"]
    droppable = [*undirected, *(axis for axis in reversed(singletons) if axis >= 3 and axis not in undirected)]
    return _drop_axes(fields, droppable[: max(len(sizes) - 3, 0)])


def _drop_axes(fields: dict[str, str], dropped: Sequence[int]) -> dict[str, str]:
    """Return the fields without the axes of the given indices."""
    if not dropped:
        return fields
    kept = [axis for axis in range(len(fields["sizes"].split())) if axis not in dropped]
    vectors = _WORD_OR_VECTOR.findall(fields.get("space directions", ""))
    fields = {**fields, "dimension": str(len(kept))}
    for field in ("sizes", "spacings", "axis mins", "axis maxs", "centers", "kinds"):
        if field in fields:
            words = fields[field].split()
            fields[field] = " ".join(words[axis] for axis in kept)
    if vectors:
        fields["space directions"] = " ".join(vectors[axis] for axis in kept)
    return _drop_space_dimensions(fields) if len(kept) == 3 else fields


def _drop_space_dimensions(fields: dict[str, str]) -> dict[str, str]:
    """Return the fields with vectors of three numbers; unchanged if a direction is not zero in a fourth axis (time)."""
    directions, origins = (
        [vector.replace(",", " ").split() for vector in _VECTOR.findall(fields.get(field, ""))]
        for field in ("space directions", "space origin")
    )
    if any(float(part) != 0 for vector in directions for part in vector[3:]):
        return fields
    if not any(len(vector) > 3 for vector in (*directions, *origins)):
        return fields
    fields = {**fields}
    if "space" in fields:
        fields["space"] = _normalize_space(fields["space"])
    if "space dimension" in fields:
        fields["space dimension"] = "3"
    for field, vectors in (("space directions", directions), ("space origin", origins)):
        if vectors:
            fields[field] = " ".join(f"({','.join(vector[:3])})" for vector in vectors)
    return fields


def _spacings_to_directions(path: Path, fields: dict[str, str]) -> dict[str, str]:
    """Return the fields with directions in place of spacings if a space is given.

    SimpleITK rejects headers with both spacings and a space.

    Raises
    ------
    SourceError
        If spacings and directions are inconsistent.
    """
    spacings = parse_numbers(fields.get("spacings", ""))
    if not spacings or len(spacings) != 3 or not fields.keys() & {"space", "space dimension"}:
        return fields
    fields = {field: value for field, value in fields.items() if field != "spacings"}
    if "space directions" not in fields:
        fields = {field: value for field, value in fields.items() if field != "space"} | {"space dimension": "3"}
        x, y, z = map(repr, spacings)
        return {**fields, "space directions": f"({x},0,0) (0,{y},0) (0,0,{z})"}
    vectors = [vector.replace(",", " ") for vector in _VECTOR.findall(fields["space directions"])]
    lengths = [math.hypot(*map(float, vector.split())) for vector in vectors]
    if len(lengths) != 3 or not np.allclose(spacings, lengths, rtol=_SPACING_TOLERANCE, atol=0):
        raise geometry_error(path, "its 'spacings' and its 'space directions' are inconsistent")
    return fields


def _check_vectors(path: Path, field: str, text: str, count: int) -> None:
    vectors = _VECTOR.findall(text)
    others = _VECTOR.sub(" ", text).split()
    if len(vectors) + len(others) != count or any(word != "none" for word in others) or (others and count <= 3):
        raise geometry_error(path, f"its {field!r} are not vectors")
    for vector in vectors:
        values = parse_numbers(vector.replace(",", " "))
        if values is None or len(values) != vector.count(",") + 1 or len(values) > 8:
            raise geometry_error(path, f"its {field!r} are not vectors")


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype[np.generic]:
    code = _DTYPES.get(fields["type"].lower())
    if code is None:
        raise type_error(path)
    endian = fields.get("endian", "little" if code[1] == "1" else "").lower()
    if endian not in ("little", "big"):
        raise corrupt_header_error(path, "missing 'endian'" if not endian else "'endian'")
    return np.dtype(code).newbyteorder("<" if endian == "little" else ">")


def _is_list(name: str) -> bool:
    return name.upper().split(maxsplit=1)[:1] == ["LIST"]
