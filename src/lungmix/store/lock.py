"""One writer a store: an object that names its owner and is renewed while that works."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

import psutil
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from lungmix.errors import LockedError
from lungmix.store.files import LOCK_FILE

BEAT_S = 20.0
"""The owner renews its lock as often as this, seconds."""

STALE_S = 300.0
"""A lock of another host that was not renewed for so long, seconds, has lost its owner."""

_POLL_S = 1.0


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes
    ----------
    host : str
        Name of its machine.
    pid : int
        Its process there.
    born : float
        When that process began, seconds since 1970: another process may have its number later.
    since, beat : float
        When it took the lock and when it renewed it last, seconds since 1970.
    token : str
        Name of this hold.
    """

    host: str
    pid: int
    born: float
    since: float
    beat: float
    token: str

    @classmethod
    def here(cls) -> Owner:
        """This process, from now on."""
        now = time.time()
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time(), now, now, uuid.uuid4().hex)

    @property
    def is_gone(self) -> bool:
        """Whether the owner works no more, as far as can be told from here."""
        if self.host != socket.gethostname():
            return time.time() - self.beat > STALE_S
        try:
            return abs(psutil.Process(self.pid).create_time() - self.born) > 1.0
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, for {_ago(time.time() - self.since)}"


@contextmanager
def locked(store: Store, where: str, *, wait: bool = False, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Be the only writer of a store for the length of a block.

    Parameters
    ----------
    store : zarr.abc.store.Store
        What to write to; conditional writes must hold in it, as they do on local and network disks and in S3.
    where : str
        Its address, for messages.
    wait : bool
        Wait for another writer to end, in place of refusing.
    say : callable, optional
        Told once what is waited for.

    Raises
    ------
    LockedError
        If another process writes to the store; it says which.
    """
    own = Owner.here()
    while (holder := _try(store, own)) is not None:
        if not wait:
            raise _refusal(where, holder)
        if say is not None:
            say(f"waiting for {holder}")
            say = None
        time.sleep(_POLL_S)
    stop = threading.Event()
    beat = threading.Thread(target=_renew, args=(store, own, stop), name="lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        with suppress(OSError):
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


def owner_of(store: Store) -> Owner | None:
    """Who holds the lock of a store; None if it is free."""
    return _read(store, LOCK_FILE)


def _refusal(where: str, held: Owner) -> LockedError:
    return LockedError(
        f"{where} is being written to by {held}: wait for it (--wait does), or end it; nothing was changed"
    )


def _try(store: Store, own: Owner) -> Owner | None:
    """Take the lock; gives the owner that is in the way."""
    if _create(store, LOCK_FILE, own):
        return None
    held = owner_of(store)
    if held is None or not held.is_gone:
        return held or _try(store, own)
    # Of those who see the same dead owner one may replace it: who makes the object that is named after its hold.
    claim = f"lock-{held.token}.json"
    if not _create(store, claim, own):
        rival = _read(store, claim)
        if rival is not None and rival.is_gone:
            sync(store.delete(claim))
        return held
    try:
        now = owner_of(store)
        if now is not None and now.token != held.token:
            return now
        _put(store, LOCK_FILE, own)
        return None
    finally:
        sync(store.delete(claim))


def _create(store: Store, key: str, own: Owner) -> bool:
    """Put an object where there is none; whether this process did."""
    sync(store.set_if_not_exists(key, _buffer(own)))
    found = _read(store, key)
    return found is not None and found.token == own.token


def _put(store: Store, key: str, own: Owner) -> None:
    sync(store.set(key, _buffer(own)))


def _read(store: Store, key: str) -> Owner | None:
    buffer = sync(store.get(key, default_buffer_prototype()))
    if buffer is None:
        return None
    try:
        return Owner(**json.loads(buffer.to_bytes()))
    except (ValueError, TypeError):
        # Not of this program, or damaged: whoever wrote it is not known to live.
        return Owner("an unknown host", 0, 0.0, 0.0, 0.0, "unknown")


def _buffer(own: Owner) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(json.dumps(asdict(own)).encode())


def _renew(store: Store, own: Owner, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        # One beat that fails is made up for by the next.
        with suppress(Exception):
            held = owner_of(store)
            if held is not None and held.token == own.token:
                _put(store, LOCK_FILE, Owner(**{**asdict(own), "beat": time.time()}))


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
