"""One writer a store: an object that names its owner and is renewed while that works."""

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
"""The owner renews its lock as often as this, seconds."""

STALE_S = 300.0
"""A lock that was not renewed for so long, seconds, has lost its owner, unless that is seen to live."""

CHECK_S = 5.0
"""For so long, seconds, a writer believes that the lock is still its own, before it looks again."""

WATCH_S = 3 * BEAT_S
"""For so long, seconds, the lock of another machine is watched that seems stale: the clocks of the two may differ."""

_POLL_S = 1.0
_LOOKS = 3
_ENDED: set[str] = set()
"""Tokens of holds of this process that are over. Their locks are still there if the store did not answer at the end."""
_CLAIM = re.compile(r"lock-[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class LockInfo:
    """Who holds a lock.

    Attributes
    ----------
    host : str
        Name of its machine.
    pid : int
        Its process there; 0 if the lock does not say.
    born : float
        When that process began, seconds since 1970: another process may have its number later.
    since, beat : float
        When it took the lock and when it renewed it last, seconds since 1970.
    token : str
        Name of this hold.
    space : str
        Where its process number counts: a digest of the machine's start and of its space of process numbers. Containers
        may share the name of a host, and not its processes.
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
        return cls(socket.gethostname(), os.getpid(), born, now, now, uuid.uuid4().hex, _space())

    @property
    def is_elsewhere(self) -> bool:
        """Whether the owner cannot be seen from here: the clock that it tells its beats by may be another one."""
        return bool(self.pid) and (self.host, self.space) != (socket.gethostname(), _space())

    @property
    def is_gone(self) -> bool:
        """Whether the owner works no more, as far as can be told from here."""
        if self.token in _ENDED:
            return True
        silent = time.time() - self.beat > STALE_S
        if not self.pid or (self.host, self.space) != (socket.gethostname(), _space()):
            return silent
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            # The clock may have been set since: that alone makes a process no other one.
            return silent and abs(process.create_time() - self.born) > 1.0
        except psutil.NoSuchProcess:
            return silent or not _is_hidden(self.pid)
        except psutil.AccessDenied:
            return silent

    def __str__(self) -> str:
        who = f"process {self.pid} on {self.host}" if self.pid else "an unknown process"
        heard = time.time() - self.beat
        last = f" (last heard of {_ago(heard)} ago)" if heard > 3 * BEAT_S else ""
        return f"{who}, for {_ago(time.time() - self.since)}{last}"


class LockHandle:
    """A lock that is held, and whether it still is.

    A process that was stopped, or whose machine slept, may have lost it to another one.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Which is locked.
    where : str
        Its address, for messages.
    own : Owner
        This process.
    """

    def __init__(self, store: Store, where: str, own: LockInfo):
        self._store, self._where, self._own = store, where, own
        self._seen = _clocks()
        self._lost = False
        self.over = False

    async def check(self) -> None:
        """Make sure of the lock, by at most one look at it in `CHECK_S`.

        Raises
        ------
        LockedError
            If another process has it now, or nobody.
        """
        if not self._lost and not self.over and _passed(self._seen) > CHECK_S:
            await self.look()
        if self._lost:
            raise LockedError(
                f"{self._where}: this run was not heard of for long, and another one has taken the store over, or "
                f"{LOCK_FILE} was removed: it ends here and writes no more; run the same command again to go on"
            )

    async def look(self, *, renew: bool = False) -> None:
        """Look who has the lock now, and say in it that this process lives, if that was not said for long."""
        left = _LOOKS
        while True:
            now, held, left = _clocks(), await _fetch(self._store, LOCK_FILE), left - 1
            if held is None or held.token != self._own.token:
                self._lost = True
                return
            if not left or _passed(now) < CHECK_S:  # or else the process was stopped meanwhile
                break
        late = time.time() - held.beat > STALE_S / 2
        if renew or late:
            await self._store.set(LOCK_FILE, _buffer(replace(self._own, beat=time.time())))
        # Who takes a lock over puts its claim and then looks at the lock: one of the two sees what the other has put.
        if late and await _fetch(self._store, _claim_on(held)) is not None:
            self._lost = True
        self._seen = now


class LockCheckedStore(WrapperStore[Store]):
    """A store to write through while its lock is held: before an object is put or deleted, the hold is checked."""

    def __init__(self, store: Store, hold: LockHandle):
        super().__init__(store)
        self._hold = hold

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process has no part in the hold; tasks check their attempt.
        return unwrap, (self._store,)

    def _with_store(self, store: Store) -> LockCheckedStore:
        return LockCheckedStore(store, self._hold)

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object."""
        await self._hold.check()
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Put an object where there is none."""
        await self._hold.check()
        await super().set_if_not_exists(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await self._hold.check()
        await super()._set_many(values)

    async def delete(self, key: str) -> None:
        """Delete an object."""
        await self._hold.check()
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects under a prefix."""
        await self._hold.check()
        await super().delete_dir(prefix)

    async def clear(self) -> None:
        """Delete all objects."""
        await self._hold.check()
        await super().clear()


def is_of_lock(name: str) -> bool:
    """Whether a file is a lock, a claim on one, or a part of one that is being written."""
    return name.startswith(("lock.", "lock-"))


def unwrap(store: Store) -> Store:
    """The store that a guarded one writes to; any other store as it is."""
    return store._store if isinstance(store, LockCheckedStore) else store


@contextmanager
def locked(
    store: Store, where: str, *, wait: bool = False, warn: Callable[[str], None] | None = None
) -> Iterator[LockHandle]:
    """Be the only writer of a store for the length of a block.

    Parameters
    ----------
    store : zarr.abc.store.Store
        What to write to; conditional writes must hold in it, as they do on local and network disks and in S3.
    where : str
        Its address, for messages.
    wait : bool
        Wait for another writer to end, in place of refusing.
    warn : callable, optional
        Called once with a message if another writer is waited for.

    Yields
    ------
    Hold
        Tells whether the lock was lost meanwhile; see `LockCheckedStore`.

    Raises
    ------
    LockedError
        If another process writes to the store; it says which. At the end of the block, if the lock was lost meanwhile.
    """
    own = LockInfo.of_this_process()
    while (holder := _take(store, LOCK_FILE, own)) is not None:
        if not wait:
            raise _refusal(where, holder)
        if warn is not None:
            warn(f"waiting for {holder}")
            warn = None
        time.sleep(_POLL_S)
    hold, stop = LockHandle(store, where, own), threading.Event()
    beat = threading.Thread(target=_renew, args=(hold, stop), name="lock", daemon=True)
    beat.start()
    try:
        with suppress(OSError, StoreError):
            _clear_claims(store)
        yield hold
        # Tasks may have given every case up before this process came to write.
        with suppress(OSError, StoreError):
            sync(hold.look())
        sync(hold.check())
    finally:
        hold.over = True
        _ENDED.add(own.token)
        stop.set()
        beat.join()
        with suppress(OSError, StoreError):
            if (held := owner_of(store)) is not None and held.token == own.token:
                sync(store.delete(LOCK_FILE))


def check_free(store: Store, where: str) -> None:
    """Refuse early what `locked` would refuse later.

    Raises
    ------
    LockedError
        If a living process writes to the store.
    """
    held = owner_of(store)
    if held is not None and not held.is_gone:
        raise _refusal(where, held)


def owner_of(store: Store) -> LockInfo | None:
    """Who holds the lock of a store; None if it is free."""
    return _read(store, LOCK_FILE)


def _refusal(where: str, held: LockInfo) -> LockedError:
    return LockedError(
        f"{where} is being written to by {held}: wait for it (--wait does), or end it; nothing was changed"
    )


def _take(store: Store, key: str, own: LockInfo) -> LockInfo | None:
    """Make an object that names its owner this process'; gives the owner that is in the way."""
    while not _create(store, key, own):
        held = _read(store, key)
        if held is None:
            continue
        if not held.is_gone:
            return held
        # Of those who see the same dead owner one may replace it: whose is the object that is named after its hold. If
        # that has lost its owner too, the same goes for it.
        claim = _claim_on(held)
        rival = _take(store, claim, own)
        if rival is not None:
            return rival
        try:
            if held.is_elsewhere and (now := _renewed(store, key, claim, held)) is not None:
                return now
            now = _read(store, key)
            same = now is not None and (now == held if held.is_elsewhere else now.token == held.token)
            if now is not None and same and now.is_gone:
                _put(store, key, own)
                return None
        finally:
            sync(store.delete(claim))
    return None


def _renewed(store: Store, key: str, claim: str, held: LockInfo) -> LockInfo | None:
    """The owner, if it renews a lock that seems stale by the clock of this machine; None if it does not.

    The clock of the store decides at once: by it, what was just put into the claim is much younger than the lock. Or
    else the lock is watched.
    """
    then, now = _modified(store, key), _modified(store, claim)
    if then is not None and now is not None and now - then > STALE_S:
        return None
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(_POLL_S, WATCH_S / 3))
        found = _read(store, key)
        if found is not None and found != held:
            return found
    return None


def _modified(store: Store, key: str) -> float | None:
    """When an object was put, by the clock of its store, seconds since 1970; None where that is not known."""
    if isinstance(store, LocalStore):
        with suppress(OSError):
            return (store.root / key).stat().st_mtime
    if isinstance(store, ObjectStore):
        import obstore

        with suppress(FileNotFoundError, obstore.exceptions.BaseError):
            return obstore.head(store.store, key)["last_modified"].timestamp()
    return None


def _claim_on(held: LockInfo) -> str:
    return f"lock-{held.token}.json"


def _clear_claims(store: Store) -> None:
    """Delete what was left by those who were killed while they took the lock over."""

    async def listed() -> list[str]:
        return [name async for name in store.list_dir("") if _CLAIM.fullmatch(name)]

    for claim in sync(listed()):
        held = _read(store, claim)
        if held is not None and held.is_gone:
            sync(store.delete(claim))


def _create(store: Store, key: str, own: LockInfo) -> bool:
    """Put an object where there is none; whether this process did."""
    sync(store.set_if_not_exists(key, _buffer(own)))
    found = _read(store, key)
    return found is not None and found.token == own.token


def _put(store: Store, key: str, own: LockInfo) -> None:
    sync(store.set(key, _buffer(own)))


def _read(store: Store, key: str) -> LockInfo | None:
    return sync(_fetch(store, key))


async def _fetch(store: Store, key: str) -> LockInfo | None:
    buffer = await store.get(key, default_buffer_prototype())
    return None if buffer is None else _parsed(buffer.to_bytes())


class _Written(BaseModel):
    model_config = ConfigDict(strict=True)
    host: str
    pid: int = Field(ge=1, lt=1 << 31)
    born: FiniteFloat
    since: FiniteFloat
    beat: FiniteFloat
    token: str = Field(pattern="^[0-9a-f]{32}$")
    space: str = ""


class _Beat(BaseModel):
    beat: FiniteFloat = 0.0


def _parsed(content: bytes) -> LockInfo:
    try:
        return LockInfo(**_Written.model_validate_json(content).model_dump())
    except ValidationError:
        # Of another program, or damaged: what can be known of its owner is when it was last heard of, if that.
        try:
            beat = _Beat.model_validate_json(content).beat
        except ValidationError:
            beat = 0.0
        if beat > time.time() + STALE_S:
            beat = 0.0
        return LockInfo("", 0, 0.0, beat, beat, hashlib.sha256(content).hexdigest()[:32])


def _buffer(own: LockInfo) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(json.dumps(asdict(own)).encode())


def _renew(hold: LockHandle, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        # One beat that fails is made up for by the next.
        with suppress(Exception):
            sync(hold.look(renew=True))


def _space() -> str:
    """Digest of what process numbers of this process count in; empty where machines do not tell."""
    known = []
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(known).encode()).hexdigest()[:16] if known else ""


def _is_hidden(pid: int) -> bool:
    """Whether a process that cannot be seen is there: machines may hide those of other users."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _clocks() -> tuple[float, float]:
    """Two clocks, because one stands still while a machine sleeps, and one may be set."""
    return time.monotonic(), time.time()


def _passed(since: tuple[float, float]) -> float:
    return max(abs(now - then) for now, then in zip(_clocks(), since, strict=True))


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
