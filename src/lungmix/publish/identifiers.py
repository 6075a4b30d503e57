"""Search of files for identifiers of patients: values of the key table, in bytes and in decompressed bytes.

The search runs in the client, because identifiers are never sent to a worker.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from lungmix.publish.ordinary import ordinary_words

_FIELDS = (
    "patient_id", "patient_name", "birth_date", "accession_number", "study_uid", "study_date", "study_time",
    "series_uid", "series_date", "acquisition_date", "content_date", "frame_uid", "series_description",
)  # fmt: skip
_SHORTEST = 4
"""Shorter values, such as an ID of three digits, are in any file by chance."""
_SHORTEST_FILE_NAME = 6
_BLOCK = 1 << 22
_PACKED_BLOCK = 1 << 14
"""Bytes to inflate at once; each may become a thousand."""
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_SEPARATORS = re.compile(r"[\^\s,;=]+")
_GZIP = b"\x1f\x8b"


def identifiers_of(rows: Mapping[str, Mapping[str, str]]) -> tuple[list[str], int]:
    """Return the identifiers in rows of a key table, and the number of values that cannot be searched for.

    Parameters
    ----------
    rows : mapping
        Rows of a key table by case.

    Returns
    -------
    list of str
        Values of the fields, the parts of names, dates with hyphens, and names of source files; without duplicates.
    int
        Number of values that are not searched for: they are too short, or words that data sets contain whoever the
        patients are.
    """
    ordinary = ordinary_words()
    values: dict[str, None] = {}
    skipped: set[str] = set()

    def add(value: str, shortest: int = _SHORTEST) -> None:
        text = value.strip()
        if not text:
            return
        if len(text) < shortest or text.lower() in ordinary:
            skipped.add(text.lower())
        else:
            values[text] = None

    for row in rows.values():
        for field in _FIELDS:
            add(row.get(field) or "")
            date = _DATE.fullmatch((row.get(field) or "").strip())
            if date:
                add("-".join(date.groups()))
        for part in _SEPARATORS.split(row.get("patient_name") or ""):
            add(part)
        name = PurePath(row.get("path") or "").name.split(".")[0]
        if name and name not in rows:
            add(name, _SHORTEST_FILE_NAME)
    return list(values), len(skipped)


class IdentifierSearch:
    """Search of bytes for many identifiers at once, in capitals or not.

    A value in letters or digits counts only where no further letter or digit adjoins it, so that a name is not part of
    another word; one of digits only where it is not a part of a decimal number.

    Parameters
    ----------
    identifiers : iterable of str
        Texts to search for, each in UTF-8, Latin-1 and UTF-16.
    """

    def __init__(self, identifiers: Iterable[str]) -> None:
        needles: set[bytes] = set()
        for text in identifiers:
            for encoding in ("utf-8", "latin-1", "utf-16-le"):
                for spelling in (text, text.lower(), text.upper()):
                    # Letters outside of ASCII have capitals of their own; an encoding may lack them.
                    with suppress(UnicodeEncodeError):
                        needles.add(spelling.encode(encoding).lower())
        self._by_start: dict[bytes, list[bytes]] = {}
        # True for each pair of bytes with which an occurrence can begin; pairs of voxels of a CT never are.
        self._begins: npt.NDArray[np.bool_] = np.zeros(1 << 16, np.bool_)
        for needle in needles:
            self._by_start.setdefault(needle[:2], []).append(needle)
            for first in {needle[:1], needle[:1].upper()}:
                for second in {needle[1:2], needle[1:2].upper()}:
                    self._begins[first[0] | second[0] << 8] = True
        self.longest = max(map(len, needles), default=0)

    def is_in(self, content: bytes) -> bool:
        """Return True if one of the identifiers is in the bytes."""
        if not self.longest or len(content) < 2:
            return False
        data = np.frombuffer(content, np.uint8)
        pairs = data[:-1] | (data[1:].astype(np.uint16) << 8)
        return any(self._matches(content, int(start)) for start in np.flatnonzero(self._begins[pairs]))

    def is_in_blocks(self, blocks: Iterable[bytes]) -> bool:
        """Return True if one of the identifiers is in a stream of bytes, also across its blocks."""
        tail = b""
        for block in blocks:
            joined = tail + block
            if self.is_in(joined):
                return True
            tail = joined[-(self.longest + 2) :]
        return False

    def _matches(self, content: bytes, start: int) -> bool:
        before = content[start - 1 : start] if start else b""
        lower = content[start : start + self.longest + 2].lower()
        return any(
            lower.startswith(needle) and not (_is_word(before) and _is_word(needle[:1]))
            and not (needle.isdigit() and _is_decimal(content, start, len(needle)))
            and not (_is_word(lower[len(needle) : len(needle) + 1]) and _is_word(needle[-1:]))
            for needle in self._by_start.get(lower[:2], ())
        )  # fmt: skip


def _is_decimal(content: bytes, start: int, length: int) -> bool:
    """Return True if digits are the part of a number before or after its decimal point."""
    before, after = content[max(start - 2, 0) : start], content[start + length : start + length + 2]
    return (before[1:] == b"." and before[:1].isdigit()) or (after[:1] == b"." and after[1:].isdigit())


def _is_word(byte: bytes) -> bool:
    return byte.isalnum()


def bytes_of(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks."""
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def decompressed(path: Path) -> Iterator[bytes]:
    """Yield the decompressed bytes of a gzip file, or of the gzip stream after the header of an NRRD file.

    Nothing is yielded for other files. Bytes before a corrupt one are yielded.

    Raises
    ------
    zlib.error
        If the stream is corrupt.
    EOFError
        If it is cut short.
    """
    with path.open("rb") as stream:
        block = stream.read(_PACKED_BLOCK)
        if block.startswith(b"NRRD"):
            _, _, block = block.partition(b"\n\n")
        if not block.startswith(_GZIP):
            return
        inflate = zlib.decompressobj(31)
        while block:
            yield inflate.decompress(block)
            if inflate.eof:
                if inflate.unused_data or stream.read(1):
                    raise zlib.error("bytes after the end of the stream")
                return
            block = stream.read(_PACKED_BLOCK)
        raise EOFError
