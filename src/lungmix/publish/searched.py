"""Bytes of files that can hold text, and words that files of one kind have whoever the patients are.

Compressed bytes, and pictures in base64, are random: short identifiers are in them by chance. What they hold is
searched after decompression, or is a picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

import lungmix.webpage
from lungmix.publish.folder import EXTENSIONS, NIFTI, NRRD, OME_ZARR, REPORT_FOLDER
from lungmix.publish.identifiers import IdentifierSearch, bytes_of

_HEADER_BYTES = 1 << 16
_MARGIN = 1 << 10
"""Bytes of a compressed stream that are searched with its header, which may hold the name of a file."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/\n]{200,}={0,2}")
_PICTURES = {
    ".png": {b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"sBIT", b"pHYs", b"IDAT", b"IEND"},
    ".webp": {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"},
}
"""Parts of pictures that hold no text, by suffix."""

_WORDS_OF_ZARR = """\
attributes axes blosc bytes checksum chunk chunks clevel cname codecs color colors configuration coordinate data
datasets default dimension direction endian fill geometry grid group image indexed known label level little location
lungmix mean millimeter multiscales names nearest node orientation origin path properties regular rgba scale separator
shape sharding shuffle space spacing start storage transformations transformers translation type typesize unit value
version zarr zstd coordinatetransformations
"""
_OUTSIDE = re.compile(rb"""(?:src|href|action)\s*=\s*["']?\s*(?:[a-z]+:)?//""", re.IGNORECASE)


def text_blocks(path: Path, name: str) -> Iterator[bytes]:
    """Yield the bytes of a file that can hold text: of compressed files the header, of pictures nothing.

    Files of the page are yielded without the pictures in them.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Its path in the data set.
    """
    if name.endswith((EXTENSIONS[NRRD], EXTENSIONS[NIFTI])):
        with path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
        end = start.find(b"\n\n") if start.startswith(b"NRRD") else 0
        yield start[: end + _MARGIN] if end >= 0 else start
    elif PurePosixPath(name).suffix in _PICTURES or _is_chunk(name):
        return
    elif name.startswith(f"{REPORT_FOLDER}/"):
        yield _BASE64.sub(b"", path.read_bytes())
    else:
        yield from bytes_of(path)


class SearchByFile:
    """Search for identifiers that are not words which a file of its kind has anyway.

    Parameters
    ----------
    identifiers : iterable of str
        Texts to search for.
    """

    def __init__(self, identifiers: Iterable[str]) -> None:
        texts = list(identifiers)
        self.plain = IdentifierSearch(texts)
        self._page = IdentifierSearch(text for text in texts if text.lower() not in words_of_page())
        self._zarr = IdentifierSearch(text for text in texts if text.lower() not in _WORDS_OF_ZARR.split())

    def of(self, name: str) -> IdentifierSearch:
        """Return the search for the file at a path in the data set."""
        if name.startswith(f"{REPORT_FOLDER}/"):
            return self._page
        return self._zarr if f"{EXTENSIONS[OME_ZARR]}/" in name else self.plain


@lru_cache(maxsize=1)
def words_of_page() -> frozenset[str]:
    """Return the words of the templates, scripts, styles and figures of the page, in small letters."""
    folder = Path(lungmix.webpage.__file__).parent
    texts = (
        file.read_text(encoding="utf-8") for file in folder.rglob("*") if file.suffix in (".py", ".j2", ".js", ".css")
    )
    return frozenset(word.lower() for text in texts for word in re.findall(r"\w+", text))


def problems_of_page_file(path: Path, name: str) -> list[str]:
    """Return the problems of a file of the page: a link to another place, or text in a picture file."""
    suffix = PurePosixPath(name).suffix
    if not name.startswith(f"{REPORT_FOLDER}/"):
        return []
    if suffix in (".html", ".svg") and _OUTSIDE.search(path.read_bytes()):
        return ["loads or links to something outside of the data set"]
    if suffix in _PICTURES and not set(_parts_of(path.read_bytes(), suffix)) <= _PICTURES[suffix]:
        return ["has text besides its picture, or is no picture"]
    return []


def _is_chunk(name: str) -> bool:
    return f"{EXTENSIONS[OME_ZARR]}/" in name and "/c/" in name


def _parts_of(content: bytes, suffix: str) -> Iterator[bytes]:
    """Yield the types of the parts of a PNG or WebP file."""
    is_png = suffix == ".png"
    position = 8 if is_png else 12
    while position < len(content):
        size_at, type_at = (position, position + 4) if is_png else (position + 4, position)
        size = int.from_bytes(content[size_at : size_at + 4], "big" if is_png else "little")
        yield content[type_at : type_at + 4]
        # A part of PNG ends with a checksum; one of WebP has an even number of bytes.
        position += 12 + size if is_png else 8 + size + size % 2
