"""Folders that are there for as long as this process is."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Waits until the pipe from its parent closes, which a killed parent does too.
_REMOVE = "import shutil, sys; sys.stdin.buffer.read(); [shutil.rmtree(folder, True) for folder in sys.argv[1:]]"


def passing_folder() -> Path:
    """A new folder, removed when this process ends, however it ends.

    A process of its own watches over it: neither a signal to the group of a terminal's command nor the end of this
    process by force keeps the folder from being removed.
    """
    folder = Path(tempfile.mkdtemp(prefix="lungmix-"))
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _REMOVE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    atexit.register(_end, watch, folder)
    return folder


def _end(watch: subprocess.Popen[bytes], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    watch.communicate()
