"""From bytes of a file to the elements of its header, with no more read than it takes."""

from __future__ import annotations

import errno
import io
import zlib
from typing import Any, BinaryIO

from lungmix.formats.dicom.checks import BEGINNING
from lungmix.formats.dicom.elements import UNDEFINED, RawHeader

# Most headers fit into the first, nearly all into the second.
HEAD, _LONGER_HEAD = 16 << 10, 256 << 10
_LONGEST_HEADER = 64 << 20
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Where a file without the DICOM mark begins: the first element of the header, of group 2 or 8, little or big endian.
_FIRST_VRS = (b"UL", b"OB", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO", b"PN", b"US")
_LONGEST_FIRST = 256


def elements_of(head: bytes, stream: BinaryIO, size: int, tags: list[Any]) -> tuple[RawHeader, bool]:
    """The header of a file by its first bytes, or more of it where they do not reach; whether it was deflated."""
    if _DEFLATED in head[132:1024]:
        return _inflated(head, stream, tags), True
    for longest in (_LONGER_HEAD, _LONGEST_HEADER):
        try:
            elements = RawHeader.read(io.BytesIO(head), tags)
            if elements.pixel_bytes is not None:
                return elements, False
        except Exception:  # the header may only be longer than what was read
            if len(head) >= size:
                raise
        if len(head) >= size:
            return elements, False
        stream.seek(0)
        head = stream.read(longest) if longest < size else b""
        if not head:
            break
    # Long descriptions of frames are read as they come, but no more than a header can be.
    stream.seek(0)
    whole = stream if size <= _LONGEST_HEADER else io.BytesIO(stream.read(_LONGEST_HEADER))
    return RawHeader.read(whole, tags), False


def _inflated(head: bytes, stream: BinaryIO, tags: list[Any]) -> RawHeader:
    """Header of a deflated file; no more is inflated than the pixels that it promises need."""
    start = 144 + int.from_bytes(head[140:144], "little")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    stream.seek(start)
    text = b""
    while len(text) < _LONGEST_HEADER and not inflate.eof:
        piece = inflate.unconsumed_tail or stream.read(HEAD)
        if not piece:
            break
        text += inflate.decompress(piece, 1 << 20)
        elements = RawHeader.read_inflated(io.BytesIO(head[:start]), io.BytesIO(text), tags)
        if elements.pixel_bytes is not None:
            break
    promised = elements.pixel_bytes or 0
    left = promised + _LONGEST_HEADER - len(text) if promised != UNDEFINED else 0
    there = len(text) - elements.pixel_offset
    while left > 0 and not inflate.eof:
        piece = inflate.unconsumed_tail or stream.read(HEAD)
        if not piece:
            break
        inflated = len(inflate.decompress(piece, 1 << 20))
        left, there = left - inflated, there + inflated
    if not inflate.eof or there < promised:
        raise ValueError("cut short, or inflates to more than its pixels need")
    return elements


def is_of_file_system(error: Exception) -> bool:
    """Whether a file could not be read; broken bytes lead pydicom to an `OSError` without a number, or astray."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def beginning_of_pixels(head: bytes, stream: BinaryIO, offset: int) -> bytes:
    """The beginning of the pixels, which mostly has been read."""
    if offset + BEGINNING <= len(head):
        return head[offset : offset + BEGINNING]
    stream.seek(offset)
    return stream.read(BEGINNING)


def may_be_bare(head: bytes) -> bool:
    """Whether bytes may be DICOM without preamble and mark."""
    if len(head) < 16:
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
        if group not in (2, 8) or element > 0x70:
            continue
        if head[4:6] in _FIRST_VRS:
            return True
        if order == "little" and int.from_bytes(head[4:8], "little") <= _LONGEST_FIRST:
            return True
    return False
