"""Helpers for the tests of docs/recipes: run a recipe as users do, and end all its processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from distributed import Client

import lungmix
from lungmix.cluster import WORKER_ENVIRONMENT
from support.clusters import wait_until
from support.command import SMALL

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
CASES = ["case-001", "case-002"]
ELSEWHERE = {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
"""Environment variables of a process on another machine, which inherits none from this one."""
CHECKOUT = f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}"
"""Environment variables by which such a process finds the lungmix of these tests."""


def words(store: Path, scans: Path) -> list[str]:
    """Return the arguments of a run on small scans, without the name of the program."""
    return ["run", str(store), str(scans), "--model", "published", *SMALL, "--json"]


def site_in(folder: Path) -> dict[str, object]:
    """Return the settings that a site has to change in recipes in Python: interface, folders, path of this checkout."""
    return {
        "interface": "lo",
        "local_directory": str(folder),
        "log_directory": str(folder),
        "job_script_prologue": [f"export {CHECKOUT}"],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }


@contextmanager
def running(command: Sequence[str | Path], environment: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen]:
    """Run a recipe in a separate session, with its output in a folder; its processes end with the block."""
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdout=out, stderr=err, start_new_session=True
        )
    try:
        yield process
    finally:
        end({process.pid})
        process.wait(30)


def of_sessions(leaders: Iterable[int]) -> list[psutil.Process]:
    """Return the processes of the sessions that the given processes lead or have led."""
    pids = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) in set(leaders) and process.status() != psutil.STATUS_ZOMBIE:
                pids.append(process)
    return pids


def end(leaders: Iterable[int]) -> None:
    """End all processes of sessions."""
    for process in of_sessions(leaders):
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


def assert_nothing_is_left(leaders: Iterable[int]) -> None:
    leaders = set(leaders)

    def names():
        return "\n".join(" ".join(process.cmdline()) for process in of_sessions(leaders))

    wait_until(lambda: not of_sessions(leaders), names, seconds=20)


def assert_work_goes_to_workers_like_local_ones(address: str, workers: int = 2) -> list[str]:
    """Wait until each worker of a running recipe has computed a task, and return the names of the workers.

    Check that workers have the environment, threads and memory of local ones.
    """

    def environment():
        return dict(os.environ)

    def executed(dask_worker):
        return dask_worker.state.executed_count

    def saturation(dask_scheduler):
        return dask_scheduler.WORKER_SATURATION

    with Client(address) as client:
        client.wait_for_workers(workers, timeout=60)
        assert client.run_on_scheduler(saturation) == 1.0
        for values in client.run(environment).values():
            assert values.items() >= WORKER_ENVIRONMENT.items()
        worker_infos = client.scheduler_info(n_workers=-1)["workers"].values()
        assert len(worker_infos) == workers
        for worker in worker_infos:
            assert worker["nthreads"] == 1
            assert abs(worker["memory_limit"] / 2e9 - 1) < 0.01
        wait_until(lambda: all(client.run(executed).values()), lambda: "workers to which no work came", every=0.5)
        return [worker["name"] for worker in worker_infos]


def address_in(command: str) -> str:
    """Return the address of the scheduler in the command of a worker."""
    match = re.search(r"tcp://\S+", command)
    assert match, command
    return match[0]


def assert_done(process: subprocess.Popen, folder: Path) -> None:
    """Wait for the end of a recipe, and check that its output is the summary of the cases and nothing else."""
    status = process.wait(180)
    assert status == 0, story(folder)
    assert json.loads((folder / "out").read_text())["done"] == CASES


def assert_equal(store: Path, local: lungmix.Cohort) -> None:
    cohort = lungmix.open_cohort(store)
    assert list(cohort) == list(local) == CASES
    for name, case in cohort.items():
        for image in ("ct", "lung", "side", "tissue", "tissue_median"):
            array = case.array(image).compute()
            assert array.any()
            assert np.array_equal(array, local[name].array(image).compute())


def story(folder: Path) -> str:
    """Return the text of all files of a folder, for messages of failed tests."""
    files = [file for file in sorted(folder.glob("*")) if file.is_file()]
    return "\n".join(f"{file.name}:\n{file.read_text(errors='replace')}" for file in files)
