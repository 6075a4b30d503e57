"""One fault per test; after it, the store has the same bytes as after an undisturbed run."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import dask
import pytest

import lungmix
from faults.processes import MASK as MASK_WORDS
from faults.processes import Cluster, end, kill, run_with_kills, start_run, wait_until
from faults.proxy import Proxy
from lungmix.callbacks import Callback
from lungmix.cluster.reconnect import warn_when_no_workers
from lungmix.errors import LockedError
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.pipeline import Pipeline, reason_of
from lungmix.pipeline.retry import RetryPolicy
from lungmix.store import CohortWriter
from lungmix.store.lock import handle
from support.clusters import free_port
from support.command import run_here
from support.stores import assert_same_store, store_digest

pytestmark = pytest.mark.slow

MASK, FIT = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3)), FitParameters(fit="anchored")
STAGES = ("convert", "mask", "label")


@pytest.fixture
def undisturbed(finished_store):
    return finished_store


def run(client, url, *sources, callback=None):
    """Run the pipeline with the parameters of the undisturbed store, and check that no case fails."""
    report = Pipeline(client, lungmix.open_cohort(url, "a"), callback or Callback()).run(sources, mask=MASK, fit=FIT)
    assert not report.failed, report.failed
    return report


class Strike(Callback):
    """Callback that calls the function `blow` once, at the first progress of a stage, and stores warnings in `said`."""

    def __init__(self, stage, blow):
        self._stage, self._blow = stage, blow
        self.said = []

    def on_progress(self, case, stage, done, total):
        if stage == self._stage and self._blow is not None:
            blow, self._blow = self._blow, None
            blow()

    def on_warning(self, message):
        self.said.append(message)


@pytest.mark.parametrize("stage", STAGES)
def test_worker_killed_in_a_stage(stage, scans, undisturbed, client, tmp_path):
    victim = next(iter(client.cluster.workers.values())).pid
    run(client, tmp_path / "s.zarr", scans, callback=Strike(stage, lambda: kill(victim)))
    assert victim not in {process.pid for process in client.cluster.workers.values()}
    assert_same_store(undisturbed, tmp_path / "s.zarr")


@pytest.mark.parametrize("length", [100, None], ids=["cut short", "deleted"])
@pytest.mark.parametrize("whose", ["case-002", ""], ids=["case", "store"])
def test_lost_metadata_fail_one_case_and_are_restored_from_the_source(
    whose, length, scans, undisturbed, client, tmp_path
):
    store = Path(shutil.copytree(undisturbed, tmp_path / "s.zarr"))
    file = store / whose / "zarr.json"
    if length is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:length])
    # A run without the source finishes all other cases, and names the corrupt one.
    report = Pipeline(client, lungmix.open_cohort(store, "a")).run([], mask=MASK)
    assert set(report.failed) == {whose} - {""}
    assert all("Pipeline.remove" in reason for reason in report.failed.values())
    assert {str(row["case"]) for row in report.rows} == {"case-001", "case-002", "case-003"} - {whose}
    run(client, store, scans)
    assert_same_store(undisturbed, store)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory):
    """A cluster that continues after its clients have ended."""
    with Cluster(tmp_path_factory.mktemp("lasting")) as started:
        wait_until(started.answers)
        yield started


@pytest.mark.parametrize("stage", STAGES)
def test_client_killed_in_a_stage_and_run_again(stage, scans, undisturbed, lasting, tmp_path):
    store, log = tmp_path / "s.zarr", tmp_path / "client.log"
    words = ("--scheduler", lasting.address)
    client = start_run(store, [scans], *words, log=log)
    try:
        wait_until(lambda: client.poll() is not None or under_way(store, stage))
        assert client.poll() is None, log.read_text()
        kill(client.pid)
        client.wait()
    finally:
        end(client)
    assert (store / "lock.json").is_file()
    done = run_here("run", store, scans, *MASK_WORDS, *words)
    assert done.returncode == 0, done.stderr
    assert_same_store(undisturbed, store)


def test_client_killed_in_the_first_masks_resumes_with_its_parameters(scans, client, lasting, tmp_path):
    store, log = tmp_path / "s.zarr", tmp_path / "client.log"
    words = ("--scheduler", lasting.address)
    process = start_run(store, [scans], *words, "--fit", "converged", log=log)
    try:
        wait_until(lambda: process.poll() is not None or under_way(store, "mask"))
        assert process.poll() is None, log.read_text()
        kill(process.pid)
        process.wait()
    finally:
        end(process)
    done = run_here("run", store, scans, *words)
    assert done.returncode == 0, done.stderr
    fit = FitParameters(fit="converged")
    Pipeline(client, lungmix.open_cohort(tmp_path / "undisturbed.zarr", "a")).run([scans], mask=MASK, fit=fit)
    assert_same_store(tmp_path / "undisturbed.zarr", store)


@pytest.mark.parametrize("stage", STAGES)
def test_client_that_was_stopped_while_another_run_took_over_changes_nothing(
    stage, scans, client, lasting, tmp_path, monkeypatch
):
    monkeypatch.setattr(handle, "CHECK_S", 0.0)
    store, after = tmp_path / "s.zarr", {}
    other = dataclasses.replace(MASK, threshold=-300)

    def take_over():
        """Replace the lock, as a run on another host does after five minutes without a heartbeat of this one."""
        (store / "lock.json").unlink()
        with lungmix.connect(lasting.address) as workers:
            report = Pipeline(workers, lungmix.open_cohort(store, "a")).run([scans], mask=other)
        assert len(report.done) == 3
        assert not report.failed
        after.update(store_digest(store))

    strike = Strike(stage, take_over)
    with pytest.raises(LockedError, match="another run has taken the store over"):
        Pipeline(client, lungmix.open_cohort(store, "a"), strike).run([scans], mask=MASK)
    assert after
    assert store_digest(store) == after
    assert not (store / "lock.json").exists()


def test_scheduler_lost_and_back(scans, undisturbed, tmp_path):
    store, log = tmp_path / "s.zarr", tmp_path / "client.log"
    with Cluster(tmp_path) as cluster:
        words = ("--scheduler", cluster.address)
        client = start_run(store, [scans], *words, log=log)
        try:
            wait_until(lambda: client.poll() is not None or under_way(store, "mask"))
            kill(cluster.scheduler.pid)
            cluster.scheduler.wait()

            def ended():
                cluster.mend()
                return client.poll() is not None

            wait_until(ended, 300)
            assert client.returncode in (0, 1), log.read_text()
            if client.returncode:
                assert "the connection to the scheduler was lost" in log.read_text()
            assert "Traceback" not in log.read_text()
            client = start_run(store, [scans], *words, log=log)
            wait_until(ended, 300)
            assert client.returncode == 0, log.read_text()
        finally:
            end(client)
    assert_same_store(undisturbed, store)


def test_scheduler_away_for_longer_than_a_connection_may_take_is_waited_for(scans, undisturbed, hasty, tmp_path):
    ended = Event()

    def mend_later(cluster, callback):
        wait_until(lambda: ended.is_set() or any("scheduler is lost" in message for message in callback.said))
        ended.wait(2.5)
        # Workers end a while after their scheduler.
        while not ended.wait(0.2):
            cluster.mend()

    with Cluster(tmp_path, workers=1) as cluster, ThreadPoolExecutor() as pool:
        callback = Strike("mask", lambda: kill(cluster.scheduler.pid))
        mended = pool.submit(mend_later, cluster, callback)
        wait_until(cluster.answers)
        try:
            with lungmix.connect(cluster.address, timeout=60) as connected:
                run(connected, tmp_path / "s.zarr", scans, callback=callback)
        finally:
            ended.set()
        mended.result()
    assert sum("scheduler is lost" in message for message in callback.said) == 1
    assert any("is back" in message for message in callback.said)
    assert_same_store(undisturbed, tmp_path / "s.zarr")
    # The restarted scheduler reports task metrics again.
    for case in lungmix.open_cohort(tmp_path / "s.zarr").values():
        assert case.watched["label"]["tasks"] > 0


def test_scheduler_that_stays_lost_fails_each_case_with_one_sentence(scans, hasty, tmp_path):
    with Cluster(tmp_path, workers=1) as cluster:
        callback = Strike("mask", lambda: kill(cluster.scheduler.pid))
        wait_until(cluster.answers)
        with lungmix.connect(cluster.address, timeout=5) as connected:
            report = Pipeline(connected, lungmix.open_cohort(tmp_path / "s.zarr", "a"), callback).run(
                [scans], mask=MASK
            )
    assert sorted(report.failed) == ["case-001", "case-002", "case-003"]
    assert all(
        "the connection to the scheduler was lost: start it again" in reason for reason in report.failed.values()
    )


@pytest.fixture
def interrupts():
    """SIGINT raises KeyboardInterrupt, as by default; libraries that other tests import make it end the process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_interrupt_while_the_scheduler_is_lost_ends_the_run(scans, tmp_path):
    with Cluster(tmp_path, workers=1) as cluster:
        wait_until(cluster.answers)
        with lungmix.connect(cluster.address) as connected:

            def blow():
                kill(cluster.scheduler.pid)
                wait_until(lambda: connected.status == "connecting")
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                # The case now waits for its mask, which no worker computes.

            run = Pipeline(connected, lungmix.open_cohort(tmp_path / "s.zarr", "a"), Strike("mask", blow)).run
            begun = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                run([scans], mask=MASK)
            assert time.monotonic() - begun < 60


def test_network_cut_between_a_worker_and_the_scheduler(scans, undisturbed, tmp_path):
    store, log = tmp_path / "s.zarr", tmp_path / "client.log"
    with Cluster(tmp_path, workers=1) as cluster:
        proxy = Proxy(cluster.port)
        far = cluster.add_worker(proxy.port)
        client = start_run(store, [scans], "--scheduler", cluster.address, log=log)
        try:
            wait_until(lambda: client.poll() is not None or under_way(store, "mask"))
            assert client.poll() is None, log.read_text()
            proxy.cut()
            assert client.wait(300) == 0, log.read_text()
        finally:
            end(client)
            end(far)
    assert_same_store(undisturbed, store)


def test_run_without_any_worker_warns_and_continues_with_the_next(scans, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["lungmix.cluster.reconnect"], "_NO_WORKERS_S", 1.0)
    with Cluster(tmp_path, workers=1) as cluster:

        def blow():
            (nanny,), workers = cluster.nannies, cluster.worker_processes()
            for pid in (nanny.pid, *workers):
                kill(pid)

        class Mending(Strike):
            def on_warning(self, message):
                super().on_warning(message)
                if message.startswith("no worker is left"):
                    cluster.mend()

        wait_until(cluster.answers)
        with lungmix.connect(cluster.address) as connected:
            callback = Mending("mask", blow)
            run(connected, tmp_path / "s.zarr", scans, callback=callback)
    messages = [warning for warning in callback.said if "worker" in warning]
    # A slow machine may lose the new worker for a moment too, so expect pairs of warnings: lost, and back.
    assert messages
    assert [warning.split(":")[0] for warning in messages] == ["no worker is left", "a worker is back"] * (
        len(messages) // 2
    )
    assert_same_store(undisturbed, tmp_path / "s.zarr")


def test_worker_killed_while_others_fetch_its_results(scans, undisturbed, tmp_path):
    store, log, port = tmp_path / "s.zarr", tmp_path / "client.log", free_port()
    with Cluster(tmp_path, workers=1) as cluster, ExitStack() as stack:
        killed = []

        def strike(passed):
            # So many bytes are no mere messages: a response with slabs is being sent.
            if passed > 1 << 14 and not killed and under_way(store, "mask"):
                killed.append(passed)
                kill(far.pid)

        # All data that other workers fetch from this worker pass the proxy.
        proxy = Proxy(port, strike)
        words = ("--no-nanny", "--listen-address", f"tcp://127.0.0.1:{port}")
        words += ("--contact-address", f"tcp://127.0.0.1:{proxy.port}")
        far = cluster.add_worker(cluster.port, *words)
        stack.callback(end, far)
        client = start_run(store, [scans], "--scheduler", cluster.address, log=log)
        stack.callback(end, client)
        assert client.wait(300) == 0, log.read_text()
        assert killed
        assert far.wait(10) == -signal.SIGKILL
    assert_same_store(undisturbed, store)


def test_disk_full_and_then_not(scans, undisturbed, client, tmp_path):
    with small_disk(tmp_path, "1200k") as disk:
        store = disk / "s.zarr"
        report = Pipeline(client, lungmix.open_cohort(store, "a")).run([scans], mask=MASK)
        assert report.failed
        assert any("disk space" in reason for reason in report.failed.values()), report.failed
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        run(client, store, scans)
        assert_same_store(undisturbed, store)


def test_store_turned_read_only_and_back(scans, undisturbed, client, tmp_path):
    with small_disk(tmp_path, "200m") as disk:
        store = disk / "s.zarr"
        cohort = lungmix.open_cohort(store, "a")
        Pipeline(client, cohort).convert([scans])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            Pipeline(client, cohort).run([scans], mask=MASK)
        done = run_here("run", store, scans, *MASK_WORDS, "--scheduler", client.scheduler.address)
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr
        assert "Traceback" not in done.stderr
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        run(client, store, scans)
        assert_same_store(undisturbed, store)


NEW_MASK = {"mask": MaskParameters(opening=1, min_voxels=2000, radii=(4, 3))}
NEW_MODEL = {"mask": MASK, "model": "published"}
NOTHING_NEW, NEW_FIT = {"mask": MASK}, {"mask": MASK, "fit": FitParameters(n_components=4)}
NEW_METHOD = {"mask": MASK, "fit": FitParameters(method="em", n_init=1)}


@pytest.mark.parametrize(
    ("reading", "keys"),
    [
        (NEW_MODEL, ["0/c/1/0/0", "labels/lung/0/c/1/0/0", "hu_counts/c/0"]),
        (NEW_MODEL, ["side_counts/c/0/0"]),
        (NEW_MASK, ["air/c/1/0/0"]),
        # No stage has to run; the client reads the histograms to measure.
        (NOTHING_NEW, ["hu_counts/c/0", "side_counts/c/0/0"]),
        # The mask array is found to be corrupt while labels are computed, and the histogram while mixtures are fitted.
        (NEW_FIT, ["labels/lung/0/c/1/0/0", "hu_counts/c/0"]),
        # The fit by EM reads the masks.
        (NEW_METHOD, ["labels/lung/0/c/1/0/0"]),
    ],
)
def test_damaged_objects_are_named_and_recomputed(reading, keys, scans, undisturbed, client, tmp_path):
    store = copy_of(undisturbed, tmp_path)
    # One object per case is enough, because cases do not depend on each other.
    damaged = dict(zip(("case-002", "case-001", "case-003"), keys, strict=False))
    for name, key in damaged.items():
        flip(store / name / key)
    callback = Strike(None, None)
    # This run reads the stored objects. A later run with the original parameters must restore the original bytes.
    report = Pipeline(client, lungmix.open_cohort(store, "r+"), callback).run([scans], **reading)
    assert not report.failed, report.failed
    for name, key in damaged.items():
        assert any(name in message and key.split("/c/")[0] in message for message in callback.said), callback.said
    run(client, store, scans)
    assert_same_store(undisturbed, store)


@pytest.mark.parametrize("command", ["fit", "measure", "relabel"])
def test_damaged_counts_fail_their_case_where_no_mask_is_made(command, scans, undisturbed, client, tmp_path):
    store = copy_of(undisturbed, tmp_path)
    flip(store / "case-002/hu_counts/c/0")
    pipeline = Pipeline(client, lungmix.open_cohort(store, "r+"))
    words = {"fit": ("fit", FitParameters(n_components=4)), "measure": (), "relabel": ("fit",)}[command]
    report = getattr(pipeline, command)(*words)
    assert "hu_counts is damaged" in report.failed["case-002"]
    assert report.done == ["case-001", "case-003"]
    # The store now records the damage, and the next run recomputes the mask.
    assert lungmix.open_cohort(store)["case-002"].damage.keys() == {"mask"}
    run(client, store, scans)
    assert_same_store(undisturbed, store)


def test_scheduler_lost_amid_em_over_voxels_is_waited_for(undisturbed, hasty, tmp_path):
    store = copy_of(undisturbed, tmp_path)
    parameters = FitParameters(method="em", n_init=1)
    with Cluster(tmp_path, workers=1) as cluster, ThreadPoolExecutor() as pool:
        struck, ended = Event(), Event()

        def mend():
            while not ended.wait(0.2):
                if struck.is_set():
                    cluster.mend()

        def blow():
            kill(cluster.scheduler.pid)
            struck.set()

        callback = Strike("fit", blow)
        pool.submit(mend)
        wait_until(cluster.answers)
        try:
            with lungmix.connect(cluster.address, timeout=60) as connected:
                cohort = lungmix.open_cohort(store, "r+")
                report = Pipeline(connected, cohort, callback).fit("fit", parameters)
        finally:
            ended.set()
    assert any("is back" in message for message in callback.said)
    assert report.fits.paper.fit_info["method"] == "em"
    assert report.done == ["case-001", "case-002", "case-003"]


def test_lost_object_is_recomputed_and_nothing_else(scans, undisturbed, client, tmp_path):
    store = copy_of(undisturbed, tmp_path)
    lost = store / "case-001/labels/tissue_median/1/c/1/0/0"
    lost.unlink()
    times = {file: file.stat().st_mtime_ns for file in store.rglob("c/*/0/0") if "tissue" not in str(file)}
    run(client, store, scans)
    assert lost.is_file()
    assert times == {file: file.stat().st_mtime_ns for file in times}
    assert_same_store(undisturbed, store)


def test_damaged_image_without_its_source_fails_by_name_while_the_others_go_on(undisturbed, client, tmp_path):
    store = copy_of(undisturbed, tmp_path)
    flip(store / "case-002/0/c/1/0/0")
    other = MaskParameters(opening=1, min_voxels=2000, radii=(4, 3))
    report = Pipeline(client, lungmix.open_cohort(store, "r+")).run([], mask=other)
    assert list(report.failed) == ["case-002"]
    assert "`Pipeline.run(sources)` with its source" in report.failed["case-002"]
    assert report.done == ["case-001", "case-003"]
    case = lungmix.open_cohort(store)["case-002"]
    assert "damaged" in case.damage["convert"]["reason"]
    assert case.failure["stage"]


def test_case_that_kills_workers_is_tried_alone_and_then_reported(client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    callback = Strike(None, None)
    tried = []

    def work(name):
        tried.append(name)
        if name == "hungry":
            raise MemoryError("no room")

    retry = RetryPolicy(client, cohort, callback.on_warning)
    outcomes = {outcome.item: outcome.error for outcome in retry.map_cases(["hungry", "a", "b"], work, 1)}
    assert isinstance(outcomes["hungry"], MemoryError)
    CohortWriter(cohort).register_scans({"hungry": {"key": "k", "source": "s"}})
    retry.record_failure("hungry", "convert", outcomes["hungry"])
    assert "`memory_limit" in cohort.failed["hungry"]["reason"]
    assert outcomes["a"] is outcomes["b"] is None
    assert tried == ["hungry", "a", "b", "hungry"]
    assert any("one at a time" in outcome for outcome in callback.said)


def test_worker_out_of_memory_leaves_the_other_cases_alone(tmp_path):
    # A task fails after one worker has ended. With dask's default of three, the test would take four times as long.
    patience = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with patience, lungmix.connect(workers=1, memory_limit="700MB") as client:
        cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
        warn = Strike(None, None).on_warning
        retry = RetryPolicy(client, cohort, warn)

        def work(name):
            client.submit(hog if name == "hungry" else len, name, pure=False).result()

        with warn_when_no_workers(client, warn):
            outcomes = {outcome.item: outcome.error for outcome in retry.map_cases(["hungry", "modest"], work, 2)}
    assert outcomes["modest"] is None
    assert "memory" in reason_of(outcomes["hungry"])


def test_random_kills_leave_the_same_bytes(scans, undisturbed, tmp_path):
    store = tmp_path / "s.zarr"
    killed = run_with_kills(store, [scans], tmp_path, 5, (1.0, 3.0), seed=1)
    assert killed
    assert_same_store(undisturbed, store)


def hog(_name):
    held = []
    for _ in range(2000):
        held.append(bytearray(os.urandom(1 << 20)))
    return len(held)


def under_way(store, stage):
    """Return True if the metadata of a case say that this stage is under way."""
    for file in Path(store).glob("case-*/zarr.json"):
        try:
            attributes = json.loads(file.read_text())["attributes"]["lungmix"]
        except (ValueError, KeyError, OSError):
            continue
        if attributes.get("working", {}).get("stage") == stage:
            return True
    return False


def copy_of(url, tmp_path):
    return Path(shutil.copytree(url, tmp_path / "copy.zarr"))


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


@contextmanager
def small_disk(tmp_path, size):
    """A small disk in memory, which the test can fill; needs permission to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode and not os.environ.get("CI"):
        pytest.skip("disks can be mounted by root alone")
    assert mounted.returncode == 0, mounted.stderr
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
