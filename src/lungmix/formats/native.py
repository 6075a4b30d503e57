"""File names for libraries that accept UTF-8 only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungmix.errors import is_encodable
from lungmix.formats.tempdirs import scratch


def local_name(name: str) -> str:
    """Return a name that was decoded as UTF-8, with ``surrogateescape``, in the file system encoding."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


@contextmanager
def native_path(file: str) -> Iterator[str]:
    """Yield a path of a file that C++ libraries accept, for the duration of a block.

    A name that is not UTF-8 raises in SimpleITK's bindings, or crashes the process, so a link with a plain name is
    created to such a file.
    """
    if is_encodable(file):
        yield file
        return
    with scratch(Path(file)) as folder:
        link = folder / "file"
        os.symlink(Path(file).absolute(), link)  # noqa: PTH211
        yield str(link)
