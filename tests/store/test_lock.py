"""Write lock of a store, with killed owners and concurrent processes."""

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace

import numpy as np
import psutil
import pytest
from zarr.storage import LocalStore

import lungmix
from lungmix.errors import LockedError, StoreError
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CaseWriter, CohortWriter
from lungmix.store.lock import STALE_S, LockInfo, acquire, handle, owner_of


@pytest.fixture(autouse=True)
def watch(monkeypatch):
    """Shorten the time for which locks of other machines are observed; tests may set another time."""
    monkeypatch.setattr(acquire, "WATCH_S", 0.05)


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "store.zarr", "a")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "store.zarr" / "lock.json"


@pytest.fixture
def gone():
    """Number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(file, **changes):
    owner = replace(LockInfo.of_this_process(), **changes)
    file.write_text(json.dumps(asdict(owner)))
    return owner


def test_second_writer_is_rejected_with_host_process_and_age(cohort, file):
    process = psutil.Process()
    with cohort.locked():
        assert file.is_file()
        pattern = rf"process {process.pid} on {socket.gethostname()}, for \d+ s"
        with pytest.raises(LockedError, match=pattern), cohort.locked():
            pass
        with pytest.raises(LockedError, match="`wait=True`"):
            CohortWriter(cohort).check_free()
        assert list(lungmix.open_cohort(cohort.url)) == []
    assert not file.exists()
    CohortWriter(cohort).check_free()


def test_second_writer_waits_and_names_the_owner(cohort, monkeypatch):
    monkeypatch.setattr(acquire, "_POLL_S", 0.01)
    heard, order, held = [], [], threading.Event()

    def first():
        with cohort.locked():
            held.set()
            while not heard:
                time.sleep(0.01)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with cohort.locked(wait=True, warn=heard.append):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert len(heard) == 1
    assert "waiting for process" in heard[0]


def test_lock_that_could_not_be_deleted_does_not_block_its_own_process(cohort, file, monkeypatch):
    async def refuse(*args):
        raise StoreError("the object store does not answer")

    with monkeypatch.context() as failing:
        failing.setattr(LocalStore, "delete", refuse)
        with cohort.locked():
            pass
    assert file.exists()
    with cohort.locked():
        assert file.exists()
    assert not file.exists()


def test_lock_of_a_process_that_was_killed_is_taken_over(cohort, file):
    code = (
        "import lungmix, sys, time\n"
        f"with lungmix.open_cohort({cohort.url!r}, 'r+').locked():\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "held"
        with pytest.raises(LockedError, match=f"process {process.pid} "), cohort.locked():
            pass
        process.kill()
        process.wait()
    assert file.is_file()
    with cohort.locked():
        assert json.loads(file.read_text())["pid"] == psutil.Process().pid
    assert sorted(p.name for p in file.parent.iterdir()) == ["zarr.json"]


@pytest.mark.parametrize("offset", [3.0, -3600.0])
def test_owner_is_recognized_after_the_clock_was_set(cohort, file, offset):
    put(file, born=psutil.Process().create_time() + offset)
    with pytest.raises(LockedError, match="is being written to"), cohort.locked():
        pass


def test_process_that_reuses_the_number_of_a_stale_owner_is_not_the_owner(cohort, file):
    put(file, born=1.0, beat=time.time() - STALE_S - 60)
    with cohort.locked():
        pass


def test_living_owner_keeps_its_lock_without_heartbeats(cohort, file):
    put(file, beat=time.time() - 86400)
    with pytest.raises(LockedError, match=r"last heartbeat 24\.0 h ago"), cohort.locked():
        pass


def test_lock_of_a_zombie_process_is_taken_over(cohort, file):
    with subprocess.Popen(["sleep", "600"]) as process:
        put(file, pid=process.pid, born=psutil.Process(process.pid).create_time())
        process.kill()
        end = time.monotonic() + 20
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < end
            time.sleep(0.01)
        with cohort.locked():
            pass


@pytest.mark.parametrize(("age", "stale"), [(STALE_S - 60, False), (STALE_S + 60, True)])
@pytest.mark.parametrize("pid", ["own", "gone"])
def test_process_numbers_of_other_containers_on_this_host_are_ignored(cohort, file, gone, pid, age, stale):
    put(file, space="another", pid=gone if pid == "gone" else psutil.Process().pid, beat=time.time() - age)
    if stale:
        with cohort.locked():
            pass
    else:
        with pytest.raises(LockedError, match="is being written to"), cohort.locked():
            pass


def test_lock_of_another_container_on_this_host_is_not_taken_over(cohort, file):
    code = (
        "import lungmix, sys\n"
        f"with lungmix.open_cohort({cohort.url!r}, 'r+').locked():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [*UNSHARE, sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "held"
        owner = json.loads(file.read_text())
        assert owner["host"] == socket.gethostname()
        with pytest.raises(LockedError, match=f"process {owner['pid']} on"), cohort.locked():
            pass
        process.stdin.close()
        assert process.wait() == 0
    assert not file.exists()


@pytest.mark.parametrize(("age", "stale"), [(STALE_S - 60, False), (STALE_S + 60, True)])
def test_lock_of_another_host_is_stale_without_heartbeats(cohort, file, age, stale):
    put(file, host="elsewhere", beat=time.time() - age)
    if stale:
        with cohort.locked():
            pass
    else:
        with pytest.raises(LockedError, match="on elsewhere"), cohort.locked():
            pass


def test_living_owner_on_a_host_with_a_slow_clock_keeps_its_lock(cohort, file, monkeypatch):
    monkeypatch.setattr(acquire, "WATCH_S", 60.0)
    monkeypatch.setattr(acquire, "_POLL_S", 0.01)
    owner = put(file, host="elsewhere", beat=time.time() - STALE_S - 600)
    over, part = threading.Event(), file.with_name("part")

    def renew():
        beat = owner.beat
        while not over.wait(0.05):
            beat += 20.0
            part.write_text(json.dumps(asdict(replace(owner, beat=beat))))
            part.replace(file)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(LockedError, match="on elsewhere"), cohort.locked():
            pass
    finally:
        over.set()
        thread.join()
    assert json.loads(file.read_text())["token"] == owner.token
    assert not list(file.parent.glob("lock-*"))


def test_lock_that_is_stale_by_the_clock_of_the_store_is_taken_over_at_once(cohort, file, monkeypatch):
    monkeypatch.setattr(acquire, "WATCH_S", 3600.0)
    put(file, host="elsewhere", beat=time.time() - STALE_S - 60)
    os.utime(file, (time.time() - STALE_S - 60,) * 2)
    with cohort.locked():
        assert json.loads(file.read_text())["host"] == socket.gethostname()


ODD = [
    "{half", "", "[]", "[" * 100_000, "null", "\ufeff{}", '{"beat": "x"}', '{"beat": 1e300}', '{"beat": NaN}',
    *(
        json.dumps({"host": socket.gethostname(), "pid": 1, "born": 0, "since": 0, "beat": 0, "token": "t", **changes})
        for changes in ({"pid": "x"}, {"pid": -1}, {"pid": 10**30}, {"token": "a/../../x"}, {"born": None}, {"host": 7})
    ),
]  # fmt: skip


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
def test_unreadable_lock_is_taken_over(cohort, file, content):
    file.write_text(content)
    CohortWriter(cohort).check_free()
    with cohort.locked():
        assert json.loads(file.read_text())["pid"] == psutil.Process().pid
    assert sorted(p.name for p in file.parent.iterdir()) == ["zarr.json"]


def test_lock_of_an_unknown_owner_is_stale_without_heartbeats(cohort, file):
    file.write_text(json.dumps({"beat": time.time() - 30, "who": "a later version"}))
    with pytest.raises(LockedError, match="an unknown process, for 30 s"), cohort.locked():
        pass
    file.write_text(json.dumps({"beat": time.time() - STALE_S - 30}))
    with cohort.locked():
        pass


@pytest.mark.parametrize("depth", [1, 2])
def test_claims_of_killed_processes_block_no_later_run(cohort, file, gone, depth):
    last = put(file, pid=gone)
    for _ in range(depth):
        last = put(file.with_name(f"lock-{last.token}.json"), pid=gone)
    put(file.with_name(f"lock-{'0' * 32}.json"), pid=gone)
    with cohort.locked():
        assert json.loads(file.read_text())["pid"] == psutil.Process().pid
    assert sorted(p.name for p in file.parent.iterdir()) == ["zarr.json"]


def test_error_names_the_process_that_is_taking_a_lock_over(cohort, file, gone):
    dead = put(file, pid=gone)
    put(file.with_name(f"lock-{dead.token}.json"))
    with pytest.raises(LockedError, match=f"process {psutil.Process().pid} on"), cohort.locked():
        pass


def lose(file):
    """Write another owner into the lock, as another machine does when it takes the lock over."""
    return put(file, host="elsewhere")


@contextmanager
def lost(cohort):
    """Hold the lock in a block, and expect the error for a lost lock at its end."""
    with pytest.raises(LockedError, match="another run has taken the store over"), cohort.locked():
        yield


@pytest.mark.parametrize("how", ["taken", "removed"])
def test_owner_that_lost_the_lock_can_no_longer_write(cohort, file, monkeypatch, how):
    monkeypatch.setattr(handle, "CHECK_S", 0.0)
    CohortWriter(cohort).add("one", Geometry((4, 4, 4)), Acquisition())
    with lost(cohort):
        case = CaseWriter(cohort["one"])
        case.start_stage("convert", "k")
        new_lock = lose(file) if how == "taken" else file.unlink()
        before = contents(file.parent)
        writes = [
            lambda: case.record("convert", {"key": "k"}),
            lambda: case.start_stage("convert", "k"),
            lambda: case.record_failure("convert", "r"),
            lambda: case.create_image("ct"),
            lambda: case.create_packed("air"),
            lambda: case.write_histogram("hu_counts", np.zeros(65536, np.uint64)),
            lambda: case.write_object("labels/zarr.json", b"x"),
            lambda: case.delete_array("0"),
            lambda: CohortWriter(cohort).write_text("measurements.csv", "x"),
            lambda: CohortWriter(cohort).record_settings(fit={}),
            lambda: CohortWriter(cohort).register_scans({"one": {"key": "k", "source": "s"}}),
            lambda: CohortWriter(cohort).delete_cases("one"),
            lambda: CohortWriter(cohort).add("two", Geometry((4, 4, 4)), Acquisition()),
        ]
        for write in writes:
            with pytest.raises(LockedError, match="run the same command again"):
                write()
        assert contents(file.parent) == before
        # A process without the lock gets the plain store.
        assert isinstance(pickle.loads(pickle.dumps(case))._group.store, LocalStore)
    assert (owner_of(cohort._group.store).token == new_lock.token) if new_lock else not file.exists()


def test_suspended_owner_checks_the_lock_before_a_write(cohort, file, monkeypatch):
    with lost(cohort):
        lose(file)
        CohortWriter(cohort).write_text("model.json", "within seconds it is believed to be held")
        now = time.time()
        monkeypatch.setattr(handle.time, "time", lambda: now + 600)
        with pytest.raises(LockedError):
            CohortWriter(cohort).write_text("model.json", "late")
    assert cohort.read_text("model.json") == "within seconds it is believed to be held"


def test_owner_that_lost_the_lock_gets_an_error_at_the_end(cohort, file):
    with lost(cohort):
        lose(file)
    assert owner_of(cohort._group.store).host == "elsewhere"


def test_suspended_owner_that_still_has_the_lock_renews_it_before_a_write(cohort, file, monkeypatch):
    with cohort.locked():
        put(file, **{**json.loads(file.read_text()), "beat": time.time() - STALE_S})
        monkeypatch.setattr(handle, "CHECK_S", 0.0)
        CohortWriter(cohort).write_text("model.json", "x")
        assert time.time() - json.loads(file.read_text())["beat"] < 60


def test_one_check_of_the_lock_serves_many_writes(cohort, monkeypatch):
    checks = []
    refresh = handle.LockHandle.refresh

    async def counted(self, **options):
        checks.append(1)
        await refresh(self, **options)

    monkeypatch.setattr(handle.LockHandle, "refresh", counted)
    with cohort.locked():
        for i in range(20):
            CohortWriter(cohort).write_text("model.json", str(i))
        assert not checks


def test_settings_written_by_others_before_the_lock_are_kept(tmp_path):
    waiting = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    with lungmix.open_cohort(tmp_path / "s.zarr", "a").locked():
        first = lungmix.open_cohort(tmp_path / "s.zarr", "a")
        CohortWriter(first).record_settings(fits={"key": "k"}, highest_number=3)
    with waiting.locked():
        assert waiting.settings["fits"] == {"key": "k"}
        CohortWriter(waiting).record_settings(fit={"given": True})
    cohort_after = lungmix.open_cohort(tmp_path / "s.zarr")
    assert cohort_after.settings["fits"] == {"key": "k"}
    assert cohort_after.settings["fit"] == {"given": True}
    assert cohort_after.settings["highest_number"] == 3
    assert CohortWriter(cohort_after).salt == CohortWriter(first).salt == CohortWriter(waiting).salt


def test_processes_that_create_one_store_agree_on_its_salt(tmp_path):
    ready = threading.Barrier(8)

    def make(_):
        ready.wait()
        return CohortWriter(lungmix.open_cohort(tmp_path / "s.zarr", "a")).salt

    with ThreadPoolExecutor(8) as pool:
        salts = set(pool.map(make, range(8)))
    assert salts == {CohortWriter(lungmix.open_cohort(tmp_path / "s.zarr")).salt}


def test_locked_store_is_not_repaired_by_another_process(cohort, file):
    metadata = file.with_name("zarr.json")
    CohortWriter(cohort).register_scans({"one": {"key": "k", "source": "s"}})
    with cohort.locked():
        metadata.write_text("")
        beside = lungmix.open_cohort(cohort.url, "a")
        assert metadata.read_text() == ""
        CohortWriter(cohort).record_settings(fit={"given": True})
    with beside.locked():
        assert beside.settings["fit"] == {"given": True}
        assert CohortWriter(beside).salt == CohortWriter(cohort).salt


def test_lock_is_renewed_while_it_is_held(cohort, file, monkeypatch):
    monkeypatch.setattr(acquire, "BEAT_S", 0.02)
    with cohort.locked():
        first = json.loads(file.read_text())
        end = time.monotonic() + 20
        while json.loads(file.read_text())["beat"] == first["beat"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert json.loads(file.read_text())["since"] == first["since"]


def test_one_of_many_processes_that_see_a_stale_lock_takes_it_over(cohort, file, gone, monkeypatch):
    monkeypatch.setattr(acquire, "_POLL_S", 0.001)
    inside, largest, entered = [], [], []
    guard = threading.Lock()

    def enter(name):
        with cohort.locked(wait=True):
            with guard:
                inside.append(name)
                largest.append(len(inside))
                entered.append(name)
            time.sleep(0.002)
            with guard:
                inside.remove(name)

    for _ in range(5):
        put(file, pid=gone)
        threads = [threading.Thread(target=enter, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(largest) == 1
    assert len(entered) == 30
    assert sorted(p.name for p in file.parent.iterdir()) == ["zarr.json"]


def test_lock_is_not_taken_over_while_its_owner_gives_it_back(cohort, monkeypatch):
    attempts, delete = [], acquire.delete

    def attempt_and_delete(store, key):
        if not attempts:
            attempts.append(key)
            with pytest.raises(LockedError), lungmix.open_cohort(cohort.url, "r+").locked():
                pass
        delete(store, key)

    monkeypatch.setattr(acquire, "delete", attempt_and_delete)
    with cohort.locked():
        pass
    assert attempts == ["lock.json"]


def test_partial_files_of_killed_writers_are_deleted(cohort, file):
    left = [file.with_name(f"{name}.{'0a' * 16}.partial") for name in ("measurements", "zarr", "lock")]
    fresh = file.with_name(f"lock.{'1b' * 16}.partial")
    other = file.with_name("my.partial")
    for path in (*left, fresh, other):
        path.write_text("half")
    os.utime(left[-1], (1e9, 1e9))
    with cohort.locked():
        pass
    assert sorted(p.name for p in file.parent.iterdir()) == sorted([fresh.name, other.name, "zarr.json"])


def test_interrupt_while_the_lock_is_taken_leaves_no_lock(tmp_path, monkeypatch):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    take = acquire._take

    def take_and_be_interrupted(*arguments):
        take(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(acquire, "_take", take_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt), cohort.locked():
        pass
    assert not (tmp_path / "s.zarr" / "lock.json").exists()
