"""Folders that are there for as long as this process is, or a block of it."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Waits until the pipe from its parent closes, which a killed parent does too.
_REMOVE = "import shutil, sys; sys.stdin.buffer.read(); [shutil.rmtree(folder, True) for folder in sys.argv[1:]]"


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
    folder = Path(tempfile.mkdtemp(prefix="lungmix-"))
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
