"""Frames of a DICOM segmentation, encoded one at a time from a label image that is read slab by slab.

Source: DICOM PS3.5, 8.1.1 (pixels of one bit), A.4 (encapsulated pixels) and annex G (run-length encoding).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from highdicom.frame import encode_frame
from pydicom.dataset import Dataset

from lungmix.errors import UsageError
from lungmix.formats.dicom.elements import ITEM, UNDEFINED
from lungmix.store import Case

N_LABELS = 256
"""Number of values of a voxel of a label image."""

_PIXEL_DATA = b"\xe0\x7f\x10\x00OB\x00\x00"
_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_MAX_BYTES = 0xFFFFFFFE


@dataclass(frozen=True)
class Frame:
    """A frame of a segmentation.

    Attributes
    ----------
    plane : int
        Index of the slice of the volume.
    segment : int or None
        Label of the only segment in a bit-plane; None in a label map.
    """

    plane: int
    segment: int | None


class LabelPlanes:
    """Planes of a label image, of which one slab is in memory at a time.

    Parameters
    ----------
    case : Case
        Case of a cohort.
    image : str
        A label image of the case.
    """

    def __init__(self, case: Case, image: str) -> None:
        self._array = case.zarr_array(image)
        self._slabs = list(case.layout_of(image).slabs())
        self._starts = [start for start, _ in self._slabs]
        self._loaded: tuple[int, npt.NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        """Return the labels of a plane, of shape ``[y, x]``."""
        number = bisect_right(self._starts, index) - 1
        if self._loaded is None or self._loaded[0] != number:
            start, stop = self._slabs[number]
            self._loaded = None  # so that two slabs are never in memory
            self._loaded = number, np.asarray(self._array[start:stop])
        return self._loaded[1][index - self._starts[number]]

    def present_labels(self) -> npt.NDArray[np.bool_]:
        """Return which labels each plane has, of shape ``[z, N_LABELS]``."""
        present = np.zeros((len(self), N_LABELS), np.bool_)
        for index in range(len(self)):
            present[index] = np.bincount(self[index].ravel(), minlength=N_LABELS) > 0
        return present


def frames_of(dataset: Dataset, slices: Sequence[Dataset]) -> list[Frame]:
    """Return the frames that a segmentation has, in their order.

    Parameters
    ----------
    dataset : Dataset
        The segmentation, with its functional groups.
    slices : sequence of Dataset
        Headers of the slices of the CT, in the order of z.
    """
    planes = {str(header.SOPInstanceUID): index for index, header in enumerate(slices)}
    frames = []
    for item in dataset.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        segment = None
        if "SegmentIdentificationSequence" in item:
            segment = int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        frames.append(Frame(planes[str(source.ReferencedSOPInstanceUID)], segment))
    return frames


def write_pixels(out: BinaryIO, dataset: Dataset, planes: LabelPlanes, frames: Sequence[Frame]) -> None:
    """Write the pixels of a segmentation at the end of a file that holds its other elements.

    Parameters
    ----------
    out : BinaryIO
        The file, at its end.
    dataset : Dataset
        The segmentation, whose transfer syntax decides how frames are encoded.
    planes : LabelPlanes
        The labels.
    frames : sequence of Frame
        Frames in the order in which they are written.

    Raises
    ------
    UsageError
        If the pixels are larger than a DICOM file can hold.
    """
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        _write_encapsulated(out, dataset, planes, frames)
        return
    size = (len(frames) * dataset.Rows * dataset.Columns * dataset.BitsAllocated + 7) // 8
    padded = size + size % 2
    if padded > _MAX_BYTES:
        raise _too_large(size)
    out.write(_PIXEL_DATA + struct.pack("<I", padded))
    for piece in _bits(planes, frames) if dataset.BitsAllocated == 1 else _bytes(planes, frames):
        out.write(piece)
    out.write(bytes(padded - size))


def _bytes(planes: LabelPlanes, frames: Sequence[Frame]) -> Iterator[bytes]:
    return (planes[frame.plane].tobytes() for frame in frames)


def _bits(planes: LabelPlanes, frames: Sequence[Frame]) -> Iterator[bytes]:
    """Yield bit-planes, the first pixel in the lowest bit; frames follow each other without a gap."""
    rest: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
    for frame in frames:
        bits = np.concatenate([rest, planes[frame.plane].ravel() == frame.segment])
        whole_bytes = len(bits) // 8 * 8
        yield np.packbits(bits[:whole_bytes], bitorder="little").tobytes()
        rest = bits[whole_bytes:]
    yield np.packbits(rest, bitorder="little").tobytes()


def _write_encapsulated(out: BinaryIO, dataset: Dataset, planes: LabelPlanes, frames: Sequence[Frame]) -> None:
    out.write(_PIXEL_DATA + struct.pack("<I", UNDEFINED))
    out.write(ITEM + struct.pack("<I", 4 * len(frames)))
    table_position = out.tell()
    out.write(bytes(4 * len(frames)))
    first_item = out.tell()
    offsets = []
    for frame in frames:
        offsets.append(out.tell() - first_item)
        if offsets[-1] > _MAX_BYTES:
            raise _too_large(offsets[-1])
        content = _encoded(planes[frame.plane], dataset)
        content += bytes(len(content) % 2)
        out.write(ITEM + struct.pack("<I", len(content)) + content)
    out.write(_END)
    end = out.tell()
    out.seek(table_position)
    out.write(struct.pack(f"<{len(offsets)}I", *offsets))
    out.seek(end)


def _encoded(plane: npt.NDArray[np.uint8], dataset: Dataset) -> bytes:
    encoded: Any = encode_frame(
        plane,
        transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
        bits_allocated=dataset.BitsAllocated,
        bits_stored=dataset.BitsStored,
        photometric_interpretation=dataset.PhotometricInterpretation,
        pixel_representation=dataset.PixelRepresentation,
    )
    return bytes(encoded)


def _too_large(size: int) -> UsageError:
    return UsageError(
        f"a DICOM file cannot hold pixels of {size / 1e9:.1f} GB: export labels with fewer voxels, or another format"
    )
