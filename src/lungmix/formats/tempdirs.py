"""Temporary folders that exist until this process ends, or within a ``with`` block."""

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

# Code of the clean-up process: it waits until the pipe from its parent closes, which also happens when the parent is
# killed, and removes the folders.
_REAPER = "import shutil, sys; sys.stdin.buffer.read(); [shutil.rmtree(folder, True) for folder in sys.argv[1:]]"


_DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: OSError) -> bool:
    """Return True for the error of a full disk or an exhausted quota."""
    return error.errno in _DISK_FULL_ERRORS


def usable_bytes(folder: Path) -> int:
    """Return the bytes that temporary files in a folder may occupy: half of the free space."""
    return shutil.disk_usage(folder).free // 2


def disk_full_error(path: str | Path, needed: int | None = None) -> SourceError:
    """Return the error for a source whose temporary files do not fit on the disk.

    Parameters
    ----------
    path : str or Path
        The source.
    needed : int, optional
        Size of the temporary files in bytes, if it is known.
    """
    folder = tempfile.gettempdir()
    size = "more space than there is" if needed is None else _size_text(needed)
    return SourceError(
        f"{mark_path(path)} needs {size} for temporary files: {mark_untrusted(folder)} may take "
        f"{_size_text(usable_bytes(Path(folder)))} (half of its free space); "
        "set TMPDIR to a folder with more free space"
    )


def _size_text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder for a few small files; it is removed after the ``with`` block.

    Parameters
    ----------
    path : Path
        The source, for messages.

    Raises
    ------
    SourceError
        If no temporary file can be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="lungmix-") as folder:
            yield Path(folder)
    except OSError as error:
        raise temporary_files_error(path, error) from None


def temporary_files_error(path: str | Path, error: OSError) -> SourceError:
    """Return the error for a source that needs temporary files where none can be written."""
    if is_disk_full(error):
        return disk_full_error(path)
    return SourceError(
        f"{mark_path(path)} needs temporary files, which cannot be written ({error.strerror}): set TMPDIR to a "
        "writable folder"
    )


def process_temporary_folder() -> Path:
    """Return a new folder that is removed when this process ends, however it ends.

    A separate clean-up process removes it. That process has a session of its own, so it also runs if this process is
    killed, or if the terminal ends the whole process group.
    """
    folder, reaper = _create_with_reaper()
    atexit.register(_remove, reaper, folder)
    return folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder that is removed after the ``with`` block, even if the process is killed within it."""
    folder, reaper = _create_with_reaper()
    try:
        yield folder
    finally:
        _remove(reaper, folder)


def _create_with_reaper() -> tuple[Path, subprocess.Popen[bytes]]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="lungmix-"))
    except OSError as error:
        raise SourceError(
            f"no temporary folder can be created ({error.strerror}): set TMPDIR to a writable folder"
        ) from None
    reaper = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _REAPER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    return folder, reaper


def _remove(reaper: subprocess.Popen[bytes], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    reaper.communicate()
