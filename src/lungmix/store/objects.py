"""Objects of a store: where it lies, how whole shards are written, and what is known of each object afterwards."""

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
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from lungmix.store.lock import STALE_S, is_of_lock, unwrap

Receipt = list[Any]
"""Bytes of an object, and their CRC-32C as eight hexadecimal digits."""

Receipts = dict[str, Receipt]
"""By key, relative to the case."""

_CHUNK = re.compile(r"(?:^|/)c/")
_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.partial$")


def receipt_of(content: Any) -> Receipt:
    """What is kept of an object: anything that is bytes-like."""
    data = np.frombuffer(content, np.uint8)
    return [data.size, f"{google_crc32c.value(data):08x}"]


class WholeShards(WrapperStore[Store]):
    """A store to write whole shards through, once each.

    What lay in their place is not asked for, and every object that is put leaves its receipt.
    """

    def __init__(self, store: Store):
        super().__init__(store)
        self.receipts: Receipts = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        """Nothing for chunks, which are about to be replaced as a whole."""
        return None if _CHUNK.search(key) else await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Put an object and note its receipt."""
        await super().set(key, value)
        self.receipts[key] = receipt_of(value.as_buffer_like())

    async def delete(self, key: str) -> None:
        """Chunks of fill value are left out: their array was made empty."""
        if not _CHUNK.search(key):
            await super().delete(key)


class WholeReads(WrapperStore[Store]):
    """A store to read one selection through: of a shard whose chunks are asked for one by one, one request is made."""

    def __init__(self, store: Store):
        super().__init__(store)
        self._held: dict[str, Buffer | None] = {}

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        """The object, or the part of it."""
        if byte_range is None or not _CHUNK.search(key):
            return await super().get(key, prototype, byte_range)
        if key not in self._held:
            self._held[key] = await super().get(key, prototype)
        whole = self._held[key]
        if whole is None:
            return None
        size = len(whole)
        if isinstance(byte_range, RangeByteRequest):
            return whole[byte_range.start : byte_range.end]
        if isinstance(byte_range, OffsetByteRequest):
            return whole[byte_range.offset :]
        return whole[max(0, size - byte_range.suffix) :]


def sizes_under(store: Store, prefix: str) -> dict[str, int]:
    """Bytes of every object under a prefix, by key relative to it; one request for a thousand objects."""
    store = unwrap(store)
    if isinstance(store, LocalStore):
        return _sizes_in(store.root / prefix)
    from lungmix.store.remote import BucketStore

    assert isinstance(store, BucketStore)
    return store.sizes_under(prefix)


def is_partial(key: str) -> bool:
    """Whether an object is what a writer left behind that was killed before it could rename it."""
    return bool(_PARTIAL.search(key))


def clear_partials(store: Store) -> None:
    """Delete what such writers left beside the cases.

    Those who wait for the lock put it at any time: what is left of it has to be older than any of them needs.
    """
    store = unwrap(store)
    if not isinstance(store, LocalStore):
        return
    for file in store.root.iterdir():
        with suppress(OSError):
            if is_partial(file.name) and not (is_of_lock(file.name) and time.time() - file.stat().st_mtime < STALE_S):
                file.unlink()


def _sizes_in(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root) / name
            try:
                found[file.relative_to(folder).as_posix()] = file.stat().st_size
            except FileNotFoundError:  # renamed by its writer meanwhile
                continue
    return found
