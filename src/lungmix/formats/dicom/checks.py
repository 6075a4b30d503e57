"""What contradicts itself in a header or in the beginning of its pixels, before any decoder sees them."""

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
from lungmix.formats.dicom.jpeg_size import size_of_stream
from lungmix.formats.limits import LARGEST_SLICE

BEGINNING = 4096
"""Bytes of the pixels that are looked at."""

ORIGINAL = "give the original slices"

_DECODED = frozenset((
    "", ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
    BIG_ENDIAN_OF_GE, RLELossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1,
    JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000,
))  # fmt: skip


def fault_of_pixels(elements: RawHeader, rows: int, columns: int, needed: int, beginning: bytes) -> str | None:
    """What is wrong with the pixels, after "the file"; None if nothing is seen.

    Parameters
    ----------
    elements : Elements
        The header.
    rows, columns : int
        Of an image, as the header has them.
    needed : int
        Bytes of all pixels without compression.
    beginning : bytes
        The first of the pixels, from behind their length.
    """
    if rows * columns > LARGEST_SLICE:
        return f"promises {columns} x {rows} pixels, which no CT has"
    compressed = _is_compressed(elements.text("TransferSyntaxUID"))
    encapsulated = elements.pixel_bytes == UNDEFINED
    if compressed is not None and compressed != encapsulated:
        return (
            "has pixels that are not compressed, as it says" if compressed else "has pixels that are compressed unsaid"
        )
    if encapsulated:
        found = size_of_stream(_first_fragment(beginning))
        if found is not None and found != (rows, columns):
            return "has pixels of another size than its header promises"
    elif elements.pixel_bytes is not None and elements.pixel_bytes - needed >= max(needed // max(rows, 1), 2):
        return "holds more pixels than its header promises"
    return None


def fault_of_coding(elements: RawHeader) -> str | None:
    """Why no decoder reads the pixels as they are meant, and what to do, after "the file"; None if one does."""
    syntax = elements.text("TransferSyntaxUID")
    if syntax not in _DECODED:
        # A maker's own identifier is a stranger's text.
        name = UID(syntax).name if syntax.startswith("1.2.840.10008.") else syntax
        return (
            f"has pixels in a transfer syntax that is not read here ({mark_untrusted(name)}): convert it to explicit "
            "little "
            "endian, as dcmdjpeg and gdcmconv --raw do, and give that"
        )
    stored, high = elements.short("BitsStored"), elements.short("HighBit")
    if stored is not None and high is not None and high != stored - 1:
        return (
            f"says that its {stored} bits end at bit {high} (HighBit), which decoders read in different ways: give "
            f"the original slices, or set HighBit to {stored - 1} if the lowest bits are those that are used"
        )
    return None


def fault_of_values(elements: RawHeader) -> str | None:
    """What is wrong with the numbers that make HU and mm of a plain slice, and what to do; None if nothing is."""
    spacing = elements.numbers("PixelSpacing")
    if spacing is None or len(spacing) != 2 or min(spacing) <= 0:
        return f"does not say how large its pixels are (PixelSpacing): {ORIGINAL}"
    signed = elements.short("PixelRepresentation") == 1
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        # Numbers with a sign may be HU as they are, and a slope that is not there is 1 where an intercept is.
        optional = signed or (keyword == "RescaleSlope" and elements.number("RescaleIntercept") is not None)
        if optional and not elements.text(keyword):
            continue
        values = elements.numbers(keyword)
        if values is None or len(values) != 1 or (keyword == "RescaleSlope" and values[0] == 0):
            return f"does not say what its pixels are in HU ({keyword}): {ORIGINAL}"
    if elements.text("PhotometricInterpretation") == "MONOCHROME1":
        return f"has pixels that decoders turn round (MONOCHROME1): {ORIGINAL}"
    return None


def is_rotation(orientation: tuple[float, ...]) -> bool:
    """Whether rows and columns are of length 1 and at a right angle, to a hundredth."""
    row, column = orientation[:3], orientation[3:]
    products = [sum(a * b for a, b in zip(x, y, strict=True)) for x, y in ((row, row), (column, column), (row, column))]
    return all(abs(found - wanted) < 0.02 for found, wanted in zip(products, (1, 1, 0), strict=True))


@lru_cache(maxsize=256)
def _is_compressed(syntax: str) -> bool | None:
    """Whether pixels are encapsulated in a transfer syntax; None if it is none that is known."""
    uid = UID(syntax)
    return uid.is_encapsulated if syntax and uid.is_transfer_syntax and not uid.is_private else None


def _first_fragment(beginning: bytes) -> bytes:
    """Of encapsulated pixels, from behind their table of offsets; empty if it lies farther away."""
    if not beginning.startswith(ITEM):
        return b""
    behind = 8 + int.from_bytes(beginning[4:8], "little")
    return beginning[behind + 8 :] if beginning[behind : behind + 4] == ITEM else b""
