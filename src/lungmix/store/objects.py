"""Objects (files) of a store: reading and writing of complete shards, receipts of objects, listings of sizes."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store
from zarr.storage import LocalStore

from lungmix.store.lock import STALE_S, is_of_lock
from lungmix.store.remote import BucketStore
from lungmix.store.zarr_adapter import Buffer, BufferPrototype, StoreWrapper, unwrap

Receipt = list[Any]
"""Size of an object in bytes, and its CRC-32C as eight hexadecimal digits."""

Receipts = dict[str, Receipt]
"""Receipts by object key; keys are relative to the case."""

_CHUNK = re.compile(r"(?:^|/)c/")
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")


def receipt_of(content: Any) -> Receipt:
    """Return the receipt of the bytes of an object."""
    data = np.frombuffer(content, np.uint8)
    return [data.size, f"{google_crc32c.value(data):08x}"]


class WholeShards(StoreWrapper):
    """Store wrapper that writes each complete shard once.

    Earlier shards are not read, and the receipt of every written object is recorded in `receipts`.
    """

    def __init__(self, store: Store):
        super().__init__(store)
        self.receipts: Receipts = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        """Read an object; return None for a shard, since the write replaces it completely."""
        return None if _CHUNK.search(key) else await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object and record its receipt."""
        await super().set(key, value)
        self.receipts[key] = receipt_of(value.as_buffer_like())

    async def delete(self, key: str) -> None:
        """Delete an object; do nothing for a shard of fill values, which does not exist in a new array."""
        if not _CHUNK.search(key):
            await super().delete(key)


class WholeReads(StoreWrapper):
    """Store wrapper for the read of one selection, which fetches each shard as a whole, not chunk by chunk."""

    def __init__(self, store: Store):
        super().__init__(store)
        self._shards: dict[str, Buffer | None] = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        """Read an object, or a range of its bytes."""
        if byte_range is None or not _CHUNK.search(key):
            return await super().get(key, prototype, byte_range)
        if key not in self._shards:
            self._shards[key] = await super().get(key, prototype)
        shard = self._shards[key]
        if shard is None:
            return None
        size = len(shard)
        if isinstance(byte_range, RangeByteRequest):
            return shard[byte_range.start : byte_range.end]
        if isinstance(byte_range, OffsetByteRequest):
            return shard[byte_range.offset :]
        return shard[max(0, size - byte_range.suffix) :]


def sizes_under(store: Store, prefix: str) -> dict[str, int]:
    """Return the size in bytes of each object under a prefix, by key relative to the prefix.

    In an object store, this takes one request per thousand objects.
    """
    store = unwrap(store)
    if isinstance(store, LocalStore):
        return _sizes_in(store.root / prefix)
    assert isinstance(store, BucketStore)
    return store.sizes_under(prefix)


def is_partial(key: str) -> bool:
    """Return True if a key is that of a partial file, which a killed writer could not rename."""
    return bool(_PARTIAL.search(key))


def clear_partials(store: Store) -> None:
    """Delete partial files of killed writers in the folder of the store itself, not in those of its cases.

    Processes that wait for the lock may write partial files of the lock at any time, so these are deleted only if they
    are older than `STALE_S`.
    """
    store = unwrap(store)
    if not isinstance(store, LocalStore):
        return
    for file in store.root.iterdir():
        with suppress(OSError):
            if is_partial(file.name) and not (is_of_lock(file.name) and time.time() - file.stat().st_mtime < STALE_S):
                file.unlink()


def _sizes_in(folder: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root) / name
            try:
                sizes[file.relative_to(folder).as_posix()] = file.stat().st_size
            except FileNotFoundError:  # renamed by its writer meanwhile
                continue
    return sizes
