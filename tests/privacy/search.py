"""Search for words in files, also in compressed or encoded parts of them."""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow.parquet
import zarr
from PIL import Image

_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-]{24,}={0,2}")
_PERCENT = re.compile(rb"(?:%[0-9a-fA-F]{2}){4}")
_DEEPEST = 4


def find(words: Iterable[str], *places: Path) -> list[str]:
    """Return a description of each place where one of the words is: in a file name, in bytes, or in unpacked bytes."""
    needles = {word: word.lower().encode() for word in words}
    hits = []
    clean = set()
    for place in places:
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        for file in files:
            name = str(file.relative_to(place.parent)).encode()
            contents = [("its name", name)]
            digest = None
            if file.is_file():
                content = file.read_bytes()
                digest = hashlib.sha256(content).digest()
                # Copies of stores and pages contain equal files, which are searched only once.
                if digest not in clean:
                    contents += _unpacked(content, "bytes", 0)
            if file.name == "zarr.json":
                contents += _voxels(file.parent)
            before = len(hits)
            for how, content in contents:
                lower = content.lower()
                # Without its zero bytes, text with 16 or 32 bits per letter is like text with 8 bits per letter.
                dense = lower.replace(b"\0", b"") if b"\0" in lower else b""
                hits += [
                    f"{word} in {file}, {how}" for word, needle in needles.items() if needle in lower or needle in dense
                ]
            if len(hits) == before:
                clean.add(digest)
    return hits


def _unpacked(content: bytes, how: str, depth: int) -> Iterator[tuple[str, bytes]]:
    """Yield bytes and everything that they unpack to, each with a description of how it was unpacked."""
    yield how, content
    if depth == _DEEPEST:
        return
    for kind, inner in _inside(content):
        yield from _unpacked(inner, f"{how} > {kind}", depth + 1)


def _inside(content: bytes) -> Iterator[tuple[str, bytes]]:
    if _PERCENT.search(content):
        yield "percent", unquote_to_bytes(content)
    if content[:4] == b"PK\x03\x04":
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield "zip names", "\n".join(archive.namelist()).encode() + archive.comment
            for name in archive.namelist():
                yield f"zip {name}", archive.read(name)
    if content[:4] == b"PAR1":
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        yield "parquet", repr((table.to_pydict(), table.schema.metadata, table.schema.names)).encode()
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        # The bytes may be only a part of a picture.
        with suppress(OSError, SyntaxError), Image.open(io.BytesIO(content)) as image:
            yield "png text", repr((image.info, dict(getattr(image, "text", {})))).encode()
    elif content.count(b"\0") * 20 < len(content):
        # Base64 may be broken into lines.
        for match in _BASE64.finditer(content.replace(b"\r", b"").replace(b"\n", b"")):
            text = match[0].replace(b"-", b"+").replace(b"_", b"/")
            with suppress(binascii.Error):
                yield "base64", base64.b64decode(text.rstrip(b"=")[: len(text) // 4 * 4])
    for start in _starts(content, b"\x1f\x8b\x08"):
        inner = _inflated(content[start:], 31)
        if inner:
            yield "gzip", inner
    for mark in (b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"\x78\x5e"):
        for start in _starts(content, mark)[:20]:
            inner = _inflated(content[start:], 15)
            if len(inner) > 16:
                yield "zlib", inner
    if content[:1] not in (b"", b"\x1f", b"\x78"):
        inner = _inflated(content, -15)
        if len(inner) > 64:
            yield "deflate", inner


def _starts(content: bytes, mark: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(mark), content)][:50]


def _inflated(content: bytes, bits: int) -> bytes:
    inflate = zlib.decompressobj(bits)
    out = b""
    # Bytes are inflated piece by piece, so that those before a corrupt byte are searched too.
    with suppress(zlib.error):
        for start in range(0, len(content), 1 << 16):
            out += inflate.decompress(content[start : start + (1 << 16)], 1 << 28)
            if inflate.eof:
                break
    return out


def _voxels(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the attributes of a zarr node as zarr reads them, and the decoded voxels of an array."""
    node = zarr.open(folder, mode="r")
    yield "attributes", repr(dict(node.attrs)).encode()
    if isinstance(node, zarr.Array):
        yield "decoded", np.ascontiguousarray(node[:]).tobytes()


def packed(word: bytes, how: str) -> bytes:
    """Return bytes that contain a word, encoded or compressed in the way `how`."""
    filler = bytes(range(256)) * 4
    if how == "gzip after a header":
        return b"NRRD0004\n\n" + gzip.compress(filler + word)
    if how == "zlib":
        return b"header" + zlib.compress(filler + word)
    if how == "base64 of gzip":
        return b"<script>load('" + base64.b64encode(gzip.compress(filler + word)) + b"')</script>"
    if how == "utf-16":
        return b"..." + word.decode().encode("utf-16-le")
    if how == "capitals":
        return b"..." + word.upper()
    if how == "percent":
        return b"href=" + b"".join(b"%%%02X" % byte for byte in word)
    if how == "gzip in zip":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.gz", gzip.compress(word))
        return stream.getvalue()
    raise AssertionError(how)
