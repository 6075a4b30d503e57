"""Commands and processes with their wall-clock time, processor time and resident memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import psutil

MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """A command that has ended.

    Attributes
    ----------
    seconds : float
        Wall-clock.
    cpu : float
        Processor seconds of the command and of all processes that it started.
    peak : int
        Peak of the resident memory of all these processes together, bytes.
    largest : int
        Peak of the resident memory of the largest of these processes, bytes.
    output : str
        Standard output.
    """

    seconds: float
    cpu: float
    peak: int
    largest: int
    output: str


def run_command(*words: object) -> Run:
    """Run a command to its end; raise an error if it fails."""
    before = _children_cpu()
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = Watch([process.pid], family=True)
    watch.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - start
    watch.stop()
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}:\n{errors}")
    return Run(seconds, _children_cpu() - before, watch.together, max(watch.peaks.values(), default=0), output)


def python(*words: object) -> Run:
    """Run a script or module in a new Python process."""
    return run_command(sys.executable, *words)


def lungmix(*words: object) -> Run:
    """Run a command of lungmix in a new process, with the start of Python and the cluster."""
    return python("-c", "from lungmix.cli import main; main()", *words)


def in_fresh_process(function: Callable[..., Any], *values: Any) -> Any:
    """Return the result of a function that runs in a new process, so that its memory contains nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *values).result()


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor seconds that processes have used so far."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def rss(pid: int) -> int:
    """Return the resident memory of a process, bytes."""
    return int(psutil.Process(pid).memory_info().rss)


class Watch(threading.Thread):
    """Thread that samples the memory of processes twenty times a second, on request with their child processes."""

    def __init__(self, pids: Sequence[int], family: bool = False, every: float = 0.05):
        super().__init__(daemon=True)
        self.peaks = dict.fromkeys(pids, 0)
        self.together = 0
        self._family = family
        self._every = every if not family else 4 * every
        self._over = threading.Event()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(self._every):
            now = {}
            for pid in self._pids():
                try:
                    now[pid] = rss(pid)
                except psutil.Error:
                    continue
            for pid, size in now.items():
                self.peaks[pid] = max(self.peaks.get(pid, 0), size)
            self.together = max(self.together, sum(now.values()))

    def _pids(self) -> list[int]:
        pids = list(self.peaks)
        if self._family:
            try:
                pids = [pids[0], *(child.pid for child in psutil.Process(pids[0]).children(recursive=True))]
            except psutil.Error:
                return []
        return pids


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
