"""Fixtures that many tests share: real scans, a cluster, a small cohort."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.examples import FACTOR

HERE = Path(__file__).parent

settings.register_profile(
    "lungmix", max_examples=100 * FACTOR, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.load_profile("lungmix")

# Commands that tests start are those of this environment, even if it is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# A shell that starts tests in the background, or nohup, makes them ignore signals; their child processes would too.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

REAL = ("dx-a0001-soft", "dx-a0002-soft", "cmb-crc-lung")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect garbage once after all tests were imported, and leave their objects out of later collections."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items):
    for item in items:
        if "real_ct" in item.fixturenames:
            item.add_marker(pytest.mark.real)
    # Files with many slow tests run first, so that no process is left with a long file at the end.
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], item.path))


@pytest.fixture(autouse=True)
def workers_are_forked():
    """Local clusters start in a fifth of the time."""
    if "distributed" in sys.modules:
        import_module("support.forks").fork_workers()
    yield
    if (forks := sys.modules.get("support.forks")) is not None:
        forks.forget_environments()


@pytest.fixture
def new_workers(monkeypatch):
    """Local clusters start each worker as a new Python, as they do for users."""
    forks = import_module("support.forks")
    monkeypatch.setattr("distributed.nanny.get_mp_context", forks.configured_context)
    monkeypatch.setattr("distributed.process.get_mp_context", forks.configured_context)


@pytest.fixture(autouse=True)
def no_client_left():
    """Fail a test that leaves a closed or disconnected client as dask's default, which would fail all later tests."""
    before = _has_no_scheduler()
    yield
    # Wait, because a client whose scheduler was lost may take a moment to close.
    deadline = time.monotonic() + 10
    while not before and _has_no_scheduler() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert before or not _has_no_scheduler()


def _has_no_scheduler() -> bool:
    """Return True if dask would compute with a client that is not running."""
    dask, distributed = sys.modules.get("dask"), sys.modules.get("distributed")
    if dask is None or distributed is None or dask.config.get("scheduler", None) != "dask.distributed":
        return False
    try:
        return distributed.default_client().status != "running"
    except ValueError:
        return True


@pytest.fixture(scope="session")
def real_ct() -> Path:
    """Folder of the real series; without data, the test fails in CI and is skipped elsewhere."""
    folder = Path(os.environ.get("LUNGMIX_TEST_DATA", HERE.parent.parent / "shared" / "data")) / "ct"
    if not all((folder / name).is_dir() for name in REAL):
        message = f"no real CT in {folder}: set LUNGMIX_TEST_DATA"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def client():
    """Client of a cluster with two worker processes on the loopback address."""
    import lungmix
    from support.forks import fork_workers

    fork_workers()
    with lungmix.connect(workers=2, memory_limit="1.5GB") as connected:
        yield connected


@pytest.fixture
def hasty(monkeypatch):
    """Clients wait only one second for a scheduler that has never answered."""
    monkeypatch.setattr(import_module("lungmix.cluster.connect"), "_TIMEOUT", 1.0)


@pytest.fixture
def evaluates_here(monkeypatch):
    """Evaluations that compute in this process; their client is `support.evaluations.OneWorker`."""
    from contextlib import nullcontext

    import dask

    from lungmix.stages import evaluation

    def gather(client, values, watch=None):
        with dask.config.set(scheduler="synchronous"):
            return list(dask.compute(*values))

    monkeypatch.setattr(evaluation, "compute_in_order", gather)
    monkeypatch.setattr("lungmix.pipeline.runner.warn_when_no_workers", lambda *_: nullcontext(lambda: None))


@pytest.fixture
def stages_here(monkeypatch):
    """Stages that compute in this process, without a cluster; their client is None."""
    import dask

    from lungmix.stages import (
        anatomical,
        change,
        harmonise,
        label,
        lung_zones,
        mask,
        potts,
        quality,
        register,
        segmented_mask,
        sides,
    )

    def gather(client, values, watch=None):
        with dask.config.set(scheduler="synchronous"):
            return list(dask.compute(*values))

    for stage in (
        anatomical,
        change,
        harmonise,
        mask,
        label,
        lung_zones,
        potts,
        quality,
        register,
        segmented_mask,
        sides,
    ):
        monkeypatch.setattr(stage, "compute_in_order", gather)
    for stage in (mask, label):
        monkeypatch.setattr(stage, "min_worker_memory", lambda client: 1 << 30)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Empty bucket of an S3 server."""
    from support.object_store import running_bucket

    with running_bucket(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="session")
def scans(tmp_path_factory) -> Path:
    """Folder with three small phantoms of three slabs each, in different formats; tests must not change it."""
    from lungmix.phantom import Cohort, write_cohort

    folder = tmp_path_factory.mktemp("scans")
    write_cohort(folder, Cohort(3, 3, (150, 64, 64), (5.6, 5.6, 2.0), frozenset({"vessels"})), "mixed")
    return folder


@pytest.fixture(scope="session")
def scan(tmp_path_factory) -> Path:
    """File of one small phantom; tests must not change it."""
    from lungmix.phantom import Phantom, write_phantom

    path = tmp_path_factory.mktemp("scan") / "case-001.nrrd"
    write_phantom(path, Phantom((90, 64, 64), (5.5, 5.625, 3.0), 4, name="case-001"))
    return path


@pytest.fixture(scope="session")
def finished_store(scans, client, tmp_path_factory) -> str:
    """Store of the three phantoms after an undisturbed run; tests must not change it."""
    import lungmix
    from lungmix.parameters import MaskParameters
    from lungmix.pipeline import Pipeline

    url = str(tmp_path_factory.mktemp("finished") / "cohort.zarr")
    mask = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))
    report = Pipeline(client, lungmix.open_cohort(url, "a")).run([scans], mask=mask)
    assert not report.failed, report.failed
    return url
