"""File names for libraries that accept only UTF-8."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungmix.errors import is_encodable
from lungmix.formats.tempdirs import scratch


def local_name(name: str) -> str:
    """Return a name decoded with the file system encoding, from the name decoded as UTF-8 (``surrogateescape``)."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


@contextmanager
def native_path(file: str) -> Iterator[str]:
    """Yield a path to a file that C++ libraries accept; it is valid within the ``with`` block.

    SimpleITK raises an error, or crashes the process, for a name that is not UTF-8. For such a file the path is that of
    a link with a plain name.
    """
    if is_encodable(file):
        yield file
        return
    with scratch(Path(file)) as folder:
        link = folder / "file"
        os.symlink(Path(file).absolute(), link)  # noqa: PTH211
        yield str(link)
