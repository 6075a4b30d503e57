"""Write lock of a store: an object that names its owner, who renews it with heartbeats."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, ObjectStore, WrapperStore

from lungmix.errors import LockedError, StoreError
from lungmix.store.schema import LOCK_FILE

BEAT_S = 20.0
"""Interval of heartbeats, seconds."""

STALE_S = 300.0
"""Age of the last heartbeat, seconds, from which a lock is stale, unless its owner is visibly alive."""

CHECK_S = 5.0
"""Longest time, seconds, for which a writer relies on its last check of the lock."""

WATCH_S = 3 * BEAT_S
"""Time, seconds, for which a stale lock of another machine is observed, as the clocks of the two may differ."""

_POLL_S = 1.0
_MAX_CHECKS = 3
_RELEASED: set[str] = set()
"""Tokens of released locks of this process. Their objects remain if the store did not answer at the release."""
_CLAIM = re.compile(r"lock-[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class LockInfo:
    """Owner of a lock.

    Attributes
    ----------
    host : str
        Name of the machine.
    pid : int
        Process number on that machine; 0 if unknown.
    born : float
        Start time of the process, seconds since 1970, as process numbers are reused.
    since, beat : float
        Times at which the lock was taken and last renewed, seconds since 1970.
    token : str
        Identifier of this lock, 32 hexadecimal digits.
    space : str
        Digest of the boot of the machine and of its process number namespace. Containers may share the name of a host
        without sharing its processes.
    """

    host: str
    pid: int
    born: float
    since: float
    beat: float
    token: str
    space: str = ""

    @classmethod
    def of_this_process(cls) -> LockInfo:
        """Return the entry of this process, taken now."""
        now, born = time.time(), psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), born, now, now, uuid.uuid4().hex, _pid_space())

    @property
    def is_elsewhere(self) -> bool:
        """True where the owner is not visible to this process and its clock may differ."""
        return bool(self.pid) and (self.host, self.space) != (socket.gethostname(), _pid_space())

    @property
    def is_gone(self) -> bool:
        """True where the owner has ended, as far as this process can determine."""
        if self.token in _RELEASED:
            return True
        is_stale = time.time() - self.beat > STALE_S
        if not self.pid or (self.host, self.space) != (socket.gethostname(), _pid_space()):
            return is_stale
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            # A start time that differs is no proof of another process: the clock may have been set meanwhile.
            return is_stale and abs(process.create_time() - self.born) > 1.0
        except psutil.NoSuchProcess:
            return is_stale or not _is_hidden(self.pid)
        except psutil.AccessDenied:
            return is_stale

    def __str__(self) -> str:
        owner = f"process {self.pid} on {self.host}" if self.pid else "an unknown process"
        age = time.time() - self.beat
        heartbeat = f" (last heartbeat {_format_age(age)} ago)" if age > 3 * BEAT_S else ""
        return f"{owner}, for {_format_age(time.time() - self.since)}{heartbeat}"


class LockHandle:
    """A lock that this process has taken, and whether it still has it.

    Another process may take the lock over if this process was suspended.

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
        """Raise if the lock was lost; reads it at most once in `CHECK_S` seconds.

        Raises
        ------
        LockedError
            If another process has the lock now, or its object was deleted.
        """
        if not self._is_lost and not self.is_released and _elapsed(self._checked) > CHECK_S:
            await self.refresh()
        if self._is_lost:
            raise LockedError(
                f"{self._address}: lock lost: another run has taken the store over, as this one sent no heartbeat for "
                f"{STALE_S / 60:.0f} min, or {LOCK_FILE} was removed. Nothing more was written; run the same command "
                "again to resume",
                path=self._address,
            )

    async def refresh(self, *, renew: bool = False) -> None:
        """Read the lock, and renew its heartbeat if `renew`, or if the last one is old."""
        checks_left = _MAX_CHECKS
        while True:
            now, held, checks_left = _clocks(), await _fetch(self._store, LOCK_FILE), checks_left - 1
            if held is None or held.token != self._lock_info.token:
                self._is_lost = True
                return
            if not checks_left or _elapsed(now) < CHECK_S:  # otherwise the process was suspended meanwhile
                break
        is_late = time.time() - held.beat > STALE_S / 2
        if renew or is_late:
            await self._store.set(LOCK_FILE, _buffer(replace(self._lock_info, beat=time.time())))
        # Another process writes its claim before it reads the lock: one of the two sees what the other has written.
        if is_late and await _fetch(self._store, _claim_name(held)) is not None:
            self._is_lost = True
        self._checked = now


class LockCheckedStore(WrapperStore[Store]):
    """Store wrapper that checks the lock before an object is written or deleted."""

    def __init__(self, store: Store, handle: LockHandle):
        super().__init__(store)
        self._handle = handle

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes do not have the lock; tasks check their attempt instead.
        return unwrap, (self._store,)

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


def is_of_lock(name: str) -> bool:
    """Return True for the file of a lock, of a claim on it, or for a partial file of either."""
    return name.startswith(("lock.", "lock-"))


def unwrap(store: Store) -> Store:
    """Return the store inside a `LockCheckedStore`; any other store unchanged."""
    return store._store if isinstance(store, LockCheckedStore) else store


@contextmanager
def locked(
    store: Store, address: str, *, wait: bool = False, warn: Callable[[str], None] | None = None
) -> Iterator[LockHandle]:
    """Hold the write lock of a store during a block.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Store to lock, with conditional writes, which local and network disks and S3 have.
    address : str
        Address of the store, for messages.
    wait : bool
        Wait until another writer has ended, instead of raising.
    warn : callable, optional
        Called once with a message if another writer is waited for.

    Yields
    ------
    LockHandle
        The lock, for `LockCheckedStore`.

    Raises
    ------
    LockedError
        If another process has the lock; the message names it. Also at the end of the block, if the lock was lost.
    """
    lock_info = LockInfo.of_this_process()
    handle, stop = LockHandle(store, address, lock_info), threading.Event()
    heartbeat = threading.Thread(target=_renew, args=(handle, stop), name="lock", daemon=True)
    # A signal may end the process as soon as the file is there: whatever follows is within the block that removes it.
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
        # All cases may have failed before this process wrote anything itself.
        with suppress(OSError, StoreError):
            sync(handle.refresh())
        sync(handle.check())
    finally:
        handle.is_released = True
        _RELEASED.add(lock_info.token)
        stop.set()
        if heartbeat.is_alive():
            heartbeat.join()
        with suppress(OSError, StoreError):
            if (held := owner_of(store)) is not None and held.token == lock_info.token:
                sync(store.delete(LOCK_FILE))


def check_free(store: Store, address: str) -> None:
    """Raise early if `locked` would raise later.

    Raises
    ------
    LockedError
        If a living process writes to the store.
    """
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
    """Make this process the owner of an object, a lock or a claim; return the owner if it is alive."""
    while not _create(store, key, lock_info):
        held = _read(store, key)
        if held is None:
            continue
        if not held.is_gone:
            return held
        # Several processes may see one stale lock; whoever creates lock-TOKEN.json may replace it. A stale claim is
        # replaced in the same way.
        claim = _claim_name(held)
        rival = _take(store, claim, lock_info)
        if rival is not None:
            return rival
        try:
            if held.is_elsewhere and (renewed := _wait_for_renewal(store, key, claim, held)) is not None:
                return renewed
            current = _read(store, key)
            is_same = current is not None and (current == held if held.is_elsewhere else current.token == held.token)
            if current is not None and is_same and current.is_gone:
                _put(store, key, lock_info)
                return None
        finally:
            sync(store.delete(claim))
    return None


def _wait_for_renewal(store: Store, key: str, claim: str, held: LockInfo) -> LockInfo | None:
    """Return the owner if it renews a lock that seems stale by the clock of this machine; None if it does not.

    Times of modification decide at once if the store has them: the claim was just written, and is much younger than a
    stale lock. Otherwise the lock is observed for `WATCH_S` seconds.
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


def _claim_name(held: LockInfo) -> str:
    return f"lock-{held.token}.json"


def _delete_stale_claims(store: Store) -> None:
    """Delete claims of processes that were killed while they took the lock over."""

    async def list_claims() -> list[str]:
        return [name async for name in store.list_dir("") if _CLAIM.fullmatch(name)]

    for claim in sync(list_claims()):
        held = _read(store, claim)
        if held is not None and held.is_gone:
            sync(store.delete(claim))


def _create(store: Store, key: str, lock_info: LockInfo) -> bool:
    """Write an object unless it exists; return True if this process has written it."""
    sync(store.set_if_not_exists(key, _buffer(lock_info)))
    current = _read(store, key)
    return current is not None and current.token == lock_info.token


def _put(store: Store, key: str, lock_info: LockInfo) -> None:
    sync(store.set(key, _buffer(lock_info)))


def _read(store: Store, key: str) -> LockInfo | None:
    return sync(_fetch(store, key))


async def _fetch(store: Store, key: str) -> LockInfo | None:
    buffer = await store.get(key, default_buffer_prototype())
    return None if buffer is None else _parse(buffer.to_bytes())


class _LockDocument(BaseModel):
    model_config = ConfigDict(strict=True)
    host: str
    pid: int = Field(ge=1, lt=1 << 31)
    born: FiniteFloat
    since: FiniteFloat
    beat: FiniteFloat
    token: str = Field(pattern="^[0-9a-f]{32}$")
    space: str = ""


class _BeatDocument(BaseModel):
    beat: FiniteFloat = 0.0


def _parse(content: bytes) -> LockInfo:
    try:
        return LockInfo(**_LockDocument.model_validate_json(content).model_dump())
    except ValidationError:
        # Written by another program, or corrupt: at most the time of its last heartbeat is known.
        try:
            beat = _BeatDocument.model_validate_json(content).beat
        except ValidationError:
            beat = 0.0
        if beat > time.time() + STALE_S:
            beat = 0.0
        return LockInfo("", 0, 0.0, beat, beat, hashlib.sha256(content).hexdigest()[:32])


def _buffer(lock_info: LockInfo) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(json.dumps(asdict(lock_info)).encode())


def _renew(handle: LockHandle, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        # If one heartbeat fails, the next one follows soon.
        with suppress(Exception):
            sync(handle.refresh(renew=True))


def _pid_space() -> str:
    """Return a digest of the boot and the process number namespace; empty text where they are unknown."""
    identifiers = []
    with suppress(OSError):
        identifiers.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        identifiers.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(identifiers).encode()).hexdigest()[:16] if identifiers else ""


def _is_hidden(pid: int) -> bool:
    """Return True if an invisible process exists: machines may hide processes of other users."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _clocks() -> tuple[float, float]:
    """Return two clocks: the monotonic one stops while a machine sleeps, the other one may be set."""
    return time.monotonic(), time.time()


def _elapsed(since: tuple[float, float]) -> float:
    return max(abs(now - earlier) for now, earlier in zip(_clocks(), since, strict=True))


def _format_age(seconds: float) -> str:
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
