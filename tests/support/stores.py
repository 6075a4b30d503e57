"""Comparison of two stores: every byte except times and random digits."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import lungmix
from support.command import SMALL, run_here

_RANDOM = ("salt", "watched")


def store_digest(url) -> dict[str, str]:
    """Return a digest of each object of a store, by key.

    Times, salts, and digests that depend on salts are removed from metadata before.
    """
    store = lungmix.open_cohort(url)._group.store
    digests = {}
    for key in sync(_keys(store)):
        content = sync(store.get(key, default_buffer_prototype())).to_bytes()
        if key.endswith(("zarr.json", "names.json")):
            content = _plain(content)
        digests[key] = hashlib.sha256(content).hexdigest()
    return digests


def assert_same_store(store_a, two) -> None:
    """Check that two stores have the same objects; fail with the names of objects that differ."""
    first, second = store_digest(store_a), store_digest(two)
    one_only = sorted(first.keys() ^ second.keys())
    assert not one_only, f"in one of the stores only: {one_only}"
    differ = [key for key in first if first[key] != second[key]]
    assert not differ, f"not the same: {differ}"


def results_of(url) -> dict[str, object]:
    """Return labels, histograms and measurements of a store, which must not depend on the cluster and the machine."""
    cohort = lungmix.open_cohort(url)
    results: dict[str, object] = {
        "measurements": cohort.read_text("measurements.csv"),
        "model": cohort.read_text("model.json"),
    }
    for name, case in cohort.items():
        for image in ("ct", "lung", "side", "tissue", "tissue_median"):
            volume = np.ascontiguousarray(case.zarr_array(image)[:])
            results[f"{name}/{image}"] = hashlib.sha256(volume.data).hexdigest()
        results[f"{name}/counts"] = case.hu_counts.tobytes() + case.side_counts.tobytes()
    return results


def assert_same_voxels_each_way(ways, scan, folder, run=run_here) -> None:
    """Run a scan once with each set of options, and check that the images are always the same."""
    for name, way in ways.items():
        done = run("run", folder / f"{name}.zarr", scan, "--model", "published", *SMALL, *way, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["done"] == ["case-001"]
    cases = [lungmix.open_cohort(folder / f"{name}.zarr")["case-001"] for name in ways]
    for image in ("ct", "lung", "side", "tissue", "tissue_median"):
        arrays = [case.array(image).compute() for case in cases]
        assert arrays[0].any()
        assert all(np.array_equal(array, arrays[0]) for array in arrays)


async def _keys(store) -> list[str]:
    return sorted([key async for key in store.list()])


def _plain(content: bytes) -> bytes:
    document = json.loads(content)
    record = document.get("attributes", {}).get("lungmix", document)
    for name in _RANDOM:
        record.pop(name, None)
    for origin in [record.get("stages", {}).get("convert", {}), *record.get("cases", {}).values()]:
        origin.pop("source", None)
        origin.pop("uids", None)
    return json.dumps(document, sort_keys=True).encode()
