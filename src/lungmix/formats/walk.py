"""All files below a folder, whatever links there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TEXT_BYTES = 1024


def files_below(folder: Path) -> Iterator[Path]:
    """Plain files in the order of their names; links are followed, but into no folder twice."""
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _is_new(Path(root) / name, seen)]
        for name in sorted(names):
            file = Path(root) / name
            if file.is_file():
                yield file


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        state = folder.stat()
    except OSError:
        return False
    key = state.st_dev, state.st_ino
    if key in seen:
        return False
    seen.add(key)
    return True


def is_text(file: Path) -> bool:
    """Whether a file begins with words and has any."""
    with file.open("rb") as stream:
        beginning = stream.read(_TEXT_BYTES)
    # A character may have been cut at the end of what was read.
    text = beginning.decode("utf-8", "ignore")
    whole = len(text.encode()) >= len(beginning) - 3
    return bool(beginning) and whole and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text)


def kind_of(file: Path) -> str:
    """Extension in lower case; empty where the name has none, or numbers in its place."""
    suffix = file.suffix.lower()
    return suffix if suffix[1:].isalpha() and len(suffix) <= 7 else ""
