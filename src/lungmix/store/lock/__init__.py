"""Write lock of a store: an object that names its owner, who renews it with heartbeats."""

from lungmix.store.lock.acquire import check_free, is_of_lock, locked, owner_of
from lungmix.store.lock.handle import LockCheckedStore, LockHandle
from lungmix.store.lock.owner import STALE_S, LockInfo

__all__ = ["STALE_S", "LockCheckedStore", "LockHandle", "LockInfo", "check_free", "is_of_lock", "locked", "owner_of"]
