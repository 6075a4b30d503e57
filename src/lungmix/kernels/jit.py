"""Compiled kernels whose machine code is cached in several folders: next to the modules, or in a folder of the user.

numba's own cache raises an error on import if no cache folder is writable. It also reads a single folder, so that code
compiled while a container image is built serves only the user who built it. The cache of this module reads every
readable folder and writes to the first writable one. Without a readable or writable folder, kernels are compiled in
each process. Importing this module writes nothing.
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
    """Return a decorator that compiles a function on its first call and caches its machine code.

    The compiled function runs without the global interpreter lock.

    Parameters
    ----------
    **options
        Options of `numba.njit`, such as ``fastmath`` and ``inline``.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(nogil=True, **options)(function)
        if hasattr(dispatcher, "_cache"):
            dispatcher._cache = LayeredCache(function)
        return dispatcher

    return compiled


def cache_folders(file: Path) -> Iterator[Path]:
    """Yield the cache folders of a module, in the order in which they are tried.

    These are a folder in ``NUMBA_CACHE_DIR`` if that is set, ``__pycache__`` next to the module, numba's folder in the
    user's cache, and a folder for temporary files to which only the user can write.

    Parameters
    ----------
    file : Path
        File of the module.
    """
    folder = f"{file.parent.name}_{hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:32]}"
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR).absolute() / folder
    yield file.parent / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  # stays "~" without a home
    if Path(home).is_absolute():
        yield Path(home) / "numba" / folder
    if (temporary := _temporary()) is not None:
        yield temporary / folder


def source_stamp(function: Callable[..., Any]) -> bytes:
    """Return a digest of the source files of a kernel and of all kernels that it calls."""
    files: set[str] = set()
    pending = [function]
    while pending:
        callee = pending.pop()
        if callee.__code__.co_filename not in files:
            files.add(callee.__code__.co_filename)
            pending += [used.py_func for used in callee.__globals__.values() if hasattr(used, "py_func")]
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: Path(file).name):
        digest.update(Path(file).read_bytes())
    return digest.digest()


class LayeredCache:
    """Cache of the machine code of one function in several folders, in place of numba's own cache.

    None of the folders has to be readable or writable. numba calls the methods.

    Parameters
    ----------
    function : callable
        Python function that is compiled.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    @cached_property
    def _caches(self) -> list[Any]:
        file = Path(self._function.__code__.co_filename)
        with suppress(Exception):  # no source, or an incompatible version of numba
            return [_cache_in()(folder, self._function) for folder in cache_folders(file)]
        return []

    @property
    def cache_path(self) -> str | None:
        """Folder that is read first; None if there is no folder."""
        return str(self._caches[0].cache_path) if self._caches else None

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return the machine code for a signature from the first folder that has it; None if no folder has it."""
        for cache in self._caches:
            with suppress(Exception):  # unreadable or truncated: treat as missing
                code = cache.load_overload(signature, target) if is_trusted(Path(cache.cache_path)) else None
                if code is not None:
                    return code
        return None

    def save_overload(self, signature: Any, code: Any) -> None:
        """Write machine code to the first writable folder, if any."""
        for cache in self._caches:
            with suppress(Exception):
                cache.save_overload(signature, code)
                return

    def enable(self) -> None:
        """Enable the cache."""
        for cache in self._caches:
            cache.enable()

    def disable(self) -> None:
        """Disable the cache."""
        for cache in self._caches:
            cache.disable()

    def flush(self) -> None:
        """Remove the cached code from all folders that are writable."""
        for cache in self._caches:
            with suppress(OSError):
                cache.flush()


@lru_cache(maxsize=1)
def _cache_in() -> Any:
    """Return a class of numba's cache that uses a given folder.

    Raise an error if the version of numba is not compatible.
    """
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
    """Folder of a cache, with the methods that numba expects of a cache locator."""

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
            raise PermissionError(f"{self._folder} is writable by other users")
        tempfile.TemporaryFile(dir=self._folder).close()

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> bytes:
        return source_stamp(self._function)

    def get_disambiguator(self) -> str:
        return str(self._function.__code__.co_firstlineno)


def is_trusted(folder: Path) -> bool:
    """Return True if machine code from a folder may be run.

    The folder for temporary files is trusted only if it belongs to the user and nobody else can write to it. All other
    folders are trusted.
    """
    if folder.parent != _temporary():
        return True
    try:
        state = folder.parent.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o022


@lru_cache(maxsize=1)
def _temporary() -> Path | None:
    """Return the folder for temporary files of this user; None if there is none."""
    try:
        return Path(tempfile.gettempdir()) / f"lungmix-kernels-{os.geteuid()}"
    except (OSError, AttributeError):
        return None
