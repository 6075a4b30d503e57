"""Image size that a compressed stream declares, for a check before a decoder allocates memory for it."""

from __future__ import annotations

_SOI, _JP2 = b"\xff\xd8", b"\x00\x00\x00\x0cjP  "
_J2K = b"\xff\x4f\xff\x51"
# Markers that start a frame in JPEG and JPEG-LS; the codes of DHT, JPG and DAC lie between them.
_FRAMES = ({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}) | {0xF7}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def read_jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """Return rows and columns from the header of a JPEG, JPEG-LS or JPEG 2000 stream; None if it has no such header.

    Parameters
    ----------
    stream : bytes
        First bytes of the stream.
    """
    if stream.startswith(_JP2):
        at = stream.find(_J2K)
        return _size_of_jpeg2000(stream[at:]) if at >= 0 else None
    if stream.startswith(_J2K):
        return _size_of_jpeg2000(stream)
    return _size_of_jpeg(stream) if stream.startswith(_SOI) else None


def _size_of_jpeg2000(stream: bytes) -> tuple[int, int] | None:
    if len(stream) < 24:
        return None
    width, height, left, top = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12, 16, 20))
    return height - top, width - left


def _size_of_jpeg(stream: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        at += 2 + max(int.from_bytes(stream[at + 2 : at + 4], "big"), 2)
    return None
