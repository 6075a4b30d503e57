"""Attributes of a header as raw bytes, converted to values on request.

`pydicom.dcmread` converts all values, which takes three times as long. It also returns neither the offset nor the
length of the pixels, by which truncated files are recognized.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import Tag
from pydicom.uid import UID

_PIXELS = frozenset((0x7FE00010, 0x7FE00009, 0x7FE00008))
_SYNTAX = 0x00020010
UNDEFINED = 0xFFFFFFFF
ITEM = b"\xfe\xff\x00\xe0"
"""Tag of an item of a sequence, or of a fragment of pixels, in little endian."""

BIG_ENDIAN_OF_GE = "1.2.840.113619.5.2"
"""A private transfer syntax of old GE scanners: implicit little endian except for the pixels."""

# Decimal strings as DICOM defines them: `float` accepts more, and decoders accept text that begins with a number.
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


@dataclass
class RawHeader:
    """The elements of a header.

    Attributes
    ----------
    dataset : Dataset
        Elements as read by pydicom, with values not converted.
    pixel_bytes : int or None
        Declared length of the pixels; `UNDEFINED` if they are encapsulated, None if the header ends before them.
    pixel_offset : int
        Offset of the pixels in the stream.
    """

    dataset: Dataset
    pixel_bytes: int | None
    pixel_offset: int
    _raw: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        meta = getattr(self.dataset, "file_meta", None)
        elements = [*(meta.values() if meta is not None else ()), *self.dataset.values()]
        # Plain integers as keys: tags of pydicom compare slowly.
        self._raw = {int(element.tag): element for element in elements}

    @classmethod
    def read(cls, stream: BinaryIO, tags: list[Any]) -> RawHeader:
        """Read the header of a file, or of the first bytes of a file, up to the pixels."""
        stop = _Stop(stream)
        if stream.read(132)[128:] == b"DICM":
            # The same as `read_partial` of pydicom, which would also convert the values.
            meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: int(tag) >> 16 != 2)
            coding = _plain_encoding(bytes(meta.get_item(_SYNTAX).value) if _SYNTAX in meta else b"")
            if coding is not None:
                dataset = read_dataset(stream, *coding, stop_when=stop, specific_tags=tags)
                header = cls(dataset, stop.length, stop.offset)
                header._raw |= {int(element.tag): element for element in meta.values()}
                return header
        # pydicom guesses the encoding of files without the DICM prefix or a known transfer syntax.
        stream.seek(0)
        stop = _Stop(stream)
        return cls(read_partial(stream, stop, force=True, specific_tags=tags), stop.length, stop.offset)

    @classmethod
    def read_inflated(cls, meta: BinaryIO, stream: BinaryIO, tags: list[Any]) -> RawHeader:
        """Read a header from the meta header of a deflated file and the first bytes of its inflated content."""
        stop = _Stop(stream)
        dataset = read_dataset(stream, False, True, stop_when=stop, specific_tags=tags)
        header = cls(dataset, stop.length, stop.offset)
        header._raw = {**cls.read(meta, tags)._raw, **header._raw}
        return header

    def __contains__(self, keyword: str) -> bool:
        return _TAG[keyword] in self._raw

    def value(self, keyword: str) -> Any:
        """Return the bytes of an element, or the items of a sequence; None if it is missing."""
        element = self._raw.get(_TAG[keyword])
        return None if element is None else element.value

    def raw_values(self, keywords: Sequence[str]) -> tuple[bytes | None, ...]:
        """Return the bytes of several elements; None for each missing one."""
        return tuple(value if isinstance(value, bytes) else None for value in map(self.value, keywords))

    def text(self, keyword: str) -> str:
        """Return the text of an element without padding; empty if it is missing."""
        value = self.value(keyword)
        if isinstance(value, bytes):
            return value.decode("latin-1").strip(" \0\t\r\n")
        # pydicom has already converted the transfer syntax, which it needs itself.
        return value.strip(" \0\t\r\n") if isinstance(value, str) else ""

    def texts(self, keyword: str) -> tuple[str, ...]:
        r"""Return the texts of an element, separated by ``\`` in the file."""
        text = self.text(keyword)
        return tuple(part.strip(" ") for part in text.split("\\")) if text else ()

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """Return the decimal numbers of an element, all finite; None if it is missing or a part is not a number."""
        parts = self.texts(keyword)
        if not parts or not all(map(_DECIMAL.fullmatch, parts)):
            return None
        values = tuple(map(float, parts))
        return values if all(map(math.isfinite, values)) else None

    def number(self, keyword: str) -> float | None:
        """Return the first decimal number of an element; None if it is missing or a part is not a number."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def integer(self, keyword: str) -> int | None:
        """Return the first decimal number of an element if it is an integer, else None."""
        value = self.number(keyword)
        return int(value) if value is not None and value == int(value) else None

    def short(self, keyword: str) -> int | None:
        """Return an element as an unsigned binary integer of 16 bits; None if it is missing or too short."""
        element = self._raw.get(_TAG[keyword])
        if element is None or not isinstance(element.value, bytes) or len(element.value) < 2:
            return None
        return int(struct.unpack_from("<H" if element.is_little_endian else ">H", element.value)[0])

    def real(self, keyword: str) -> float | None:
        """Return an element as a binary floating-point number of 32 or 64 bits; None if it is missing or not finite."""
        element = self._raw.get(_TAG[keyword])
        if element is None or not isinstance(element.value, bytes) or len(element.value) not in (4, 8):
            return None
        kind = "f" if len(element.value) == 4 else "d"
        value = float(struct.unpack(("<" if element.is_little_endian else ">") + kind, element.value)[0])
        return value if math.isfinite(value) else None

    def decode_text(self, keyword: str) -> str | None:
        """Return text decoded with the character set of the header; None if it is empty or invalid."""
        if _TAG[keyword] not in self.dataset:
            return None
        try:
            value = self.dataset[_TAG[keyword]].value
        except Exception:  # pydicom raises any exception on a corrupt value
            return None
        if value is None:
            return None
        if not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
            value = "\\".join(str(part) for part in value)
        return str(value).strip() or None

    @property
    def is_truncated(self) -> bool:
        """True where an element holds fewer bytes than it declares."""
        last = max(self._raw, default=None)
        if last is None:
            return True
        element = self._raw[last]
        length = getattr(element, "length", None)
        value = element.value
        return isinstance(value, bytes) and length not in (None, UNDEFINED) and len(value) < length


@lru_cache(maxsize=256)
def _plain_encoding(syntax: bytes) -> tuple[bool, bool] | None:
    """Return whether a transfer syntax has implicit VRs and is little endian; None if it is private or deflated."""
    uid = UID(syntax.decode("latin-1").strip(" \0"))
    if uid == BIG_ENDIAN_OF_GE:
        return True, True
    if not uid.is_transfer_syntax or uid.is_private or uid.is_deflated:
        return None
    return uid.is_implicit_VR, uid.is_little_endian


class _Stop:
    """Callback that stops reading at the pixels and keeps their offset and length."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.length: int | None = None
        self.offset = 0

    def __call__(self, tag: Any, vr: str | None, length: int) -> bool:
        if tag not in _PIXELS:
            return False
        self.length, self.offset = length, self._stream.tell()
        return True


class _Tags(dict[str, int]):
    """Mapping of keywords to tags, filled on first use."""

    def __missing__(self, keyword: str) -> int:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise KeyError(keyword)
        self[keyword] = tag
        return tag


_TAG = _Tags()


def tags_for(keywords: Iterator[str]) -> list[Any]:
    """Return the tags of keywords, for the argument `specific_tags` of pydicom."""
    return [Tag(_TAG[keyword]) for keyword in keywords]
