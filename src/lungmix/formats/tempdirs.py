"""Folders that are there for as long as this process is, or a block of it."""

from __future__ import annotations

import atexit
import errno
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungmix.errors import SourceError, mark_path, mark_untrusted

# Waits until the pipe from its parent closes, which a killed parent does too.
_REMOVE = "import shutil, sys; sys.stdin.buffer.read(); [shutil.rmtree(folder, True) for folder in sys.argv[1:]]"


_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Return True where a disk has no room left for a file."""
    return error.errno in _FULL


def room_in(folder: Path) -> int:
    """Return the bytes that may be written below a folder of temporary files: half of what is free."""
    return shutil.disk_usage(folder).free // 2


def no_room(path: str | Path, needed: int | None = None) -> SourceError:
    """Return the error of a source for whose temporary files the disk has no room.

    Parameters
    ----------
    path : str or Path
        The source.
    needed : int, optional
        Bytes; left out where nobody knows before the disk is full.
    """
    folder = tempfile.gettempdir()
    wanted = "more room than there is" if needed is None else f"{_size(needed)} of room"
    return SourceError(
        f"{mark_path(path)} needs {wanted} for temporary files: {mark_untrusted(folder)} may take "
        f"{_size(room_in(Path(folder)))} "
        "(half of what is free); set TMPDIR to a folder with more room"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Give a new folder for a few small files of a source for the length of a block.

    Raises
    ------
    SourceError
        If no temporary file can be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="lungmix-") as folder:
            yield Path(folder)
    except OSError as error:
        raise no_temporary_files(path, error) from None


def no_temporary_files(path: str | Path, error: OSError) -> SourceError:
    """Return the error of a source that needs temporary files where none can be written."""
    if is_full(error):
        return no_room(path)
    return SourceError(
        f"{mark_path(path)} needs temporary files, which cannot be written ({error.strerror}): set TMPDIR to a "
        "folder that "
        "can be written"
    )


def passing_folder() -> Path:
    """A new folder, removed when this process ends, however it ends.

    A process of its own watches over it: neither a signal to the group of a terminal's command nor the end of this
    process by force keeps the folder from being removed.
    """
    folder, watch = _watched()
    atexit.register(_end, watch, folder)
    return folder


@contextmanager
def passing() -> Iterator[Path]:
    """A new folder for the length of a block, removed too if the process ends within it, however it ends."""
    folder, watch = _watched()
    try:
        yield folder
    finally:
        _end(watch, folder)


def _watched() -> tuple[Path, subprocess.Popen[bytes]]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="lungmix-"))
    except OSError as error:
        raise SourceError(
            f"no temporary folder can be made ({error.strerror}): set TMPDIR to a folder that can be written"
        ) from None
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _REMOVE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    return folder, watch


def _end(watch: subprocess.Popen[bytes], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    watch.communicate()
