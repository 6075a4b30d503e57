"""Signals end a command cleanly; closed pipes and the encoding of the terminal do not change its exit status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.clusters import wait_until

LUNGMIX = Path(sys.executable).with_name("lungmix")
WORK = (
    "import sys, time, lungmix.cli.app as app\n"
    "def command():\n"
    "    try:\n"
    "        print('begun', flush=True); time.sleep(60)\n"
    "    finally:\n"
    "        print('cleared up', flush=True)\n"
    "app.app.command('wait')(command)\n"
    "sys.argv = ['lungmix', 'wait']\n"
    "app.main()\n"
)


def wait_command(*before):
    return subprocess.Popen(
        [*before, sys.executable, "-c", WORK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_ends_a_command_after_its_cleanup(number):
    with wait_command() as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "cleared up\n"), err
    assert "Traceback" not in err


def test_signal_that_is_ignored_stays_ignored():
    with wait_command("nohup") as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


def test_signal_ends_process_1_of_a_container():
    with wait_command("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child") as outer:
        assert outer.stdout.readline() == "begun\n"
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        out, err = outer.communicate(timeout=30)
    assert (outer.returncode, out) == (128 + signal.SIGTERM, "cleared up\n"), err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "group"),
    [("lock.json", False), ("case*/*", True)],
    ids=["alone, as by kill", "with its workers, as by a batch system"],
)
def test_run_that_is_ended_by_a_signal_leaves_neither_lock_nor_scratch(scans, tmp_path, begun, group):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    store = tmp_path / "s.zarr"
    words = ["run", store, scans, "--preset", "physical", "--workers", "1", "--memory-limit", "2GB"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(
        [LUNGMIX, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        try:
            wait_until(lambda: any(store.glob(begun)), lambda: "not begun", process, every=0.02)
            (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert b"Traceback" not in err
    assert [line for line in err.splitlines() if b"signal" in line] == [
        b"stopped by a signal; run the same command again to resume"
    ]
    assert not (store / "lock.json").exists()
    assert not [path for path in scratch.rglob("*") if path.is_file() and "kernels" not in str(path)]


def test_names_that_a_terminal_cannot_show_change_no_exit_status(tmp_path):
    (tmp_path / "東京.txt").write_text("no image")
    (tmp_path / "Jörg\udcf6.txt").write_text("no image")
    statuses = set()
    for encoding in ("ascii", "cp1252", "latin-1", "utf-8"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([LUNGMIX, "scan", tmp_path], capture_output=True, env=environment, timeout=60)
        assert b"Traceback" not in done.stderr, encoding
        assert b"no image" in done.stdout, encoding
        statuses.add(done.returncode)
    assert len(statuses) == 1


def test_closed_pipe_changes_no_exit_status():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [LUNGMIX, "measure", "--dictionary"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
