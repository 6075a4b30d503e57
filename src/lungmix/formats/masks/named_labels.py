"""Names of labels in headers of image files: segmentations of 3D Slicer and label maps of TotalSegmentator.

Source: "Segmentations" in the developer guide of 3D Slicer. A label map of TotalSegmentator lists its labels in an
extension of the NIfTI header.
"""

from __future__ import annotations

import gzip
import html
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lungmix.errors import SourceError, mark_path
from lungmix.formats.masks.mask_file import Segment
from lungmix.formats.masks.words import Coded, region_of, region_of_code, region_of_name
from lungmix.formats.voxel_streams import VoxelData

_SEGMENT = re.compile(r"Segment(\d{1,6})_(Name|LabelValue|Layer|Tags|TerminologyEntry)")
_ENTRY = re.compile(r"(?:^|\|)TerminologyEntry:([^|]*)")
_LABEL = re.compile(
    r'<Label\s{1,9}Key="(\d{1,9})"[^<>]{0,300}>\s{0,9}(?:<!\[CDATA\[([^\[\]]{0,200})\]\]>|([^<>]{0,200}))\s{0,9}</Label>'
)
_DIGITS = re.compile(r"[0-9]{1,10}")
_MAX_EXTENSION_BYTES = 1 << 20
_MAX_NUMBER = 1 << 31


@dataclass(frozen=True)
class LayerSegment:
    """Segment of a segmentation of 3D Slicer.

    Attributes
    ----------
    segment : Segment
        The segment. Its number is its label value if all segments of the file have different label values, else its
        position in the file, from 1.
    value : int
        Voxel value in its layer.
    layer : int
        Layer that holds its voxels; segments of other layers may overlap it.
    """

    segment: Segment
    value: int
    layer: int


def slicer_segments(path: Path, keys: Mapping[str, str], layers: int) -> tuple[LayerSegment, ...]:
    """Return the segments of a ``.seg.nrrd`` file, in the order of the numbers in their keys; none for other images.

    Parameters
    ----------
    path : Path
        File, for messages.
    keys : mapping of str to str
        Keys of the header, see `lungmix.formats.header.Header`.
    layers : int
        Number of layers.

    Raises
    ------
    SourceError
        If a segment has an invalid value or layer.
    """
    parts: dict[int, dict[str, str]] = {}
    for key, value in keys.items():
        if match := _SEGMENT.fullmatch(key):
            parts.setdefault(int(match[1]), {})[match[2]] = value.strip()
    places = []
    for position, index in enumerate(sorted(parts)):
        # Files of Slicer before 4.11 have a layer for each segment, and no fields of value and layer.
        value = parts[index].get("LabelValue", "1")
        layer = parts[index].get("Layer", str(position if layers > 1 else 0))
        if not (_DIGITS.fullmatch(value) and _DIGITS.fullmatch(layer)):
            raise _invalid_error(path)
        places.append((int(value), int(layer)))
    if any(layer >= layers or not 0 < value < _MAX_NUMBER for value, layer in places):
        raise _invalid_error(path)
    if len(set(places)) < len(places):
        raise SourceError(f"{mark_path(path)} has two segments of one label value in one layer: save it again")
    counts = Counter(value for value, _ in places)
    is_unique = all(count == 1 for count in counts.values())
    return tuple(
        LayerSegment(_slicer_segment(value if is_unique else position, parts[index]), value, layer)
        for position, (index, (value, layer)) in enumerate(zip(sorted(parts), places, strict=True), start=1)
    )


def _invalid_error(path: Path) -> SourceError:
    return SourceError(f"{mark_path(path)} has a segment with an invalid label value or layer: save it again")


def _slicer_segment(number: int, parts: Mapping[str, str]) -> Segment:
    name = parts.get("Name", "")
    match = _ENTRY.search(parts.get("Tags", ""))
    entry = parts.get("TerminologyEntry") or (match[1] if match else "")
    # Fields: context, category, type, modifier of the type, context of the region, region, modifier of the region.
    fields = (entry.split("~") + [""] * 7)[:7]
    code, side, place, place_side = (_term(fields[position]) for position in (2, 3, 5, 6))
    region = region_of(name, code, [modifier for modifier in (side, place_side) if modifier])
    # "Tissue" is Slicer's type of a segment that nobody has classified.
    if region is None and (code is None or code[1] in ("85756007", "123037004")):
        region = region_of_name(name) or region_of_code(place, [place_side] if place_side else ())
    return Segment(number, name, code, region)


def _term(text: str) -> Coded | None:
    scheme, value, *_ = [*text.split("^"), "", ""]
    return (scheme, value) if scheme and value else None


def labels_in_extension(path: Path, data: VoxelData) -> Iterator[Segment]:
    """Yield the labels that an extension of a NIfTI header names.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    data : VoxelData
        Its voxels, which begin after the extensions.
    """
    size = min(data.offset, _MAX_EXTENSION_BYTES)
    try:
        with gzip.open(path) if data.coding == "gzip-file" else path.open("rb") as stream:
            text = stream.read(size).decode("utf-8", "replace")
    except (EOFError, OSError, zlib.error):  # reported where the voxels are read
        return
    numbers = set()
    for match in _LABEL.finditer(text):
        number, name = int(match[1]), html.unescape(match[2] or match[3] or "").strip()
        if 0 < number < _MAX_NUMBER and number not in numbers:
            numbers.add(number)
            yield Segment(number, name, None, region_of_name(name))
