"""One writer a store, whoever dies and however many come at once."""

import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import psutil
import pytest

import lungmix
from lungmix.errors import LockedError
from lungmix.store import lock


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "store.zarr", "a")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "store.zarr" / "lock.json"


def put(file, **changes):
    owner = replace(lock.Owner.here(), **changes)
    file.write_text(json.dumps(asdict(owner)))
    return owner


def test_second_writer_is_refused_and_told_host_process_and_age(cohort, file):
    process = psutil.Process()
    with cohort.locked():
        assert file.is_file()
        told = rf"process {process.pid} on {socket.gethostname()}, for \d+ s"
        with pytest.raises(LockedError, match=told), cohort.locked():
            pass
        with pytest.raises(LockedError, match="--wait"):
            cohort.check_free()
        assert list(lungmix.open_cohort(cohort.url)) == []
    assert not file.exists()
    cohort.check_free()


def test_second_writer_waits_and_says_for_whom(cohort, monkeypatch):
    monkeypatch.setattr(lock, "_POLL_S", 0.01)
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
    with cohort.locked(wait=True, say=heard.append):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert len(heard) == 1
    assert "waiting for process" in heard[0]


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


def test_process_with_the_number_of_the_owner_is_not_the_owner(cohort, file):
    put(file, born=1.0)
    with cohort.locked():
        pass


@pytest.mark.parametrize(("age", "stale"), [(lock.STALE_S - 60, False), (lock.STALE_S + 60, True)])
def test_lock_of_another_host_is_stale_once_it_is_not_renewed(cohort, file, age, stale):
    put(file, host="elsewhere", beat=time.time() - age)
    if stale:
        with cohort.locked():
            pass
    else:
        with pytest.raises(LockedError, match="on elsewhere"), cohort.locked():
            pass


def test_unreadable_lock_is_taken_over(cohort, file):
    file.write_text("{half")
    with cohort.locked():
        pass


def test_lock_is_renewed_while_it_is_held(cohort, file, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.02)
    with cohort.locked():
        first = json.loads(file.read_text())
        end = time.monotonic() + 20
        while json.loads(file.read_text())["beat"] == first["beat"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert json.loads(file.read_text())["since"] == first["since"]


def test_of_many_who_see_a_dead_owner_one_at_a_time_writes(cohort, file, monkeypatch):
    monkeypatch.setattr(lock, "_POLL_S", 0.001)
    inside, most, entered = [], [], []
    guard = threading.Lock()

    def enter(name):
        with cohort.locked(wait=True):
            with guard:
                inside.append(name)
                most.append(len(inside))
                entered.append(name)
            time.sleep(0.002)
            with guard:
                inside.remove(name)

    for _ in range(5):
        put(file, born=1.0)
        threads = [threading.Thread(target=enter, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(most) == 1
    assert len(entered) == 30
    assert sorted(p.name for p in file.parent.iterdir()) == ["zarr.json"]
