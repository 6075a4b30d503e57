"""Private names of zarr are used in only one module, which reports those that another release lacks."""

import ast
import importlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore, StorePath

import lungmix
from lungmix.errors import StoreError
from lungmix.store import zarr_adapter
from lungmix.store.chunking import codecs_for

PACKAGE = Path(lungmix.__file__).parent


def test_private_modules_of_zarr_are_imported_by_the_adapter_alone():
    users = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zarr.core")
    }
    assert users == {"store/zarr_adapter.py"}


@pytest.mark.parametrize("name", ["_set_many"])
def test_missing_private_method_of_zarr_is_named(monkeypatch, name):
    for cls in zarr.storage.WrapperStore.__mro__:
        if name in vars(cls):
            monkeypatch.delattr(cls, name)
    with pytest.raises(StoreError, match=rf"zarr {zarr.__version__} lacks .*WrapperStore.{name}.*another release"):
        zarr_adapter.check_private_names()


def test_missing_private_module_of_zarr_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr.core.sync", None)
    monkeypatch.delitem(sys.modules, "lungmix.store.zarr_adapter")
    with pytest.raises(StoreError, match=r"lacks .*zarr\.core\.sync"):
        importlib.import_module("lungmix.store.zarr_adapter")


def test_arrays_keep_their_metadata_and_encode_many_chunks_per_call():
    metadata = zarr_adapter.create_metadata(
        shape=(4, 8, 8), chunks=(4, 2, 2), shards=(4, 8, 8), dtype=np.uint8, compressors=codecs_for(np.uint8),
        fill_value=0,
    )  # fmt: skip
    array = zarr_adapter.array_at(MemoryStore(), "a", metadata)
    assert zarr_adapter.bytes_of_metadata(array.metadata) == zarr_adapter.bytes_of_metadata(metadata)
    (codec,) = pickle.loads(pickle.dumps(array.metadata)).codecs
    assert codec.codec_pipeline.batch_size == 64
    assert zarr.config.get("codec_pipeline.batch_size") == 1
    volume = np.random.default_rng(0).integers(0, 5, array.shape, np.uint8)
    array[:] = volume
    assert np.array_equal(array[:], volume)


@pytest.mark.parametrize("fill_value", [0, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, np.float32])
def test_written_objects_are_those_that_zarr_writes(dtype, fill_value):
    random = np.random.default_rng(0)
    volume = random.integers(0, 5, (8, 8, 8)).astype(dtype)
    volume[:4, :4], volume[:, :, 6:] = 0, 3
    if dtype == np.float32:
        volume[0, 0, 0], volume[6, 6, 6] = -0.0, np.nan
    stores = []
    for by_adapter in (False, True):
        metadata = zarr_adapter.create_metadata(
            shape=volume.shape, chunks=(4, 2, 2), shards=(4, 8, 8), dtype=np.dtype(dtype),
            compressors=codecs_for(dtype), fill_value=fill_value,
        )  # fmt: skip
        store = MemoryStore()
        if by_adapter:
            array = zarr_adapter.array_at(store, "a", metadata)
        else:
            array = zarr.Array(zarr.AsyncArray(metadata, StorePath(store, "a")))
        array[:4], array[4:] = volume[:4], volume[4:]
        assert np.array_equal(array[:], volume, equal_nan=dtype == np.float32)
        stores.append({key: value.to_bytes() for key, value in store._store_dict.items()})
    assert stores[0] == stores[1]
    assert len(stores[0]) == 2


def test_shards_of_fill_values_stay_unwritten():
    metadata = zarr_adapter.create_metadata(
        shape=(8, 4, 4), chunks=(4, 2, 2), shards=(4, 4, 4), dtype=np.dtype(np.int16),
        compressors=codecs_for(np.int16), fill_value=0,
    )  # fmt: skip
    store = MemoryStore()
    volume = np.zeros((8, 4, 4), np.int16)
    volume[5, 1, 1] = -1
    zarr_adapter.array_at(store, "a", metadata)[:] = volume
    assert [*store._store_dict] == ["a/c/1/0/0"]
