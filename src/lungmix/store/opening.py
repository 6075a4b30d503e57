"""Opening, creation and repair of the group of a store."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Literal

import zarr
from zarr.abc.store import Store

from lungmix._version import __version__
from lungmix.errors import LockedError, StoreError, StoreNotFoundError
from lungmix.store import zarr_adapter
from lungmix.store.case_registry import read_register
from lungmix.store.lock import locked
from lungmix.store.metadata import ATTRIBUTE, MISSING, check_cohort_metadata, check_cohort_settings, read_cases
from lungmix.store.remote import BucketStore
from lungmix.store.schema import REGISTER_FILE
from lungmix.store.zarr_adapter import bytes_of_metadata, group_at, open_group

FORMAT_VERSION = 2

Mode = Literal["r", "r+", "a"]


def check_folder(path: Path, *, creating: bool) -> None:
    """Raise an error unless a folder holds a store, or may hold a new store.

    Parameters
    ----------
    path : Path
        The folder.
    creating : bool
        True if a missing or empty folder is accepted, in which a store can be created.

    Raises
    ------
    StoreError
        If the path is a file, or a folder with other files, or if it holds no store and `creating` is False.
    """
    if path.is_file():
        raise StoreError(f"{path} is a file, not a store: give a folder")
    if (path / REGISTER_FILE).is_file():
        return
    if path.is_dir() and any(path.iterdir()) and not (path / "zarr.json").is_file():
        raise StoreError(f"{path} holds other files and is not a lungmix store: give a new or empty folder")
    if not creating and not (path / "zarr.json").is_file():
        raise _no_store(str(path))


def _no_store(location: str) -> StoreNotFoundError:
    return StoreNotFoundError(f"there is no store at {location}: make one with `lungmix.run(store, sources)`")


def root_group(store: Store, location: str, mode: Mode, *, is_locked: bool = False) -> zarr.Group:
    """Return the group of a store; with mode ``a``, create a missing group and repair a corrupt one.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The zarr store.
    location : str
        Address of the store, for messages.
    mode : {"r", "r+", "a"}
        See `lungmix.store.open_cohort`.
    is_locked : bool
        True if this process holds the lock of the store, which a repair needs.

    Raises
    ------
    StoreError
        If there is no store, or the group is that of another program, of another version or corrupt.
    """
    try:
        group = _open_or_repair(store, location, mode, is_locked=is_locked)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        if mode != "a":
            _check_bucket(store)
            raise _no_store(location) from None
        group = _new_group(store)
    attributes = group.attrs.get(ATTRIBUTE)
    if not isinstance(attributes, dict) or "format_version" not in attributes:
        raise StoreError(f"{location} is a zarr group but not a lungmix store: give another address")
    if attributes["format_version"] != FORMAT_VERSION:
        raise StoreError(
            f"{location} has format version {attributes['format_version']}, this lungmix reads version "
            f"{FORMAT_VERSION}: use the lungmix that wrote it, or convert the scans into a new store"
        )
    return group


def _check_bucket(store: Store) -> None:
    """Raise `StoreError` if a bucket does not exist, which otherwise would look like a missing store."""
    if isinstance(store, BucketStore):
        zarr_adapter.sync(store.check_bucket())


def _new_group(store: Store) -> zarr.Group:
    """Create the group of a store, unless another process has just created it, and return it."""
    settings = {"format_version": FORMAT_VERSION, "lungmix_version": __version__, "salt": secrets.token_hex(16)}
    zarr_adapter.write(store, "zarr.json", bytes_of_metadata({ATTRIBUTE: settings}), unless_exists=True)
    return open_group(store)


def _open_or_repair(store: Store, location: str, mode: Mode, *, is_locked: bool) -> zarr.Group:
    """Return the group of a store; with mode ``a``, repair a corrupt ``zarr.json``."""
    try:
        group = open_group(store, "r" if mode == "r" else "r+")
        attributes = group.attrs.get(ATTRIBUTE)
    except StoreError:  # of an object store
        raise
    except Exception as error:
        content = zarr_adapter.read(store, "zarr.json")
        fault = check_cohort_metadata(content) or (
            MISSING if content is None and read_register(group_at(store)).cases else None
        )
        if fault is None or (isinstance(error, zarr.errors.ContainsArrayError) and not _is_ours(store)):
            raise
    else:
        fault = check_cohort_settings(attributes)
        if fault is None and attributes is None and _is_ours(store):
            fault = check_cohort_settings({})
        if fault is None:
            return group
    if not _is_ours(store):
        raise StoreError(f"{location} holds a zarr.json that {fault}, and no case: give a new or empty folder")
    if mode != "a":
        raise StoreError(
            f"{location}: its zarr.json {fault}: run `Pipeline.run(sources)` with a scan of this store; the run "
            "rewrites zarr.json and keeps all cases"
        )
    if not is_locked:
        # Another process may have repaired it meanwhile and recorded settings, so it is read again under the lock.
        with suppress(LockedError), locked(store, location):
            return _open_or_repair(store, location, mode, is_locked=True)
    return _repair(store, is_locked=is_locked)


def _is_ours(store: Store) -> bool:
    root = group_at(store)
    return bool(read_register(root).cases) or any(isinstance(case, zarr.Group) for _, case in read_cases(root))


def _repair(store: Store, *, is_locked: bool) -> zarr.Group:
    """Return the group of a store with default metadata, in place of corrupt ones; the record of its fit is lost.

    The metadata are written only if this process holds the lock; a process that takes the lock later reads them again.
    """
    salt = read_register(group_at(store)).salt
    settings = {"format_version": FORMAT_VERSION, "lungmix_version": __version__} | ({"salt": salt} if salt else {})
    if is_locked:
        zarr_adapter.write(store, "zarr.json", bytes_of_metadata({ATTRIBUTE: settings}))
    return group_at(store, attributes={ATTRIBUTE: settings})
