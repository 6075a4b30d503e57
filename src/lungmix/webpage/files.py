"""Files of a page: each appears as a whole or not at all."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from lungmix.errors import UsageError


def publish(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    passing = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        passing.write_bytes(content)
        passing.replace(path)
    except OSError as error:
        with suppress(OSError):
            passing.unlink()
        raise UsageError(
            f"{path.parent} cannot be written ({error.strerror}): free its disk or give another folder"
        ) from error
