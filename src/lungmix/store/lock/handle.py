"""Handle of a lock that this process holds, and a store that checks the lock before each write."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from zarr.abc.store import Store

from lungmix.errors import LockedError
from lungmix.store.lock.owner import STALE_S, LockInfo
from lungmix.store.schema import LOCK_FILE
from lungmix.store.zarr_adapter import Buffer, StoreWrapper, buffer_of, fetch, unwrap

CHECK_S = 5.0
"""Seconds for which a writer may rely on its last check of the lock."""

_MAX_CHECKS = 3


class LockHandle:
    """Lock that this process has taken; checks whether the process still has it.

    Another process may have taken the lock over while this process was suspended.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The locked store.
    address : str
        Address of the store, for messages.
    lock_info : LockInfo
        Entry of this process in the lock.
    """

    def __init__(self, store: Store, address: str, lock_info: LockInfo):
        self._store, self._address, self._lock_info = store, address, lock_info
        self._checked = _clocks()
        self._is_lost = False
        self.is_released = False

    async def check(self) -> None:
        """Raise `LockedError` if another process has the lock now, or the object of the lock was deleted.

        The object is read only if the last check is older than `CHECK_S` seconds.
        """
        if not self._is_lost and not self.is_released and _elapsed(self._checked) > CHECK_S:
            await self.refresh()
        if self._is_lost:
            raise LockedError(
                f"{self._address}: lock lost: another run has taken the store over because this one sent no heartbeat "
                f"for {STALE_S / 60:.0f} min, or {LOCK_FILE} was removed. Nothing more was written; run the same "
                "command again to resume",
                path=self._address,
            )

    async def refresh(self, *, renew: bool = False) -> None:
        """Read the lock; send a heartbeat if `renew` is True, or if the last one is older than half of `STALE_S`."""
        checks_left = _MAX_CHECKS
        while True:
            now, held, checks_left = _clocks(), await fetch_owner(self._store, LOCK_FILE), checks_left - 1
            if held is None or held.token != self._lock_info.token:
                self._is_lost = True
                return
            if not checks_left or _elapsed(now) < CHECK_S:  # else the process was suspended during the read
                break
        is_late = time.time() - held.beat > STALE_S / 2
        if renew or is_late:
            await self._store.set(LOCK_FILE, buffer_of(replace(self._lock_info, beat=time.time()).to_json()))
        # Another process writes its claim before it reads the lock, this one writes before it reads the claim: at least
        # one of the two sees what the other has written.
        if is_late and await fetch_owner(self._store, claim_name(held)) is not None:
            self._is_lost = True
        self._checked = now


class LockCheckedStore(StoreWrapper):
    """Store wrapper that checks the lock before an object is written or deleted."""

    def __init__(self, store: Store, handle: LockHandle):
        super().__init__(store)
        self._handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        # Sent to a worker, which does not have the lock, it is the plain store; tasks check their attempt instead.
        return unwrap, (self.inner,)

    def _with_store(self, store: Store) -> LockCheckedStore:
        return LockCheckedStore(store, self._handle)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        await self._handle.check()
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless it exists."""
        await self._handle.check()
        await super().set_if_not_exists(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await self._handle.check()
        await super()._set_many(values)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        await self._handle.check()
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects under a prefix."""
        await self._handle.check()
        await super().delete_dir(prefix)

    async def clear(self) -> None:
        """Delete all objects."""
        await self._handle.check()
        await super().clear()


async def fetch_owner(store: Store, key: str) -> LockInfo | None:
    """Read the owner of a lock or a claim; None if there is no such object."""
    content = await fetch(store, key)
    return None if content is None else LockInfo.from_json(content)


def claim_name(held: LockInfo) -> str:
    """Return the name of the object whose creator may replace a stale lock."""
    return f"lock-{held.token}.json"


def _clocks() -> tuple[float, float]:
    """Return the monotonic clock, which stops while a machine sleeps, and the system clock, which may be set."""
    return time.monotonic(), time.time()


def _elapsed(since: tuple[float, float]) -> float:
    """Return the seconds since a result of `_clocks`, by the clock that advanced more."""
    return max(abs(now - earlier) for now, earlier in zip(_clocks(), since, strict=True))
