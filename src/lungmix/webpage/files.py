"""Atomic writes of the files of a report."""

from __future__ import annotations

from pathlib import Path

from lungmix.atomic import atomic_write
from lungmix.errors import UsageError


def publish(path: Path, content: bytes) -> None:
    """Write a file atomically: under a temporary name in its folder, which is then renamed.

    Raises
    ------
    UsageError
        If the folder cannot be written.
    """
    try:
        with atomic_write(path) as partial_path:
            partial_path.write_bytes(content)
    except OSError as error:
        raise UsageError(
            f"{path.parent} cannot be written ({error.strerror}): free space on its disk, or give another folder"
        ) from error
