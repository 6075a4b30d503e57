"""Unpacking of untrusted zip and tar archives into a temporary folder, with limits on sizes, numbers and names."""

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
from lungmix.formats.limits import MAX_EXPANSION, MIN_UNPACKED_BYTES
from lungmix.formats.native import local_name
from lungmix.formats.tempdirs import disk_full_error, is_disk_full, process_temporary_folder, usable_bytes

ENDINGS = (".zip", ".tar", ".tgz", ".tbz2", ".tbz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
"""Endings of the file names of archives that are read."""

# Limits of an archive: number of files, bytes of all files, folder levels, characters of a path.
MAX_MEMBERS = 100_000
MAX_BYTES = 64 << 30
MAX_DEPTH = 32
MAX_NAME_LENGTH = 1024

# Limits of metadata: the directory of a zip file, and the headers of each file in a tar file.
_MAX_DIRECTORY_BYTES = 32 << 20
_MAX_TAR_HEADER_BYTES = 1 << 20
_LZMA_MEMORY = 256 << 20
_READ_BYTES = 1 << 20
_BLOCK = 512
_ZIP_CODINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)

Member = tuple[str, int, IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Return True if a file is named like a zip or tar archive (`ENDINGS`)."""
    return path.name.lower().endswith(ENDINGS)


def unpack(path: Path, target: Path | None = None) -> Path:
    """Unpack the regular files of an archive, without links.

    Parameters
    ----------
    path : Path
        The archive.
    target : Path, optional
        Empty folder to unpack to; it is removed if the archive is rejected.

    Returns
    -------
    Path
        `target`, or a new folder that is removed when this process ends.

    Raises
    ------
    SourceError
        If the archive is corrupt, contains paths outside itself or exceeds the limits.
    """
    if path.stat().st_size == 0:
        raise SourceError(f"{mark_path(path)} is empty: get the file again")
    target = target or process_temporary_folder()
    budget = min(MAX_BYTES, path.stat().st_size * MAX_EXPANSION + MIN_UNPACKED_BYTES)
    free_bytes = usable_bytes(target)
    is_zip = path.name.lower().endswith(".zip")
    names: set[str] = set()
    written = 0
    try:
        with closing(_zip_members(path, budget, free_bytes) if is_zip else _tar_members(path, budget)) as members:
            for number, (name, size, stream) in enumerate(members):
                if number >= MAX_MEMBERS or written + size > budget:
                    raise _too_large_error(path)
                if stream is not None:
                    if written + size > free_bytes:
                        raise disk_full_error(path, written + size)
                    _write(target / local_name(str(_member_path(path, name, names))), stream, size)
                    written += size
    except SourceError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    except UnicodeDecodeError:
        shutil.rmtree(target, ignore_errors=True)
        raise SourceError(
            f"{mark_path(path)} declares its file names to be UTF-8, but they are not: unpack it by "
            "hand and give the folder"
        ) from None
    except Exception as error:  # archive libraries raise any error for a corrupt field
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError) and is_disk_full(error):
            raise disk_full_error(path) from None
        raise SourceError(
            f"{mark_path(path)} is a corrupt or protected archive: unpack it by hand and give the folder"
        ) from None
    return target


def _too_large_error(path: Path) -> SourceError:
    return SourceError(
        f"{mark_path(path)} exceeds the limits of size, number of files or folder depth for archives: unpack it by "
        "hand and give the folder"
    )


def _zip_members(path: Path, budget: int, free_bytes: int) -> Generator[Member, None, None]:
    with path.open("rb") as file:
        _check_directory(path, file)
        with zipfile.ZipFile(file) as archive:
            unpacked_bytes = sum(info.file_size for info in archive.infolist())
            if len(archive.infolist()) > MAX_MEMBERS or unpacked_bytes > budget:
                raise _too_large_error(path)
            if unpacked_bytes > free_bytes:
                raise disk_full_error(path, unpacked_bytes)
            for info in archive.infolist():
                # The upper half of the attributes holds the Unix mode.
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir() or kind not in (0, stat.S_IFREG):
                    yield info.filename, 0, None
                    continue
                if info.compress_type not in _ZIP_CODINGS:
                    raise SourceError(
                        f"{mark_path(path)} has an unsupported compression: unpack it by hand and give the folder"
                    )
                with archive.open(info) as stream:
                    yield info.filename, info.file_size, stream


def _check_directory(path: Path, file: IO[bytes]) -> None:
    """Raise `SourceError` if the directory of a zip file has more than 32 MiB, before it is read into memory."""
    end = file.seek(0, 2)
    file.seek(max(end - (1 << 16) - 98, 0))
    tail = file.read()
    position = tail.rfind(b"PK\5\6")
    size = int.from_bytes(tail[position + 12 : position + 16], "little") if position >= 0 else 0
    zip64_position = tail.rfind(b"PK\6\6", 0, max(position, 0))
    if zip64_position >= 0:
        size = max(
            size if size != 0xFFFFFFFF else 0, int.from_bytes(tail[zip64_position + 40 : zip64_position + 48], "little")
        )
    if size > _MAX_DIRECTORY_BYTES:
        raise _too_large_error(path)
    file.seek(0)


def _tar_members(path: Path, budget: int) -> Generator[Member, None, None]:
    with _decompressed(path) as inner:
        stream = _Bounded(inner, path, budget + MAX_MEMBERS * 1024)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            while True:
                stream.allow(_MAX_TAR_HEADER_BYTES)
                info = archive.next()
                if info is None:
                    stream.finish()
                    return
                if not info.isreg() or info.issparse():
                    yield info.name, 0, None
                    continue
                stream.allow(info.size + _MAX_TAR_HEADER_BYTES)
                member = archive.extractfile(info)
                if member is not None:
                    with member:
                        yield info.name, info.size, member


@contextmanager
def _decompressed(path: Path) -> Generator[Any, None, None]:
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
    """Stream of the decompressed bytes of an xz file; it limits memory, which `lzma.LZMAFile` cannot."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._inflate = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY)

    def read(self, size: int) -> bytes:
        while not self._inflate.eof:
            block = self._file.read(_READ_BYTES) if self._inflate.needs_input else b""
            out = self._inflate.decompress(block, max_length=size)
            if out:
                return out
            if not block and self._inflate.needs_input:
                raise EOFError
        return b""


class _Bounded:
    """Stream with two limits: `max_bytes` in all, and the bytes that may be read after each call of `allow`.

    A read beyond a limit raises the error for an archive that is too large.
    """

    def __init__(self, stream: Any, path: Path, max_bytes: int):
        self._stream, self._path, self._remaining, self._allowed = stream, path, max_bytes, _MAX_TAR_HEADER_BYTES
        self._last = b""

    def allow(self, size: int) -> None:
        self._allowed = size

    def read(self, size: int) -> bytes:
        block: bytes = self._stream.read(size)
        self._remaining -= len(block)
        self._allowed -= len(block)
        if self._remaining < 0 or self._allowed < 0:
            raise _too_large_error(self._path)
        self._last = block or self._last
        return block

    def finish(self) -> None:
        """Read to the end; raise `EOFError` if the tar file does not end with a block of zeros, as if truncated."""
        self.allow(self._remaining)
        end = self._last[-_BLOCK:]
        while block := self.read(_READ_BYTES):
            end += block.lstrip(b"\0")
        if end.strip(b"\0") or len(end) < _BLOCK:
            raise EOFError


def relative_member_path(name: str) -> PurePosixPath | None:
    """Return an untrusted path as a relative path in a folder; None if it is empty, or may lead out of the folder."""
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or ":" in name or "\0" in name or not inner.parts:
        return None
    return inner


def _member_path(path: Path, name: str, names: set[str]) -> PurePosixPath:
    """Return the relative path of a file in the archive, and add it to `names`.

    Raises
    ------
    SourceError
        If the path leads out of the folder, exceeds the limits of depth and length, or is in `names` already.
    """
    inner = relative_member_path(name)
    if inner is None:
        raise SourceError(
            f"{mark_path(path)} has a file that would be unpacked outside its folder: unpack it by hand and give the "
            "folder"
        )
    if len(inner.parts) > MAX_DEPTH or len(name) > MAX_NAME_LENGTH:
        raise _too_large_error(path)
    if str(inner) in names:
        raise SourceError(f"{mark_path(path)} holds two files of the same name: unpack it by hand and give the folder")
    names.add(str(inner))
    return inner


def _write(file: Path, stream: IO[bytes], size: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with file.open("xb") as out:
        while block := stream.read(_READ_BYTES):
            written += len(block)
            if written > size:
                break
            out.write(block)
    if written != size:
        raise EOFError
