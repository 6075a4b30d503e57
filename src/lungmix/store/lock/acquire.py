"""Acquisition, renewal and release of the lock; a stale lock is taken over by the process that claims it first."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from zarr.abc.store import Store
from zarr.storage import LocalStore, ObjectStore

from lungmix.errors import LockedError, StoreError
from lungmix.store import zarr_adapter
from lungmix.store.lock.handle import LockHandle, claim_name, fetch_owner
from lungmix.store.lock.owner import BEAT_S, RELEASED, STALE_S, LockInfo
from lungmix.store.schema import LOCK_FILE
from lungmix.store.zarr_adapter import delete, sync

WATCH_S = 3 * BEAT_S
"""Seconds for which a stale lock of another machine is observed, as the clocks of the two machines may differ."""

_POLL_S = 1.0
_CLAIM = re.compile(r"lock-[0-9a-f]{32}\.json")


def is_of_lock(name: str) -> bool:
    """Return True if a file name is that of the lock, of a claim on it, or of a partial file of one of these."""
    return name.startswith(("lock.", "lock-"))


@contextmanager
def locked(
    store: Store, address: str, *, wait: bool = False, warn: Callable[[str], None] | None = None
) -> Iterator[LockHandle]:
    """Hold the write lock of a store within a ``with`` block.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Store to lock. It must be able to write an object only if it does not exist, as disks and S3 are.
    address : str
        Address of the store, for messages.
    wait : bool
        True to wait until another writer has ended, instead of raising an error.
    warn : callable, optional
        Called once with a message if another writer is waited for.

    Yields
    ------
    LockHandle
        The lock, for `LockCheckedStore`.

    Raises
    ------
    LockedError
        If another process has the lock; the message names the process. Also at the end of the block, if the lock was
        lost meanwhile.
    """
    lock_info = LockInfo.of_this_process()
    handle, stop = LockHandle(store, address, lock_info), threading.Event()
    heartbeat = threading.Thread(target=_renew, args=(handle, stop), name="lock", daemon=True)
    # A signal may end the process as soon as the lock exists, so it is taken within the block that removes it.
    try:
        while (owner := _take(store, LOCK_FILE, lock_info)) is not None:
            if not wait:
                raise _locked_error(address, owner)
            if warn is not None:
                warn(f"waiting for {owner}")
                warn = None
            time.sleep(_POLL_S)
        heartbeat.start()
        with suppress(OSError, StoreError):
            _delete_stale_claims(store)
        yield handle
        # A process that wrote nothing has not checked the lock yet.
        with suppress(OSError, StoreError):
            sync(handle.refresh())
        sync(handle.check())
    finally:
        handle.is_released = True
        stop.set()
        if heartbeat.is_alive():
            heartbeat.join()
        try:
            with suppress(OSError, StoreError):
                if (held := owner_of(store)) is not None and held.token == lock_info.token:
                    delete(store, LOCK_FILE)
        finally:
            # Only after the deletion: otherwise another thread could take the released lock over, and this thread would
            # delete the lock of that thread.
            RELEASED.add(lock_info.token)


def check_free(store: Store, address: str) -> None:
    """Raise `LockedError` if another process holds the lock; called before long work that needs the lock later."""
    held = owner_of(store)
    if held is not None and not held.is_gone:
        raise _locked_error(address, held)


def owner_of(store: Store) -> LockInfo | None:
    """Return the owner of the lock of a store; None if it is free."""
    return _read(store, LOCK_FILE)


def _locked_error(address: str, held: LockInfo) -> LockedError:
    return LockedError(
        f"{address} is being written to by {held}: wait for it with `wait=True`, or end it; nothing was changed",
        path=address,
    )


def _take(store: Store, key: str, lock_info: LockInfo) -> LockInfo | None:
    """Write the entry of this process to a lock or a claim; return None, or the living owner that prevents it."""
    while not _create(store, key, lock_info):
        held = _read(store, key)
        if held is None:
            continue
        if not held.is_gone:
            return held
        # Several processes may see the same stale lock; the one that creates lock-TOKEN.json may replace it. A stale
        # claim is replaced in the same way.
        claim = claim_name(held)
        rival = _take(store, claim, lock_info)
        if rival is not None:
            return rival
        try:
            if held.is_elsewhere and (renewed := _wait_for_renewal(store, key, claim, held)) is not None:
                return renewed
            current = _read(store, key)
            is_same = current is not None and (current == held if held.is_elsewhere else current.token == held.token)
            if current is not None and is_same and current.is_gone:
                zarr_adapter.write(store, key, lock_info.to_json())
                return None
        finally:
            delete(store, claim)
    return None


def _wait_for_renewal(store: Store, key: str, claim: str, held: LockInfo) -> LockInfo | None:
    """Return the owner if it renews a lock that seems stale by the clock of this machine; None if it does not.

    If the store has times of modification, they decide at once: the claim was written just now, so a lock that was
    modified more than `STALE_S` seconds before the claim is stale. Otherwise the lock is observed for `WATCH_S`
    seconds.
    """
    lock_time, claim_time = _modified(store, key), _modified(store, claim)
    if lock_time is not None and claim_time is not None and claim_time - lock_time > STALE_S:
        return None
    deadline = time.monotonic() + WATCH_S
    while time.monotonic() < deadline:
        time.sleep(min(_POLL_S, WATCH_S / 3))
        current = _read(store, key)
        if current is not None and current != held:
            return current
    return None


def _modified(store: Store, key: str) -> float | None:
    """Return the time of modification of an object by the clock of its store, seconds since 1970; None if unknown."""
    if isinstance(store, LocalStore):
        with suppress(OSError):
            return (store.root / key).stat().st_mtime
    if isinstance(store, ObjectStore):
        import obstore

        with suppress(FileNotFoundError, obstore.exceptions.BaseError):
            return obstore.head(store.store, key)["last_modified"].timestamp()
    return None


def _delete_stale_claims(store: Store) -> None:
    """Delete claims of processes that were killed while they were taking the lock over."""

    async def list_claims() -> list[str]:
        return [name async for name in store.list_dir("") if _CLAIM.fullmatch(name)]

    for claim in sync(list_claims()):
        held = _read(store, claim)
        if held is not None and held.is_gone:
            delete(store, claim)


def _create(store: Store, key: str, lock_info: LockInfo) -> bool:
    """Write an object unless it exists; return True if this process has written it."""
    zarr_adapter.write(store, key, lock_info.to_json(), unless_exists=True)
    current = _read(store, key)
    return current is not None and current.token == lock_info.token


def _read(store: Store, key: str) -> LockInfo | None:
    return sync(fetch_owner(store, key))


def _renew(handle: LockHandle, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        # A failed heartbeat is ignored: the next heartbeat follows soon.
        with suppress(Exception):
            sync(handle.refresh(renew=True))
