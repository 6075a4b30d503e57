"""Write lock of a store: an object ``lock.json`` that names its owner, a process that renews it with heartbeats.

A lock without heartbeat for five minutes is stale, and another process may take it over. A process that takes over
first creates a claim, an object ``lock-TOKEN.json`` named after the stale lock, so that only one process does.
"""

from lungmix.store.lock.acquire import check_free, is_of_lock, locked, owner_of
from lungmix.store.lock.handle import LockCheckedStore, LockHandle
from lungmix.store.lock.owner import STALE_S, LockInfo

__all__ = ["STALE_S", "LockCheckedStore", "LockHandle", "LockInfo", "check_free", "is_of_lock", "locked", "owner_of"]
