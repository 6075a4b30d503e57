"""Archives from strangers: unpacked within bounds, into a folder that goes with the process."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lungmix.errors import SourceError, mark_path
from lungmix.formats.limits import FREE_ON_DISK, MOST_EXPANSION
from lungmix.formats.native import local_name
from lungmix.formats.tempdirs import is_full, no_room, passing_folder, room_in

_ENDINGS = (".zip", ".tar", ".tgz", ".tbz2", ".tbz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")

MOST_MEMBERS = 100_000
MOST_BYTES = 64 << 30
DEEPEST = 32
LONGEST_NAME = 1024

# What an archive says about its members, before they are read: a zip file's directory, the headers of one in a tar.
_LARGEST_DIRECTORY = 32 << 20
_LARGEST_TAR_HEADER = 1 << 20
_LZMA_MEMORY = 256 << 20
_PIECE = 1 << 20
_BLOCK = 512
_ZIP_CODINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)

Member = tuple[str, int, IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Return True for the name of a zip or tar archive that is read."""
    return path.name.lower().endswith(_ENDINGS)


def unpack(path: Path, target: Path | None = None) -> Path:
    """Unpack an archive; links and everything that is no plain file are left out.

    Parameters
    ----------
    path : Path
        The archive.
    target : Path, optional
        An empty folder; removed if the archive is refused.

    Returns
    -------
    Path
        `target`, or else a new folder, removed when this process ends.

    Raises
    ------
    SourceError
        If the archive is damaged, names paths outside itself or is larger than its bounds.
    """
    if path.stat().st_size == 0:
        raise SourceError(f"{mark_path(path)} is empty: get the file again")
    target = target or passing_folder()
    budget = min(MOST_BYTES, path.stat().st_size * MOST_EXPANSION + FREE_ON_DISK)
    room = room_in(target)
    is_zip = path.name.lower().endswith(".zip")
    names: set[str] = set()
    written = 0
    try:
        with closing(_zip_members(path, budget, room) if is_zip else _tar_members(path, budget)) as members:
            for number, (name, size, stream) in enumerate(members):
                if number >= MOST_MEMBERS or written + size > budget:
                    raise _too_much(path)
                if stream is not None:
                    if written + size > room:
                        raise no_room(path, written + size)
                    _write(target / local_name(str(_place(path, name, names))), stream, size)
                    written += size
    except SourceError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    except UnicodeDecodeError:
        shutil.rmtree(target, ignore_errors=True)
        raise SourceError(
            f"{mark_path(path)} declares that the names of its files are UTF-8, and they are not: unpack it by hand "
            "and "
            "give the folder"
        ) from None
    except Exception as error:  # archive libraries raise whatever a damaged field leads to
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError) and is_full(error):
            raise no_room(path) from None
        raise SourceError(
            f"{mark_path(path)} is a damaged or protected archive: unpack it by hand and give the folder"
        ) from None
    return target


def _too_much(path: Path) -> SourceError:
    return SourceError(f"{mark_path(path)} unpacks to more than is reasonable: unpack it by hand and give the folder")


def _zip_members(path: Path, budget: int, room: int) -> Generator[Member, None, None]:
    with path.open("rb") as file:
        _check_directory(path, file)
        with zipfile.ZipFile(file) as archive:
            needed = sum(info.file_size for info in archive.infolist())
            if len(archive.infolist()) > MOST_MEMBERS or needed > budget:
                raise _too_much(path)
            if needed > room:
                raise no_room(path, needed)
            for info in archive.infolist():
                # The upper half of the attributes holds the Unix mode.
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir() or kind not in (0, stat.S_IFREG):
                    yield info.filename, 0, None
                    continue
                if info.compress_type not in _ZIP_CODINGS:
                    raise SourceError(
                        f"{mark_path(path)} is packed in a way that is not read: unpack it by hand and give the folder"
                    )
                with archive.open(info) as stream:
                    yield info.filename, info.file_size, stream


def _check_directory(path: Path, file: IO[bytes]) -> None:
    """Refuse a directory of more entries than are read, before it is in memory."""
    end = file.seek(0, 2)
    file.seek(max(end - (1 << 16) - 98, 0))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    size = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
    wide = tail.rfind(b"PK\6\6", 0, max(at, 0))
    if wide >= 0:
        size = max(size if size != 0xFFFFFFFF else 0, int.from_bytes(tail[wide + 40 : wide + 48], "little"))
    if size > _LARGEST_DIRECTORY:
        raise _too_much(path)
    file.seek(0)


def _tar_members(path: Path, budget: int) -> Generator[Member, None, None]:
    with _inflated(path) as inner:
        stream = _Bounded(inner, path, budget + MOST_MEMBERS * 1024)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            while True:
                stream.allow(_LARGEST_TAR_HEADER)
                info = archive.next()
                if info is None:
                    stream.finish()
                    return
                if not info.isreg() or info.issparse():
                    yield info.name, 0, None
                    continue
                stream.allow(info.size + _LARGEST_TAR_HEADER)
                member = archive.extractfile(info)
                if member is not None:
                    with member:
                        yield info.name, info.size, member


@contextmanager
def _inflated(path: Path) -> Generator[Any, None, None]:
    with path.open("rb") as file:
        beginning = file.read(6)
        file.seek(0)
        if beginning.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream
        elif beginning.startswith(b"BZh"):
            with bz2.BZ2File(file) as stream:
                yield stream
        elif beginning == b"\xfd7zXZ\0":
            yield _Xz(file)
        else:
            yield file


class _Xz:
    """An xz stream within bounded memory, which `lzma.LZMAFile` does not offer."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._inflate = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)

    def read(self, size: int) -> bytes:
        while not self._inflate.eof:
            piece = self._file.read(_PIECE) if self._inflate.needs_input else b""
            out = self._inflate.decompress(piece, max_length=size)
            if out:
                return out
            if not piece and self._inflate.needs_input:
                raise EOFError
        return b""


class _Bounded:
    """A stream that gives so much, until more is allowed, and never more than so much in all."""

    def __init__(self, stream: Any, path: Path, most: int):
        self._stream, self._path, self._left, self._allowed = stream, path, most, _LARGEST_TAR_HEADER
        self._last = b""

    def allow(self, size: int) -> None:
        self._allowed = size

    def read(self, size: int) -> bytes:
        piece: bytes = self._stream.read(size)
        self._left -= len(piece)
        self._allowed -= len(piece)
        if self._left < 0 or self._allowed < 0:
            raise _too_much(self._path)
        self._last = piece or self._last
        return piece

    def finish(self) -> None:
        """Refuse a tar file that ends without its mark, blocks of zeros: it may have been cut between two members."""
        self.allow(self._left)
        end = self._last[-_BLOCK:]
        while piece := self.read(_PIECE):
            end += piece.lstrip(b"\0")
        if end.strip(b"\0") or len(end) < _BLOCK:
            raise EOFError


def inside(name: str) -> PurePosixPath | None:
    """A path from strangers as one inside a folder; None if it leads out of it."""
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or ":" in name or "\0" in name or not inner.parts:
        return None
    return inner


def _place(path: Path, name: str, names: set[str]) -> PurePosixPath:
    """Where a member goes: inside, not too deep, and nowhere another one went."""
    inner = inside(name)
    if inner is None:
        raise SourceError(f"{mark_path(path)} names a path outside itself: unpack it by hand and give the folder")
    if len(inner.parts) > DEEPEST or len(name) > LONGEST_NAME:
        raise _too_much(path)
    if str(inner) in names:
        raise SourceError(f"{mark_path(path)} holds two files of one name: unpack it by hand and give the folder")
    names.add(str(inner))
    return inner


def _write(file: Path, stream: IO[bytes], size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with file.open("xb") as out:
        while piece := stream.read(_PIECE):
            written += len(piece)
            if written > size:
                break
            out.write(piece)
    if written != size:
        raise EOFError
