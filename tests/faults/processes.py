"""Schedulers, workers and clients in separate processes, which tests kill and start again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from support import forks
from support.clusters import CALM, free_port

MASK = ("--preset", "paper", "--opening", "1", "--min-voxels", "3000", "--radius", "4", "--radius", "3")


@dataclass
class Cluster:
    """Cluster of a scheduler and workers with nannies; `mend` restarts processes that have ended."""

    folder: Path
    workers: int = 2
    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen | None = None
    nannies: list[subprocess.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> Cluster:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.nannies, self.scheduler]:
            end(process)

    def mend(self) -> None:
        """Start the processes of the cluster that are not running."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.scheduler = self._start("scheduler", "--port", str(self.port))
        self.nannies = [nanny for nanny in self.nannies if nanny.poll() is None]
        while len(self.nannies) < self.workers:
            self.nannies.append(self.add_worker(self.port))

    def answers(self) -> bool:
        """Return True if the scheduler accepts connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def add_worker(self, port: int, *words: str) -> subprocess.Popen:
        """Start a worker with its nanny that connects to the scheduler by a port; the caller keeps track of it."""
        return self._start(
            "worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--memory-limit", "1.5GB",
            "--death-timeout", "10", "--local-directory", str(self.folder), *words,
        )  # fmt: skip

    def worker_processes(self) -> list[int]:
        """Return the ids of worker processes, which are children of their nannies."""
        return [worker for nanny in self.nannies for worker in forks.workers_of(nanny.pid, self.folder)]

    def _start(self, kind: str, *words: str) -> subprocess.Popen:
        place = () if "--listen-address" in words else ("--host", "127.0.0.1")
        return forks.start(
            "dask", [kind, *words, *place, "--no-dashboard"], self.folder / f"{kind}.log", {**os.environ, **CALM}
        )


def start_run(store, sources, *words: str, log: Path, model: str = "fit", env=None) -> subprocess.Popen:
    """Start the command ``lungmix run`` in a process."""
    return start_command("run", store, *sources, *MASK, "--model", model, "--quiet", *words, log=log, env=env)


def start_command(*words: object, log: Path, env=None) -> subprocess.Popen:
    """Start a command of lungmix in a process."""
    return forks.start("lungmix", [str(word) for word in words], log, {**os.environ, **(env or {})})


def kill(pid: int) -> None:
    """End a process at once, as a power cut would."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def end(process: subprocess.Popen | None) -> None:
    """End a process that this module started, and wait for it."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(condition, seconds: float = 120.0) -> None:
    """Poll a condition; fail if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def run_with_kills(store, sources, folder: Path, kills: int, pause: tuple[float, float], seed: int) -> list[str]:
    """Run a cohort to its end while random processes are killed; return the kinds of the killed ones, at most `kills`.

    The client is started again until it ends with status 0.
    """
    choose = random.Random(seed)
    killed: list[str] = []
    with Cluster(folder) as cluster:
        client = start_run(store, sources, "--scheduler", cluster.address, log=folder / "client.log")
        try:
            due = time.monotonic() + choose.uniform(*pause)
            deadline = time.monotonic() + 1200
            while True:
                assert time.monotonic() < deadline, (folder / "client.log").read_text()[-2000:]
                cluster.mend()
                status = client.poll()
                if status == 0:
                    return killed
                if status is not None:
                    client = start_run(store, sources, "--scheduler", cluster.address, log=folder / "client.log")
                if len(killed) < kills and time.monotonic() > due:
                    victims = {
                        "client": [client.pid],
                        "scheduler": [cluster.scheduler.pid],
                        "nanny": [nanny.pid for nanny in cluster.nannies],
                        "worker": cluster.worker_processes(),
                    }
                    kind = choose.choice([nanny for nanny, pids in victims.items() if pids])
                    kill(choose.choice(victims[kind]))
                    killed.append(kind)
                    due = time.monotonic() + choose.uniform(*pause)
                time.sleep(0.1)
        finally:
            end(client)
