"""A dask cluster as its users start one: a scheduler and workers, each a process of its own on the loopback address."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_cluster(folder: Path, workers: int = 2, memory_limit: str = "1.5GB"):
    """Address and scheduler file of a cluster; its processes end with the block."""
    file, port = folder / "scheduler.json", free_port()
    dask = [sys.executable, "-m", "dask"]
    scheduler = [
        *dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--scheduler-file", str(file),
    ]  # fmt: skip
    worker = [
        *dask, "worker", "--scheduler-file", str(file), "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard",
        "--memory-limit", memory_limit, "--local-directory", str(folder),
    ]  # fmt: skip
    with (folder / "cluster.log").open("w") as log:
        processes = [subprocess.Popen(scheduler, stdout=log, stderr=log)]
        try:
            for _ in range(600):
                if file.is_file():
                    break
                assert processes[0].poll() is None, (folder / "cluster.log").read_text()
                time.sleep(0.1)
            processes += [subprocess.Popen(worker, stdout=log, stderr=log) for _ in range(workers)]
            yield f"tcp://127.0.0.1:{port}", file
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
