"""Compiled kernels, and where their machine code is kept: beside the modules, in a folder of the user, or in memory.

numba refuses to import a function that is to be cached where no folder can be written, and looks into one folder only,
so that what was compiled as an image was built serves nobody but its builder. Here a kernel is looked for in every
folder that can be read, is kept in the first that can be written, and works without any. Importing writes nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numba


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function when it is first called, without Python's lock, and keep its machine code.

    Parameters
    ----------
    **options
        Of `numba.njit`, such as ``fastmath`` and ``inline``.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(nogil=True, **options)(function)
        if hasattr(dispatcher, "_cache"):
            dispatcher._cache = LayeredCache(function)
        return dispatcher

    return compiled


def cache_folders(file: Path) -> Iterator[Path]:
    """Folders that may hold the machine code of a module, in the order in which they are looked into and written to.

    ``NUMBA_CACHE_DIR``, ``__pycache__`` beside the module, numba's folder in the user's cache, and a folder for
    temporary files that nobody else can write.

    Parameters
    ----------
    file : Path
        Of the module.
    """
    folder = f"{file.parent.name}_{hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:32]}"
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR).absolute() / folder
    yield file.parent / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  # "~" where there is none
    if Path(home).is_absolute():
        yield Path(home) / "numba" / folder
    if (temporary := _temporary()) is not None:
        yield temporary / folder


def source_stamp(function: Callable[..., Any]) -> bytes:
    """Digest of the modules that the machine code of a kernel comes from: its own and its callees'."""
    files: set[str] = set()
    todo = [function]
    while todo:
        one = todo.pop()
        if one.__code__.co_filename not in files:
            files.add(one.__code__.co_filename)
            todo += [used.py_func for used in one.__globals__.values() if hasattr(used, "py_func")]
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: Path(file).name):
        digest.update(Path(file).read_bytes())
    return digest.digest()


class LayeredCache:
    """Cache of one function in several folders, none of which has to be readable or writable; numba calls it.

    Parameters
    ----------
    function : callable
        What was compiled.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    @cached_property
    def _caches(self) -> list[Any]:
        file = Path(self._function.__code__.co_filename)
        with suppress(Exception):  # no source, or numba is not as it was known
            return [_cache_in()(folder, self._function) for folder in cache_folders(file)]
        return []

    @property
    def cache_path(self) -> str | None:
        """First folder that is looked into."""
        return str(self._caches[0].cache_path) if self._caches else None

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Machine code for a signature, from the first folder that has it; None if none has."""
        for cache in self._caches:
            with suppress(Exception):  # not readable, or cut short: the same as not there
                found = cache.load_overload(signature, target) if is_trusted(Path(cache.cache_path)) else None
                if found is not None:
                    return found
        return None

    def save_overload(self, signature: Any, code: Any) -> None:
        """Keep machine code in the first folder that takes it, if any does."""
        for cache in self._caches:
            with suppress(Exception):
                cache.save_overload(signature, code)
                return

    def enable(self) -> None:
        """Use the folders."""
        for cache in self._caches:
            cache.enable()

    def disable(self) -> None:
        """Use none of the folders."""
        for cache in self._caches:
            cache.disable()

    def flush(self) -> None:
        """Forget what can be forgotten."""
        for cache in self._caches:
            with suppress(OSError):
                cache.flush()


@lru_cache(maxsize=1)
def _cache_in() -> Any:
    """Class of numba's cache of a function in a given folder; an error where numba's parts are not those known."""
    base: Any = import_module("numba.core.caching").FunctionCache

    class Implementation(base._impl_class):
        def __init__(self, folder: Path, function: Callable[..., Any]):
            self._locator_classes = [_Locator(folder, function)]
            super().__init__(function)

    class CacheIn(base):
        def __init__(self, folder: Path, function: Callable[..., Any]):
            self._impl_class = partial(Implementation, folder)
            super().__init__(function)

    return CacheIn


class _Locator:
    """Answers what numba asks about the place of a cache."""

    def __init__(self, folder: Path, function: Callable[..., Any]):
        self._folder, self._function = folder, function
        self._py_file = function.__code__.co_filename  # numba's warnings name it

    def from_function(self, function: Callable[..., Any], file: str) -> _Locator:
        return self

    def ensure_cache_path(self) -> None:
        if self._folder.parent == _temporary():
            self._folder.parent.mkdir(mode=0o700, exist_ok=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        if not is_trusted(self._folder):
            raise PermissionError(f"{self._folder} can be written by others")
        tempfile.TemporaryFile(dir=self._folder).close()

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> bytes:
        return source_stamp(self._function)

    def get_disambiguator(self) -> str:
        return str(self._function.__code__.co_firstlineno)


def is_trusted(folder: Path) -> bool:
    """Whether machine code from a folder may be run: of those for temporary files only one that is the user's alone."""
    if folder.parent != _temporary():
        return True
    try:
        state = folder.parent.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o022


@lru_cache(maxsize=1)
def _temporary() -> Path | None:
    """Folder for temporary files of this user; None where there is no room for any."""
    try:
        return Path(tempfile.gettempdir()) / f"lungmix-kernels-{os.geteuid()}"
    except (OSError, AttributeError):
        return None
