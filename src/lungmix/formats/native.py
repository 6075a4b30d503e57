"""Names of files for libraries that take text in UTF-8 alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungmix.formats.tempdirs import scratch


def local_name(name: str) -> str:
    """Return a name that was decoded as UTF-8, with ``surrogateescape``, as this machine decodes names of files."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


@contextmanager
def native_path(file: str) -> Iterator[str]:
    """Give a path of a file that C++ libraries take, for the length of a block.

    A name with bytes that are no UTF-8 raises in SimpleITK's bindings, or ends the process. A link of a plain name
    stands for such a file.
    """
    if _is_text(file):
        yield file
        return
    with scratch(Path(file)) as folder:
        link = folder / "file"
        os.symlink(Path(file).absolute(), link)  # noqa: PTH211
        yield str(link)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
