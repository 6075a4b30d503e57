"""Zarr store over a prefix in an object store, with readable errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import ByteRequest
from zarr.storage import ObjectStore

from lungmix.s3 import store_errors
from lungmix.store.zarr_adapter import Buffer, BufferPrototype

if TYPE_CHECKING:
    from obstore.store import S3Store

    _Store = ObjectStore[S3Store]
else:
    _Store = ObjectStore


class BucketStore(_Store):
    """Objects under ``s3://bucket/prefix``; errors of obstore are raised as `StoreError`."""

    @property
    def address(self) -> str:
        """Address of the store, ``s3://bucket/prefix``."""
        return "/".join(["s3:/", str(self.store.config.get("bucket", "")), *filter(None, [self.store.prefix])])

    def sizes_under(self, prefix: str) -> dict[str, int]:
        """Return the bytes of every object under a prefix, by key relative to it."""
        import obstore

        with store_errors(self.address):
            objects = obstore.list(self.store, prefix=f"{prefix}/").collect()
        return {entry["path"].removeprefix(f"{prefix}/"): int(entry["size"]) for entry in objects}

    async def check_bucket(self) -> None:
        """Raise if the bucket does not exist; some servers answer a missing object in the same way."""
        with store_errors(self.address, missing=True):
            async for _ in super().list_dir(""):
                break

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read an object; see zarr."""
        with store_errors(self.address):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of objects; see zarr."""
        with store_errors(self.address):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        """Return True if an object exists; see zarr."""
        with store_errors(self.address):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object; see zarr."""
        with store_errors(self.address, missing=True):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless it exists; see zarr."""
        with store_errors(self.address, missing=True):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """Delete an object; see zarr."""
        with store_errors(self.address):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all objects under a prefix; see zarr."""
        with store_errors(self.address):
            await super().delete_dir(prefix)

    def list(self) -> AsyncGenerator[str, None]:
        """Yield all keys; see zarr."""
        return self._list_keys(super().list)

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys under a prefix; see zarr."""
        return self._list_keys(super().list_prefix, prefix)

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the names directly under a prefix; see zarr."""
        return self._list_keys(super().list_dir, prefix)

    async def getsize(self, key: str) -> int:
        """Return the bytes of an object; see zarr."""
        with store_errors(self.address):
            return await super().getsize(key)

    async def _list_keys(self, listing: Callable[..., AsyncIterator[str]], *prefix: str) -> AsyncGenerator[str, None]:
        with store_errors(self.address):
            async for key in listing(*prefix):
                yield key
