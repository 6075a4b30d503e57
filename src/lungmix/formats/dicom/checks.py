"""Checks of a header, and of the first bytes of its pixels, for inconsistencies before any decoder runs."""

from __future__ import annotations

from functools import lru_cache

from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lungmix.errors import mark_untrusted
from lungmix.formats.dicom.elements import BIG_ENDIAN_OF_GE, ITEM, UNDEFINED, RawHeader
from lungmix.formats.dicom.jpeg_size import read_jpeg_size
from lungmix.formats.limits import MAX_SLICE_PIXELS

PIXEL_START_BYTES = 4096
"""Number of bytes at the start of the pixel data that are checked."""

GIVE_ORIGINAL = "give the original slices"

_DECODED = frozenset((
    "", ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
    BIG_ENDIAN_OF_GE, RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1,
    JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000,
))  # fmt: skip


def check_pixels(elements: RawHeader, rows: int, columns: int, needed: int, pixel_start: bytes) -> str | None:
    """Return the problem of the pixel data as a phrase that follows "the file"; None if there is none.

    Parameters
    ----------
    elements : RawHeader
        Header of the file.
    rows, columns : int
        Size of an image according to the header.
    needed : int
        Size of all pixels in bytes without compression.
    pixel_start : bytes
        First bytes of the pixel data, after its length field.
    """
    if rows * columns > MAX_SLICE_PIXELS:
        return f"declares {columns} x {rows} pixels, more than any CT"
    declared_compressed = _is_compressed(elements.text("TransferSyntaxUID"))
    encapsulated = elements.pixel_bytes == UNDEFINED
    if declared_compressed is not None and declared_compressed != encapsulated:
        return (
            "declares compressed pixels but holds uncompressed ones"
            if declared_compressed
            else "declares uncompressed pixels but holds compressed ones"
        )
    if encapsulated:
        stream_size = read_jpeg_size(_first_fragment(pixel_start))
        if stream_size is not None and stream_size != (rows, columns):
            return "has pixels of another size than its header declares"
    elif elements.pixel_bytes is not None and elements.pixel_bytes - needed >= max(needed // max(rows, 1), 2):
        return "holds more pixels than its header declares"
    return None


def check_coding(elements: RawHeader) -> str | None:
    """Return the reason why decoders would not read the pixels correctly; None if they would.

    The reason is a phrase that follows "the file", with a remedy.
    """
    syntax = elements.text("TransferSyntaxUID")
    if syntax not in _DECODED:
        # A private identifier is untrusted text.
        name = UID(syntax).name if syntax.startswith("1.2.840.10008.") else syntax
        return (
            f"has pixels in an unsupported transfer syntax ({mark_untrusted(name)}): convert it to explicit little "
            "endian, as `dcmdjpeg` and `gdcmconv --raw` do, and give the converted file"
        )
    stored, high = elements.short("BitsStored"), elements.short("HighBit")
    if stored is not None and high is not None and high != stored - 1:
        return (
            f"declares that its {stored} bits end at bit {high} (HighBit), which decoders read in different ways: give "
            f"the original slices, or set HighBit to {stored - 1} if the lowest bits are the used ones"
        )
    return None


def check_values(elements: RawHeader) -> str | None:
    """Return the problem of the attributes that give pixels their HU and size in mm; None if there is none.

    The problem is a phrase that follows "the file", with a remedy.
    """
    spacing = elements.numbers("PixelSpacing")
    if spacing is None or len(spacing) != 2 or min(spacing) <= 0:
        return f"has no valid pixel spacing (PixelSpacing): {GIVE_ORIGINAL}"
    signed = elements.short("PixelRepresentation") == 1
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        # Signed pixels may be HU without rescaling, and a missing slope is 1 where there is an intercept.
        optional = signed or (keyword == "RescaleSlope" and elements.number("RescaleIntercept") is not None)
        if optional and not elements.text(keyword):
            continue
        values = elements.numbers(keyword)
        if values is None or len(values) != 1 or (keyword == "RescaleSlope" and values[0] == 0):
            return f"has no valid rescaling of its pixels to HU ({keyword}): {GIVE_ORIGINAL}"
    if elements.text("PhotometricInterpretation") == "MONOCHROME1":
        return f"has pixels that decoders invert (MONOCHROME1): {GIVE_ORIGINAL}"
    return None


def is_rotation(orientation: tuple[float, ...]) -> bool:
    """Return True if row and column directions are orthonormal to about a hundredth."""
    row, column = orientation[:3], orientation[3:]
    products = [sum(a * b for a, b in zip(x, y, strict=True)) for x, y in ((row, row), (column, column), (row, column))]
    return all(abs(product - expected) < 0.02 for product, expected in zip(products, (1, 1, 0), strict=True))


@lru_cache(maxsize=256)
def _is_compressed(syntax: str) -> bool | None:
    """Return True if a transfer syntax encapsulates pixels; None if it is unknown."""
    uid = UID(syntax)
    return uid.is_encapsulated if syntax and uid.is_transfer_syntax and not uid.is_private else None


def _first_fragment(pixel_start: bytes) -> bytes:
    """Return the beginning of the first fragment of encapsulated pixels, which follows the offset table.

    The result is empty if `pixel_start` ends within the offset table.
    """
    if not pixel_start.startswith(ITEM):
        return b""
    table_end = 8 + int.from_bytes(pixel_start[4:8], "little")
    return pixel_start[table_end + 8 :] if pixel_start[table_end : table_end + 4] == ITEM else b""
