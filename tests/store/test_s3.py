"""A store in an object store, against a server that speaks S3."""

import dataclasses
import json
import threading

import pytest
from distributed import Client, LocalCluster, Security

import lungmix
from lungmix.errors import LockedError, StoreError, UsageError
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.store import IMAGES, CaseWriter, CohortWriter, invalidate_corrupt_stages
from lungmix.store.lock import LockInfo, acquire, owner_of
from lungmix.verify import verify_cases
from support.stores import results_of

pytestmark = pytest.mark.slow

OPTIONAL = ("change", "harmonised", "lobe", "region", "registered_tissue", "tissue_potts", "zone")
"""Images that only some runs make."""

MASK = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))
SCANS = 3
MOST_REQUESTS = 300
"""Greatest number of requests of a run per scan of three slabs, as docs/store.md says."""


@pytest.fixture(scope="module")
def small_worker():
    """Cluster of one worker with little memory."""
    with lungmix.connect(workers=1, memory_limit="1GB") as client:
        yield client


@pytest.fixture(scope="module", params=[8, 32])
def local(request, scans, small_worker, tmp_path_factory):
    """Store in a folder, computed by one worker with little memory, in chunks with fewer slices."""
    url = str(tmp_path_factory.mktemp("store") / "cohort.zarr")
    cohort = lungmix.open_cohort(url, "a")
    assert not Pipeline(small_worker, cohort).run([scans], mask=MASK, chunk_slices=request.param).failed
    assert all(
        case.zarr_array(image).chunks[0] == request.param
        for case in cohort.values()
        for image in IMAGES
        if image not in OPTIONAL
    )
    assert verify_cases(small_worker, cohort, ["case-002"], {}).wrong == {"case-002": []}
    return results_of(url)


@pytest.fixture(scope="module")
def remote(bucket, scans):
    """Store in a bucket, computed by two workers with TLS from scans in a bucket, and the number of requests."""
    url, source = bucket.url("study/cohort.zarr"), bucket.upload(scans, "scans")
    before = bucket.requests()
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="1.5GB", security=Security.temporary(),
            dashboard_address="127.0.0.1:0", host="127.0.0.1", protocol="tls://",
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        assert client.scheduler.address.startswith("tls://")
        report = Pipeline(client, lungmix.open_cohort(url, "a")).run([source], mask=MASK)
        assert not report.failed, report.failed
        after = bucket.requests()
        again = Pipeline(client, lungmix.open_cohort(url, "r+")).run([source], mask=MASK)
        assert again.rows == report.rows
        return url, after - before, bucket.requests() - after


def test_bucket_tls_workers_and_chunks_change_no_result(remote, local):
    assert {case.zarr_array("ct").chunks[0] for case in lungmix.open_cohort(remote[0]).values()} == {64}
    assert results_of(remote[0]) == local


def test_requests_of_a_scan_stay_few(remote):
    _, first, again = remote
    assert sum(first.values()) / SCANS < MOST_REQUESTS, first
    assert not {"PUT", "DELETE"} & {method for method, n in again.items() if n / SCANS > 2}, again
    assert sum(again.values()) / SCANS < MOST_REQUESTS / 4, again


def test_corrupt_object_in_a_bucket_is_found(remote):
    import obstore
    from obstore.store import S3Store

    url, *_ = remote
    case = lungmix.open_cohort(url, "r+")["case-001"]
    store, key = S3Store.from_url(url, client_options={"allow_http": True}), "case-001/labels/lung/1/c/1/0/0"
    content = obstore.get(store, key).bytes().to_bytes()
    obstore.put(store, key, content[:-1])
    assert list(invalidate_corrupt_stages(case)) == ["mask"]
    obstore.put(store, key, content)
    record = lungmix.open_cohort(url, "r+")["case-001"].damage["mask"]["record"]
    files = record.pop("files")
    CaseWriter(lungmix.open_cohort(url, "r+")["case-001"]).record("mask", record, files)
    assert invalidate_corrupt_stages(lungmix.open_cohort(url, "r+")["case-001"]) == {}


def test_one_writer_at_a_time_in_a_bucket(bucket, monkeypatch):
    monkeypatch.setattr(acquire, "_POLL_S", 0.01)
    monkeypatch.setattr(acquire, "WATCH_S", 0.05)
    cohort = lungmix.open_cohort(bucket.url("locks.zarr"), "a")
    with cohort.locked(), pytest.raises(LockedError, match="process"), cohort.locked():
        pass
    dead = dataclasses.replace(LockInfo.of_this_process(), host="elsewhere", beat=0.0)
    CohortWriter(cohort).write_text("lock.json", json.dumps(dataclasses.asdict(dead)))
    inside, largest = [], []

    def enter(name):
        with cohort.locked(wait=True):
            inside.append(name)
            largest.append(len(inside))
            inside.remove(name)

    threads = [threading.Thread(target=enter, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert largest == [1] * 5
    assert owner_of(cohort._group.store) is None


def test_error_for_an_address_that_is_no_store_names_the_remedy(bucket):
    with pytest.raises(StoreError, match=r"lungmix\.run"):
        lungmix.open_cohort(bucket.url("none.zarr"))
    with pytest.raises(UsageError, match="s3://BUCKET/PREFIX"):
        lungmix.open_cohort("ftp://host/store")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        lungmix.open_cohort("s3://no-such-bucket/store", "a")
