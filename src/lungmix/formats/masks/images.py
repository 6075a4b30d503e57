"""Label maps in image files: NRRD, NIfTI and MetaImage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.header import POSTERIOR, PREFIX, Header
from lungmix.formats.images import KINDS, extension_of, geometry_of, header_of
from lungmix.formats.limits import MAX_SLICE_PIXELS
from lungmix.formats.masks.mask_file import Labels, MaskFile, Segment, parameters_in, rechunk, write_over
from lungmix.formats.masks.named_labels import labels_in_extension, slicer_segments
from lungmix.formats.masks.words import LOBES, normalize_name, region_of_name
from lungmix.formats.scan import fingerprint_of
from lungmix.formats.voxel_streams import VoxelData, check_size, stored_slabs
from lungmix.geometry import Geometry
from lungmix.tissue import segments_of

_SLAB_BYTES = 4 << 20


def open_image(path: Path) -> MaskFile:
    """Return the label map of an image file; only its header is read.

    Raises
    ------
    SourceError
        If it is not a 3-D image with one value per voxel.
    """
    header = _header_of(path)
    if f"{PREFIX}{POSTERIOR}" in header.keys:
        raise SourceError(f"{mark_path(path)} holds posteriors of a tissue by its header, not labels: give a label map")
    geometry = geometry_of(path, header)
    nz, ny, nx = geometry.shape
    if nx * ny * header.layers > MAX_SLICE_PIXELS:
        raise SourceError(f"{mark_path(path)} has {header.layers} layers, which are too many: save fewer segments")
    check_size(header.data, (nz, ny, nx * header.layers))
    segments = tuple(part.segment for part in slicer_segments(path, header.keys, header.layers))
    return MaskFile(
        path=str(path),
        kind="image",
        geometry=geometry,
        segments=segments or _segments(path, header),
        series_uid=None,
        frame_uid=None,
        made_by="lungmix" if any(key.startswith(PREFIX) for key in header.keys) else None,
        parameters=parameters_in(header.keys),
        fingerprint=fingerprint_of(tuple(dict.fromkeys((str(path), header.data.file)))),
        data_file=None if str(header.data.file) == str(path) else str(header.data.file),
        reader=label_slabs_of,
        may_overlap=header.layers > 1,
    )


def label_slabs_of(mask: MaskFile, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
    """Yield the labels of an image file slab by slab; see `MaskFile.label_slabs`."""
    path = Path(mask.path)
    header = _header_of(path)
    data, layers = header.data, header.layers
    segments = {part.segment.number: part for part in slicer_segments(path, header.keys, layers)}
    # Layers, each with the label to write by voxel value; a number that is no segment is a voxel value itself.
    by_layer = [
        (segments[number].layer, {segments[number].value: label}) if number in segments else (0, {number: label})
        for number, label in values.items()
        if layers == 1 or number in segments
    ]
    if layers == 1:
        by_layer = [(0, {value: label for _, pairs in by_layer for value, label in pairs.items()})]

    def labels() -> Iterator[Labels]:
        nz, ny, nx = geometry.shape
        start = 0
        for slab in stored_slabs(data, (nz, ny, nx * layers), _SLAB_BYTES, to_end=True):
            integers = integers_of(slab, data, start).reshape(len(slab), ny, nx, layers)
            start += len(slab)
            relabelled = np.zeros(integers.shape[:3], np.uint8)
            for layer, pairs in by_layer:
                write_over(relabelled, relabel(integers[..., layer], pairs), mask.overlap)
            yield relabelled

    yield from rechunk(labels(), thickness)


def integers_of(stored: npt.NDArray[Any], data: VoxelData, first_slice: int = 0) -> npt.NDArray[Any]:
    """Return stored values as integers, after the scaling that the header declares.

    Raises
    ------
    SourceError
        If a scaled value is no integer.
    """
    is_identity = (data.slope, data.intercept) == (1.0, 0.0)
    if is_identity and stored.dtype.kind in "iu":
        return stored
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = stored if is_identity else stored.astype(np.float64) * data.slope + data.intercept
        rounded = np.rint(scaled)
        is_label = (scaled == rounded) & (np.abs(scaled) < 1 << 31)
    if not is_label.all():
        z, y, x = (int(i) for i in np.argwhere(~is_label)[0])
        raise SourceError(
            f"{mark_path(data.file)} holds {scaled[z, y, x]:g} at slice {z + first_slice}, row {y}, column {x}: labels "
            "are integers; export it as a label map"
        )
    return rounded.astype(np.int32)


def relabel(integers: npt.NDArray[Any], values: Mapping[int, int]) -> Labels:
    """Return the label to write for the value of each voxel, 0 for values without a label."""
    if integers.dtype.kind == "u" and integers.dtype.itemsize <= 2:
        table = np.zeros(1 << 8 * integers.dtype.itemsize, np.uint8)
        for value, label in values.items():
            if 0 <= value < len(table):
                table[value] = label
        return table[integers]
    labels = np.zeros(integers.shape, np.uint8)
    limits = np.iinfo(integers.dtype)
    for value, label in values.items():
        if limits.min <= value <= limits.max:
            labels[integers == value] = label
    return labels


def _header_of(path: Path) -> Header:
    extension = extension_of(path)
    assert extension is not None
    return header_of(path, KINDS[extension])


def _segments(path: Path, header: Header) -> tuple[Segment, ...]:
    """Return the segments of an image that 3D Slicer did not write; empty if nothing names its labels.

    The names are those of an export of this package, those that a NIfTI header lists, or the lobe that the file name
    states: TotalSegmentator writes one file with a list of its labels, or one file per structure, whose voxels are 1.
    """
    if exported := segments_of(header.keys.get(f"{PREFIX}image", "")):
        return tuple(Segment(part.label, part.name, None, region_of_name(part.name)) for part in exported)
    extension = extension_of(path) or ""
    if KINDS[extension] == "nifti" and (segments := tuple(labels_in_extension(path, header.data))):
        return segments
    name = path.name[: -len(extension)]
    region = region_of_name(name)
    if region in LOBES and normalize_name(name).startswith("lung "):
        return (Segment(1, name, None, region),)
    return ()
