"""Zarr store at a prefix of an object store, with readable errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from zarr.storage import ObjectStore

from lungmix.s3 import store_errors

if TYPE_CHECKING:
    from obstore.store import S3Store

    _Store = ObjectStore[S3Store]
else:
    _Store = ObjectStore


def _with_errors(name: str, *, missing: bool = False) -> Any:
    """Return a method of `ObjectStore` that raises the errors of obstore as `StoreError`.

    Parameters
    ----------
    name : str
        Name of the method.
    missing : bool
        True if the error of a missing object means that the bucket is missing.
    """
    method: Any = getattr(ObjectStore, name)

    @wraps(method)
    async def with_errors(self: BucketStore, *arguments: Any, **options: Any) -> Any:
        with store_errors(self.address, missing=missing):
            return await method(self, *arguments, **options)

    return with_errors


class BucketStore(_Store):
    """Objects under ``s3://bucket/prefix``; errors of obstore are raised as `StoreError`."""

    @property
    def address(self) -> str:
        """Address of the store, ``s3://bucket/prefix``."""
        return "/".join(["s3:/", str(self.store.config.get("bucket", "")), *filter(None, [self.store.prefix])])

    def sizes_under(self, prefix: str) -> dict[str, int]:
        """Return the size in bytes of each object under a prefix, by key relative to the prefix."""
        import obstore

        with store_errors(self.address):
            objects = obstore.list(self.store, prefix=f"{prefix}/").collect()
        return {entry["path"].removeprefix(f"{prefix}/"): int(entry["size"]) for entry in objects}

    async def check_bucket(self) -> None:
        """Raise `StoreError` if the bucket does not exist, which some servers report like a missing object."""
        with store_errors(self.address, missing=True):
            async for _ in super().list_dir(""):
                break

    get = _with_errors("get")
    get_partial_values = _with_errors("get_partial_values")
    exists = _with_errors("exists")
    getsize = _with_errors("getsize")
    delete = _with_errors("delete")
    delete_dir = _with_errors("delete_dir")
    # A write that fails because an object is missing means that the bucket is missing.
    set = _with_errors("set", missing=True)
    set_if_not_exists = _with_errors("set_if_not_exists", missing=True)

    def list(self) -> AsyncGenerator[str, None]:
        """Yield all keys; see zarr."""
        return self._list_keys(super().list)

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys under a prefix; see zarr."""
        return self._list_keys(super().list_prefix, prefix)

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the names directly under a prefix; see zarr."""
        return self._list_keys(super().list_dir, prefix)

    async def _list_keys(self, listing: Callable[..., AsyncIterator[str]], *prefix: str) -> AsyncGenerator[str, None]:
        with store_errors(self.address):
            async for key in listing(*prefix):
                yield key
