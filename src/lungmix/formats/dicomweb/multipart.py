"""Reader of the first part of a multipart answer, which is never in memory at once (RFC 2046, section 5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,200})"|([^;,\s"]{1,200}))""", re.IGNORECASE)
_LENGTH = re.compile(rb"^content-length:[ \t]*([0-9]{1,18})[ \t]*$", re.IGNORECASE | re.MULTILINE)
_MAX_HEADER_BYTES = 64 << 10


class IncompletePartError(ValueError):
    """The answer ended before its part did, or has no part."""


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary that a Content-Type declares; None unless it is a multipart answer.

    Raises
    ------
    IncompletePartError
        If a multipart answer has no boundary.
    """
    if not content_type.lower().startswith("multipart/"):
        return None
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise IncompletePartError("a multipart answer has no boundary")
    return (match[1] or match[2]).encode("latin-1", "replace")


def copy_first_part(pieces: Iterable[bytes], boundary: bytes, out: BinaryIO) -> int:
    """Write the content of the first part of an answer, and return its number of bytes.

    Parameters
    ----------
    pieces : iterable of bytes
        The body of the answer, in pieces of any size.
    boundary : bytes
        Boundary of the parts.
    out : BinaryIO
        File to write to. Besides one piece, at most the header of the part is kept in memory.

    Raises
    ------
    IncompletePartError
        If the answer ends before the part, or has no part.
    """
    source = iter(pieces)
    head = b""
    # The first line of the body may be the boundary, without a line break before it.
    opening, delimiter = b"\r\n--" + boundary, b"\r\n--" + boundary
    while True:
        start = (b"\r\n" + head).find(opening)
        end = head.find(b"\r\n\r\n", max(start, 0)) if start >= 0 else -1
        if end >= 0:
            break
        if len(head) > _MAX_HEADER_BYTES:
            raise IncompletePartError("an answer has no part")
        head += _next_piece(source)
    declared = _LENGTH.search(head[start:end].replace(b"\r\n", b"\n"))
    rest = head[end + 4 :]
    if declared is not None:
        return _copy_bytes(source, rest, int(declared[1]), out)
    written = 0
    while (stop := rest.find(delimiter)) < 0:
        # The end of a piece may be the beginning of the boundary.
        keep = min(len(rest), len(delimiter) - 1)
        written += out.write(rest[: len(rest) - keep])
        rest = rest[len(rest) - keep :] + _next_piece(source)
    return written + out.write(rest[:stop])


def _copy_bytes(source: Iterable[bytes], rest: bytes, length: int, out: BinaryIO) -> int:
    left = length
    pieces = iter(source)
    while left:
        piece = rest or _next_piece(pieces)
        rest = b""
        left -= out.write(piece[:left])
    return length


def _next_piece(source: Iterable[bytes]) -> bytes:
    for piece in source:
        if piece:
            return piece
    raise IncompletePartError("an answer ended before its part")
