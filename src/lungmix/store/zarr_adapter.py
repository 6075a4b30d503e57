"""Adapter to zarr: objects, groups and arrays of a store.

All private names of zarr that this package needs are imported or checked here. Other modules use public names of zarr;
only the store wrapper of the lock overrides two private methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.buffer.cpu import NDBuffer
from zarr.codecs import ShardingCodec
from zarr.registry import get_pipeline_class
from zarr.storage import StorePath, WrapperStore

from lungmix.errors import StoreError


def _changed(name: str) -> StoreError:
    return StoreError(
        f"zarr {zarr.__version__} lacks what lungmix needs to read and write stores ({name}): "
        "install another release of zarr, or a later one of lungmix"
    )


try:
    from zarr.core.buffer import Buffer as Buffer
    from zarr.core.buffer import BufferPrototype as BufferPrototype
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.codec_pipeline import BatchedCodecPipeline
    from zarr.core.group import GroupMetadata
    from zarr.core.sync import sync as sync
except ImportError as error:
    raise _changed(str(error)) from error

_PRIVATE_NAMES = (
    (WrapperStore, "_set_many"),
    (ShardingCodec, "codec_pipeline"),
    (GroupMetadata, "to_buffer_dict"),
)
_CHUNKS_PER_CALL = 64
"""Number of chunks that zarr encodes in one call. With its default of 1, dispatch takes longer than encoding labels."""


def check_private_names() -> None:
    """Raise `StoreError` if zarr lacks a private method that this package overrides or calls.

    Without the check, writes could, for example, silently bypass the lock.
    """
    for owner, name in _PRIVATE_NAMES:
        if not hasattr(owner, name):
            raise _changed(f"{owner.__name__}.{name}")


check_private_names()


class StoreWrapper(WrapperStore[Store]):
    """Base class of store wrappers.

    Attributes
    ----------
    inner : zarr.abc.store.Store
        The wrapped store.
    """

    def __init__(self, store: Store):
        super().__init__(store)
        self.inner = store


def unwrap(store: Store) -> Store:
    """Return the store inside a `StoreWrapper`; any other store unchanged."""
    return store.inner if isinstance(store, StoreWrapper) else store


class _Voxels(NDBuffer):
    """Voxels of a shard: they compare themselves with 0, by which empty chunks are left out, faster than in zarr."""

    def all_equal(self, other: Any, equal_nan: bool = True) -> bool:
        """Return True if all elements equal a value."""
        if self.dtype.kind in "iu" and not np.any(other):
            return not self.as_numpy_array().any()
        return super().all_equal(other, equal_nan)


_MERGES_CHUNKS = hasattr(BatchedCodecPipeline, "_merge_chunk_array")
"""True if pipelines make the chunks that they encode in a method of their own. Later releases of zarr do not; writing
label maps is slower with them, and writes the same bytes."""


@dataclass(frozen=True)
class _ChunkPipeline(BatchedCodecPipeline):
    """Pipeline that encodes the chunks of a shard; for releases of zarr where `_MERGES_CHUNKS` is true."""

    def _merge_chunk_array(self, *parts: Any, **options: Any) -> Any:
        """Return a chunk that is about to be encoded."""
        chunk = super()._merge_chunk_array(*parts, **options)
        return _Voxels(chunk.as_ndarray_like()) if type(chunk) is NDBuffer else chunk


class _BatchSharding(ShardingCodec):
    """Sharding codec that encodes `_CHUNKS_PER_CALL` chunks in one call, whatever the configuration of zarr says."""

    @property
    def codec_pipeline(self) -> Any:
        pipeline: Any = get_pipeline_class()
        if not issubclass(pipeline, BatchedCodecPipeline):
            return super().codec_pipeline  # a pipeline that the user configured
        if _MERGES_CHUNKS and pipeline is BatchedCodecPipeline:
            pipeline = _ChunkPipeline
        return pipeline.from_codecs(self.codecs, batch_size=_CHUNKS_PER_CALL)


async def fetch(store: Store, key: str) -> bytes | None:
    """Read the bytes of an object; None if there is none."""
    buffer = await store.get(key, default_buffer_prototype())
    return None if buffer is None else buffer.to_bytes()


def read(store: Store, key: str) -> bytes | None:
    """Read the bytes of an object; None if there is none."""
    return sync(fetch(store, key))


def write(store: Store, key: str, content: bytes, *, unless_exists: bool = False) -> None:
    """Write an object atomically; with `unless_exists`, only if there is none."""
    buffer = buffer_of(content)
    sync(store.set_if_not_exists(key, buffer) if unless_exists else store.set(key, buffer))


def buffer_of(content: bytes) -> Buffer:
    """Return bytes as the buffer that the stores of zarr write."""
    return default_buffer_prototype().buffer.from_bytes(content)


def delete(store: Store, key: str) -> None:
    """Delete an object."""
    sync(store.delete(key))


def delete_folder(store: Store, prefix: str) -> None:
    """Delete all objects under a prefix."""
    sync(store.delete_dir(prefix))


def open_group(store: Store | StorePath, mode: Literal["r", "r+"] = "r+") -> zarr.Group:
    """Read the group at the root of a store, or at a path in the store.

    Consolidated metadata are not used, since cases are read separately.
    """
    return zarr.open_group(store, mode=mode, zarr_format=3, use_consolidated=False)


def group_at(store: Store, path: str = "", attributes: Mapping[str, Any] | None = None) -> zarr.Group:
    """Return a group object with the given attributes, without reading or writing the store."""
    return zarr.Group(zarr.AsyncGroup(GroupMetadata(dict(attributes or {})), StorePath(store, path)))


def array_at(store: Store, path: str, metadata: Any) -> zarr.Array[Any]:
    """Return an array object with the given metadata, without reading or writing the store."""
    codecs = tuple(_in_batches(codec) for codec in metadata.codecs)
    return zarr.Array(zarr.AsyncArray(replace(metadata, codecs=codecs), StorePath(store, path)))


def _in_batches(codec: Any) -> Any:
    if not isinstance(codec, ShardingCodec) or isinstance(codec, _BatchSharding):
        return codec
    names = ("chunk_shape", "codecs", "index_codecs", "index_location")
    return _BatchSharding(**{name: getattr(codec, name) for name in names})


def create_metadata(attributes: dict[str, Any] | None = None, **options: Any) -> Any:
    """Return the metadata of a new array, with a copy of `attributes` and options of `zarr.create_array`."""
    store = zarr.storage.MemoryStore()
    return zarr.create_array(store, zarr_format=3, attributes=deepcopy(attributes), **options).metadata


def bytes_of_metadata(metadata: Any) -> bytes:
    """Return the content of a ``zarr.json``: of an array from its metadata, or of a group from its attributes."""
    if isinstance(metadata, Mapping):
        metadata = GroupMetadata(dict(metadata))
    (buffer,) = metadata.to_buffer_dict(default_buffer_prototype()).values()
    content: bytes = buffer.to_bytes()
    return content
