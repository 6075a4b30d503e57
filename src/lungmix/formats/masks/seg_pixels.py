"""Pixels of a multi-frame segmentation, read frame by frame from their offsets."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, RLELossless

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.elements import ITEM, UNDEFINED, RawHeader
from lungmix.formats.dicom.jpeg_size import read_jpeg_size

_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
_DELIMITER = b"\xfe\xff\xdd\xe0"
_MAX_FRAGMENTS = 1 << 20

Frame = npt.NDArray[Any]
Fragments = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FramePixels:
    """Location and coding of the frames of a file.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        Rows and columns of a frame.
    bits : int
        Bits of a pixel: 1, 8 or 16.
    frames : int
        Number of frames.
    syntax : str
        Transfer syntax.
    offset : int
        Offset of the pixels in the file, in bytes.
    fragments : tuple of tuple
        For each frame, offset and length in bytes of its fragments; empty for uncompressed pixels.
    """

    path: Path
    shape: tuple[int, int]
    bits: int
    frames: int
    syntax: str
    offset: int
    fragments: tuple[Fragments, ...]

    def read(self, stream: BinaryIO, index: int) -> Frame:
        """Return the stored pixels of a frame; call it within `corrupt_errors`."""
        if not self.fragments:
            return self._read_uncompressed(stream, index)
        parts = []
        for offset, length in self.fragments[index]:
            stream.seek(offset)
            parts.append(stream.read(length))
        content = b"".join(parts)
        if self.syntax == _DEFLATED_FRAMES:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.frame_bytes + 1)
        if self.syntax in (_DEFLATED_FRAMES, _ENCAPSULATED_UNCOMPRESSED):
            if len(content) < self.frame_bytes:
                raise ValueError(f"frame {index + 1} has fewer pixels than its header declares")
            return self._unpack(content, 0)
        return self._decode(content)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame without compression."""
        return -(-self.shape[0] * self.shape[1] * self.bits // 8)

    def _read_uncompressed(self, stream: BinaryIO, index: int) -> Frame:
        """Return a frame of uncompressed pixels; with one bit per pixel, it may begin within a byte."""
        bits = self.shape[0] * self.shape[1] * self.bits
        first, skipped = divmod(index * bits, 8)
        stream.seek(self.offset + first)
        content = stream.read(-(-(skipped + bits) // 8))
        if len(content) * 8 < skipped + bits:
            raise ValueError(f"frame {index + 1} has fewer pixels than its header declares")
        return self._unpack(content, skipped)

    def _unpack(self, content: bytes, skipped: int) -> Frame:
        count = self.shape[0] * self.shape[1]
        if self.bits == 1:
            bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
            return bits[skipped : skipped + count].reshape(self.shape)
        return np.frombuffer(content, f"<u{self.bits // 8}", count).reshape(self.shape)

    def _decode(self, content: bytes) -> Frame:
        size = read_jpeg_size(content)
        if size is not None and size != self.shape:
            raise ValueError("a frame has another number of rows or columns than its header declares")
        # The decoder of RLE in Python cannot crash the process.
        plugin = "pydicom" if self.syntax == RLELossless else ""
        values, _ = get_decoder(UID(self.syntax)).as_array(
            encapsulate([content], has_bot=False), index=0, raw=True, rows=self.shape[0], columns=self.shape[1],
            samples_per_pixel=1, bits_allocated=self.bits, bits_stored=self.bits, number_of_frames=1,
            pixel_representation=0, photometric_interpretation="MONOCHROME2", pixel_keyword="PixelData",
            transfer_syntax_uid=UID(self.syntax), decoding_plugin=plugin,
        )  # fmt: skip
        if values.shape != self.shape:
            raise ValueError("a frame has pixels of another size than its header declares")
        return values


def open_pixels(path: Path, elements: RawHeader, shape: tuple[int, int], bits: int, frames: int) -> FramePixels:
    """Return the location of the frames in a file, without reading pixels; call it within `corrupt_errors`.

    Raises
    ------
    SourceError
        If the file has fewer pixels than its header declares, or a transfer syntax that is not supported.
    """
    syntax = elements.text("TransferSyntaxUID")
    if elements.pixel_bytes is None:
        raise SourceError(f"{mark_path(path)} has no pixels, or is cut short: get the file again")
    pixels = FramePixels(path, shape, bits, frames, syntax, elements.pixel_offset, ())
    is_compressed = elements.pixel_bytes == UNDEFINED
    if not _is_supported(syntax, bits, is_compressed):
        raise SourceError(
            f"{mark_path(path)} has pixels in an unsupported transfer syntax: convert it to explicit little endian"
        )
    if not is_compressed:
        needed, available = -(-shape[0] * shape[1] * bits * frames // 8), path.stat().st_size - elements.pixel_offset
        if min(elements.pixel_bytes, available) < needed:
            raise SourceError(f"{mark_path(path)} is cut short: its pixels end early; get the file again")
        return pixels
    with path.open("rb") as stream:
        fragments = _frames_of_fragments(path, stream, elements.pixel_offset, frames)
    return FramePixels(path, shape, bits, frames, syntax, elements.pixel_offset, fragments)


def _is_supported(syntax: str, bits: int, is_compressed: bool) -> bool:
    if syntax in (_DEFLATED_FRAMES, _ENCAPSULATED_UNCOMPRESSED):
        return is_compressed
    uid = UID(syntax)
    if not uid.is_transfer_syntax or uid.is_private or not uid.is_little_endian or uid.is_encapsulated != is_compressed:
        return False
    try:
        return not is_compressed or (bits > 1 and get_decoder(uid).is_available)
    except NotImplementedError:
        return False


def _frames_of_fragments(path: Path, stream: BinaryIO, offset: int, frames: int) -> tuple[Fragments, ...]:
    """Return offsets and lengths of the fragments of each frame."""
    cut_short = SourceError(f"{mark_path(path)} is cut short: its compressed pixels end early; get the file again")
    size = path.stat().st_size
    stream.seek(offset)
    table: tuple[int, ...] = ()
    fragments: list[tuple[int, int]] = []
    at, is_table = offset, True
    while len(fragments) <= _MAX_FRAGMENTS:
        head = stream.read(8)
        if head[:4] == _DELIMITER:
            break
        length = int.from_bytes(head[4:8], "little")
        if len(head) < 8 or head[:4] != ITEM or at + 8 + length > size:
            raise cut_short
        if is_table:
            table = tuple(np.frombuffer(stream.read(min(length, 4 * frames)) if length % 4 == 0 else b"", "<u4"))
            is_table, begin = False, at + 8 + length
        else:
            fragments.append((at + 8, length))
        at += 8 + length
        stream.seek(at)
    if len(fragments) == frames:
        return tuple((fragment,) for fragment in fragments)
    if frames == 1 and fragments:
        return (tuple(fragments),)
    starts: Mapping[int, int] = {first - 8 - begin: number for number, (first, _) in enumerate(fragments)}
    if len(table) != frames or table[0] != 0 or not all(int(start) in starts for start in table):
        raise cut_short
    first_fragments = [*(starts[int(start)] for start in table), len(fragments)]
    if sorted(set(first_fragments)) != first_fragments:
        raise cut_short
    return tuple(
        tuple(fragments[first:stop]) for first, stop in zip(first_fragments[:-1], first_fragments[1:], strict=True)
    )
