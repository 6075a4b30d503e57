"""Attributes of a header as they stand in the file: bytes, of which only what is asked for is made a value."""

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
"""A transfer syntax of a maker's own that old scanners write: implicit little endian, but for the pixels."""

# Decimal strings as DICOM has them: `float` takes more, and decoders take what begins like a number for one.
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


@dataclass
class RawHeader:
    """The elements of one header.

    Attributes
    ----------
    dataset : Dataset
        As pydicom read it, its values not converted.
    pixel_bytes : int or None
        Declared length of the pixels, `UNDEFINED` where they are encapsulated; None if the header ends before them.
    pixel_offset : int
        Where the pixels begin in what was read.
    """

    dataset: Dataset
    pixel_bytes: int | None
    pixel_offset: int
    _raw: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        meta = getattr(self.dataset, "file_meta", None)
        elements = [*(meta.values() if meta is not None else ()), *self.dataset.values()]
        # Plain numbers as keys: those of pydicom compare slowly.
        self._raw = {int(element.tag): element for element in elements}

    @classmethod
    def read(cls, stream: BinaryIO, tags: list[Any]) -> RawHeader:
        """From a whole file or its beginning, up to the pixels."""
        stop = _Stop(stream)
        if stream.read(132)[128:] == b"DICM":
            # What `read_partial` does, without the data sets for people that it makes of it.
            meta = read_dataset(stream, False, True, stop_when=_behind_meta)
            coding = _coding_of(bytes(meta.get_item(_SYNTAX).value) if _SYNTAX in meta else b"")
            if coding is not None:
                dataset = read_dataset(stream, *coding, stop_when=stop, specific_tags=tags)
                found = cls(dataset, stop.length, stop.offset)
                found._raw |= {int(element.tag): element for element in meta.values()}
                return found
        # Files without the mark or without a known coding are left to pydicom's guesses.
        stream.seek(0)
        stop = _Stop(stream)
        return cls(read_partial(stream, stop, force=True, specific_tags=tags), stop.length, stop.offset)

    @classmethod
    def read_inflated(cls, meta: BinaryIO, stream: BinaryIO, tags: list[Any]) -> RawHeader:
        """From the meta header of a deflated file, and from the beginning of what was deflated."""
        stop = _Stop(stream)
        dataset = read_dataset(stream, False, True, stop_when=stop, specific_tags=tags)
        found = cls(dataset, stop.length, stop.offset)
        found._raw = {**cls.read(meta, tags)._raw, **found._raw}
        return found

    def __contains__(self, keyword: str) -> bool:
        return _TAG[keyword] in self._raw

    def value(self, keyword: str) -> Any:
        """Bytes of an element, or the items of a sequence; None if it is not there."""
        element = self._raw.get(_TAG[keyword])
        return None if element is None else element.value

    def as_written(self, keywords: Sequence[str]) -> tuple[bytes | None, ...]:
        """Bytes of several elements."""
        found = [self._raw.get(_TAG[keyword]) for keyword in keywords]
        return tuple(
            element.value if element is not None and isinstance(element.value, bytes) else None for element in found
        )

    def text(self, keyword: str) -> str:
        """Plain text without the padding; empty if there is none."""
        element = self._raw.get(_TAG[keyword])
        if element is None:
            return ""
        value = element.value
        if isinstance(value, bytes):
            return value.decode("latin-1").strip(" \0\t\r\n")
        # pydicom makes a value of the transfer syntax, which it needs itself.
        return value.strip(" \0\t\r\n") if isinstance(value, str) else ""

    def texts(self, keyword: str) -> tuple[str, ...]:
        r"""Parts between ``\``."""
        text = self.text(keyword)
        return tuple(part.strip(" ") for part in text.split("\\")) if text else ()

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """Decimal numbers, all finite; None if there are none or one is no number."""
        parts = self.texts(keyword)
        if not parts or not all(map(_DECIMAL.fullmatch, parts)):
            return None
        values = tuple(map(float, parts))
        return values if all(map(math.isfinite, values)) else None

    def number(self, keyword: str) -> float | None:
        """The first decimal number."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def integer(self, keyword: str) -> int | None:
        """The first whole decimal number."""
        value = self.number(keyword)
        return int(value) if value is not None and value == int(value) else None

    def short(self, keyword: str) -> int | None:
        """An unsigned binary number of 16 bits."""
        element = self._raw.get(_TAG[keyword])
        if element is None or not isinstance(element.value, bytes) or len(element.value) < 2:
            return None
        return int(struct.unpack_from("<H" if element.is_little_endian else ">H", element.value)[0])

    def real(self, keyword: str) -> float | None:
        """A binary number of 32 or 64 bits."""
        element = self._raw.get(_TAG[keyword])
        if element is None or not isinstance(element.value, bytes) or len(element.value) not in (4, 8):
            return None
        kind = "f" if len(element.value) == 4 else "d"
        value = float(struct.unpack(("<" if element.is_little_endian else ">") + kind, element.value)[0])
        return value if math.isfinite(value) else None

    def converted(self, keyword: str) -> str | None:
        """Text in the characters that the header says it is written in; None if it is empty or cannot be read."""
        if _TAG[keyword] not in self.dataset:
            return None
        try:
            value = self.dataset[_TAG[keyword]].value
        except Exception:  # pydicom raises whatever a broken value leads to
            return None
        if value is None:
            return None
        if not isinstance(value, str) and hasattr(value, "__iter__") and not hasattr(value, "components"):
            value = "\\".join(str(part) for part in value)
        return str(value).strip() or None

    @property
    def cut(self) -> bool:
        """Whether an element holds fewer bytes than it says."""
        last = max(self._raw, default=None)
        if last is None:
            return True
        element = self._raw[last]
        length = getattr(element, "length", None)
        value = element.value
        return isinstance(value, bytes) and length not in (None, UNDEFINED) and len(value) < length


def _behind_meta(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) >> 16 != 2


@lru_cache(maxsize=256)
def _coding_of(syntax: bytes) -> tuple[bool, bool] | None:
    """Whether VRs are implicit and numbers little endian in a transfer syntax; None if it is not a plain one."""
    uid = UID(syntax.decode("latin-1").strip(" \0"))
    if uid == BIG_ENDIAN_OF_GE:
        return True, True
    if not uid.is_transfer_syntax or uid.is_private or uid.is_deflated:
        return None
    return uid.is_implicit_VR, uid.is_little_endian


class _Stop:
    """Stops reading at the pixels and remembers where they are."""

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
    """Numbers of attributes by their keywords."""

    def __missing__(self, keyword: str) -> int:
        tag = tag_for_keyword(keyword)
        if tag is None:
            raise KeyError(keyword)
        self[keyword] = tag
        return tag


_TAG = _Tags()


def tags_of(keywords: Iterator[str]) -> list[Any]:
    """What pydicom is to read, by keyword."""
    return [Tag(_TAG[keyword]) for keyword in keywords]
