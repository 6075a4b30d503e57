"""Archives from strangers: unpacked within bounds, into a folder that goes with the process."""

from __future__ import annotations

import atexit
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from lungmix.errors import SourceError

_MOST_MEMBERS = 100_000
_MOST_BYTES = 64 << 30
_MOST_EXPANSION = 200
_FREE_EXPANSION = 1 << 30
_PIECE = 1 << 20

Member = tuple[str, int, IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether the name is that of a zip or tar archive."""
    name = path.name.lower()
    return name.endswith((".zip", ".tar", ".tgz", ".tbz2", ".txz")) or ".tar." in name


def unpack(path: Path) -> Path:
    """Unpack an archive; links and everything that is no plain file are left out.

    Returns
    -------
    Path
        A new folder, removed when this process ends.

    Raises
    ------
    SourceError
        If the archive is damaged, names paths outside itself or is larger than its bounds.
    """
    target = Path(tempfile.mkdtemp(prefix="lungmix-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    budget = min(
        _MOST_BYTES,
        path.stat().st_size * _MOST_EXPANSION + _FREE_EXPANSION,
        shutil.disk_usage(target).free // 2,
    )
    members = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
    try:
        with closing(members):
            for number, (name, size, stream) in enumerate(members):
                if number >= _MOST_MEMBERS or size > budget:
                    raise SourceError(
                        f"{path.name} unpacks to more than is reasonable: unpack it by hand and give the folder"
                    )
                budget -= _write(target, name, stream, budget, path.name)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        NotImplementedError,
    ):
        raise SourceError(
            f"{path.name} is a damaged or protected archive: unpack it by hand and give the folder"
        ) from None
    return target


def _zip_members(path: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # The upper half of the attributes holds the Unix mode; 0o12 is a link.
            if info.is_dir() or info.external_attr >> 28 == 0o12:
                continue
            with archive.open(info) as stream:
                yield info.filename, info.file_size, stream


def _tar_members(path: Path) -> Generator[Member, None, None]:
    with tarfile.open(path) as archive:
        for info in archive:
            if not info.isreg():
                continue
            stream = archive.extractfile(info)
            if stream is not None:
                with stream:
                    yield info.name, info.size, stream


def _write(target: Path, name: str, stream: IO[bytes], budget: int, archive: str) -> int:
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or ":" in name or "\0" in name:
        raise SourceError(f"{archive} names a path outside itself: unpack it by hand and give the folder")
    file = target / inner
    file.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with file.open("wb") as out:
        while piece := stream.read(_PIECE):
            written += len(piece)
            if written > budget:
                raise SourceError(
                    f"{archive} unpacks to more than is reasonable: unpack it by hand and give the folder"
                )
            out.write(piece)
    return written
