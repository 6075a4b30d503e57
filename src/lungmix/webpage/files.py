"""Atomic writes of the files of a report."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from lungmix.errors import UsageError


def publish(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder and rename it.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path.write_bytes(content)
        partial_path.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial_path.unlink()
        raise UsageError(
            f"{path.parent} cannot be written ({error.strerror}): free its disk or give another folder"
        ) from error
