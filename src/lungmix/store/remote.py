"""A prefix in an object store as a zarr store, whose every failure is one sentence."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from lungmix.s3 import store_errors

if TYPE_CHECKING:
    from obstore.store import S3Store

    _Store = ObjectStore[S3Store]
else:
    _Store = ObjectStore


class BucketStore(_Store):
    """Objects under ``s3://bucket/prefix``; what the library raises becomes a `StoreError` here, and nowhere else."""

    @property
    def address(self) -> str:
        """``s3://bucket/prefix``."""
        return "/".join(["s3:/", str(self.store.config.get("bucket", "")), *filter(None, [self.store.prefix])])

    def sizes_under(self, prefix: str) -> dict[str, int]:
        """Bytes of every object under a prefix, by key relative to it."""
        import obstore

        with store_errors(self.address):
            objects = obstore.list(self.store, prefix=f"{prefix}/").collect()
        return {one["path"].removeprefix(f"{prefix}/"): int(one["size"]) for one in objects}

    async def check_bucket(self) -> None:
        """Refuse a bucket that does not exist; a missing object is told in the same way by some servers."""
        with store_errors(self.address, missing=True):
            async for _ in super().list_dir(""):
                break

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """See zarr."""
        with store_errors(self.address):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """See zarr."""
        with store_errors(self.address):
            return await super().get_partial_values(prototype, key_ranges)

    async def exists(self, key: str) -> bool:
        """See zarr."""
        with store_errors(self.address):
            return await super().exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """See zarr."""
        with store_errors(self.address, missing=True):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """See zarr."""
        with store_errors(self.address, missing=True):
            await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        """See zarr."""
        with store_errors(self.address):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """See zarr."""
        with store_errors(self.address):
            await super().delete_dir(prefix)

    def list(self) -> AsyncGenerator[str, None]:
        """See zarr."""
        return self._each(super().list)

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """See zarr."""
        return self._each(super().list_prefix, prefix)

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """See zarr."""
        return self._each(super().list_dir, prefix)

    async def getsize(self, key: str) -> int:
        """See zarr."""
        with store_errors(self.address):
            return await super().getsize(key)

    async def _each(self, listing: Callable[..., AsyncIterator[str]], *prefix: str) -> AsyncGenerator[str, None]:
        with store_errors(self.address):
            async for key in listing(*prefix):
                yield key
