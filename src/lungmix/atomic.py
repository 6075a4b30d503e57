"""Atomic writes: files and folders are written under a temporary name next to their own, and then renamed."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, which replaces `target` at the end of the block.

    If the block fails, the temporary file or folder is deleted, and `target` stays as it was. A folder is replaced by a
    folder only.

    Parameters
    ----------
    target : Path
        File or folder to write; its folder is created if it does not exist.

    Raises
    ------
    OSError
        If the target cannot be written, or if a file is to replace a folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Processes and threads may write one file at the same time; the last one to finish replaces it.
    partial_path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial_path
        if partial_path.is_dir() and target.is_dir():
            shutil.rmtree(target)
        partial_path.replace(target)
    finally:
        if partial_path.is_dir():
            shutil.rmtree(partial_path, ignore_errors=True)
        else:
            partial_path.unlink(missing_ok=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[BinaryIO]:
    """Yield a binary file that replaces `target` at the end of the block; see `atomic_write`."""
    with atomic_write(target) as partial_path, partial_path.open("wb") as stream:
        yield stream
