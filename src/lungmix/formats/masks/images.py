"""Label maps in image files: NRRD, NIfTI and MetaImage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.header import Header
from lungmix.formats.images import KINDS, extension_of, geometry_of, header_of
from lungmix.formats.masks.mask_file import Labels, MaskFile, Segment, rechunk
from lungmix.formats.masks.words import LOBES, normalize_name, region_of_name
from lungmix.formats.scan import fingerprint_of
from lungmix.formats.voxel_streams import VoxelData, check_size, stored_slabs
from lungmix.geometry import Geometry

_SLAB_BYTES = 4 << 20
_MAX_TABLE = 1 << 16


def open_image(path: Path) -> MaskFile:
    """Return the label map of an image file; only its header is read.

    Raises
    ------
    SourceError
        If it is not a 3-D image with one value per voxel.
    """
    header = _header_of(path)
    geometry = geometry_of(path, header)
    check_size(header.data, geometry.shape)
    return MaskFile(
        path=str(path),
        kind="image",
        geometry=geometry,
        segments=_segments(path),
        series_uid=None,
        frame_uid=None,
        made_by=None,
        fingerprint=fingerprint_of(tuple(dict.fromkeys((str(path), header.data.file)))),
        reader=label_slabs_of,
    )


def label_slabs_of(mask: MaskFile, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
    """Yield the labels of an image file slab by slab; see `MaskFile.label_slabs`."""
    path = Path(mask.path)
    data = _header_of(path).data
    slices = 0

    def labels() -> Iterator[Labels]:
        nonlocal slices
        for slab in stored_slabs(data, geometry.shape, _SLAB_BYTES, to_end=True):
            yield relabel(integers_of(slab, data, slices), values)
            slices += len(slab)

    yield from rechunk(labels(), thickness)


def integers_of(stored: npt.NDArray[Any], data: VoxelData, first_slice: int = 0) -> npt.NDArray[Any]:
    """Return stored values, scaled where the header says so, as integers.

    Raises
    ------
    SourceError
        If a value is no integer.
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
    """Return the label to write for each voxel, 0 for those that have none."""
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


def _segments(path: Path) -> tuple[Segment, ...]:
    """Return the segment that the name of a file stands for, as TotalSegmentator names them: a lobe, by the value 1."""
    name = path.name[: -len(extension_of(path) or "")]
    region = region_of_name(name)
    if region in LOBES and normalize_name(name).startswith("lung "):
        return (Segment(1, name, None, region),)
    return ()
