"""Reader of the elements of a header from the first bytes of a file; more bytes are read only if needed."""

from __future__ import annotations

import errno
import io
import zlib
from typing import Any, BinaryIO

from lungmix.formats.dicom.checks import PIXEL_START_BYTES
from lungmix.formats.dicom.elements import UNDEFINED, RawHeader

# Bytes: most headers fit into the first size, nearly all into the second.
HEAD, _LONG_HEAD = 16 << 10, 256 << 10
_MAX_HEADER_BYTES = 64 << 20
_DEFLATED = b"1.2.840.10008.1.2.1.99"
# Value representations (VR) that the first element of a file without the DICM prefix may have, in group 2 or 8.
_FIRST_VRS = (b"UL", b"OB", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO", b"PN", b"US")
_MAX_FIRST_LENGTH = 256


def read_elements(head: bytes, stream: BinaryIO, size: int, tags: list[Any]) -> tuple[RawHeader, bool]:
    """Return the header of a file, and True if the file is deflated; read more than `head` if needed."""
    if _DEFLATED in head[132:1024]:
        return _inflate_header(head, stream, tags), True
    for limit in (_LONG_HEAD, _MAX_HEADER_BYTES):
        try:
            elements = RawHeader.read(io.BytesIO(head), tags)
            if elements.pixel_bytes is not None:
                return elements, False
        except Exception:  # the header may be longer than the bytes read so far
            if len(head) >= size:
                raise
        if len(head) >= size:
            return elements, False
        stream.seek(0)
        head = stream.read(limit) if limit < size else b""
        if not head:
            break
    # Long functional groups of frames are read too, up to the largest accepted header.
    stream.seek(0)
    source = stream if size <= _MAX_HEADER_BYTES else io.BytesIO(stream.read(_MAX_HEADER_BYTES))
    return RawHeader.read(source, tags), False


def _inflate_header(head: bytes, stream: BinaryIO, tags: list[Any]) -> RawHeader:
    """Return the header of a deflated file.

    Raises
    ------
    ValueError
        If the file is cut short, or inflates to more than 64 MiB besides the pixels that it declares.
    """
    start = 144 + int.from_bytes(head[140:144], "little")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    stream.seek(start)
    text = b""
    while len(text) < _MAX_HEADER_BYTES and not inflate.eof:
        piece = inflate.unconsumed_tail or stream.read(HEAD)
        if not piece:
            break
        text += inflate.decompress(piece, 1 << 20)
        elements = RawHeader.read_inflated(io.BytesIO(head[:start]), io.BytesIO(text), tags)
        if elements.pixel_bytes is not None:
            break
    declared = elements.pixel_bytes or 0
    remaining = declared + _MAX_HEADER_BYTES - len(text) if declared != UNDEFINED else 0
    pixel_bytes_read = len(text) - elements.pixel_offset
    while remaining > 0 and not inflate.eof:
        piece = inflate.unconsumed_tail or stream.read(HEAD)
        if not piece:
            break
        inflated = len(inflate.decompress(piece, 1 << 20))
        remaining, pixel_bytes_read = remaining - inflated, pixel_bytes_read + inflated
    if not inflate.eof or pixel_bytes_read < declared:
        raise ValueError("a deflated file is cut short, or inflates to more than its pixels need")
    return elements


def is_file_system_error(error: Exception) -> bool:
    """Return True if the file system failed; for corrupt bytes pydicom raises `OSError` without errno, or EINVAL."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def read_pixel_start(head: bytes, stream: BinaryIO, offset: int) -> bytes:
    """Return the first `PIXEL_START_BYTES` of the pixels, from `head` if it contains them, else from the file."""
    if offset + PIXEL_START_BYTES <= len(head):
        return head[offset : offset + PIXEL_START_BYTES]
    stream.seek(offset)
    return stream.read(PIXEL_START_BYTES)


def may_lack_preamble(head: bytes) -> bool:
    """Return True if the first bytes of a file may be DICOM without preamble and DICM prefix."""
    if len(head) < 16:
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
        if group not in (2, 8) or element > 0x70:
            continue
        if head[4:6] in _FIRST_VRS:
            return True
        if order == "little" and int.from_bytes(head[4:8], "little") <= _MAX_FIRST_LENGTH:
            return True
    return False
