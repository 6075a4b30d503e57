"""Where time and memory go: workers tell of each finished task, the client adds up by case and stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import psutil
from distributed import Client, Worker, WorkerPlugin
from distributed.client import ClosedClientError

from lungmix.engine import gate

TOPIC = "lungmix-tasks"
"""Under which workers tell of their tasks."""

ABOUT = "lungmix"
"""Annotation of tasks: case, stage, and which ledger counts them."""

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


@dataclass(frozen=True)
class Spent:
    """What a stage of a case, or of many, took.

    Attributes
    ----------
    cases : int
        Cases that were worked on.
    tasks : int
        Finished tasks.
    seconds : float
        From the first submission to the last result, on the client's clock, added up over cases.
    worker_seconds : float
        Time that workers spent within tasks.
    peak_bytes : int
        Most resident memory of a worker's process while one of the tasks ran; 0 if nothing was told.
    """

    cases: int = 0
    tasks: int = 0
    seconds: float = 0.0
    worker_seconds: float = 0.0
    peak_bytes: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.cases + other.cases,
            self.tasks + other.tasks,
            self.seconds + other.seconds,
            self.worker_seconds + other.worker_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; seconds to the millisecond."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


class TaskWatch(WorkerPlugin):
    """Tells of each task that carries a case and a stage how long it took and how much memory its process had."""

    name = "lungmix-tasks"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """See distributed."""
        self._worker = worker
        self._begun: dict[Any, float] = {}

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """See distributed; a worker has one thread, so what its process holds is held for this task."""
        if finish == "executing":
            _forget_peak()
            self._begun[key] = time.perf_counter()
        elif start == "executing" and (begun := self._begun.pop(key, None)) is not None:
            task = self._worker.state.tasks.get(key)
            about = (task.annotations or {}).get(ABOUT) if task is not None else None
            if about:
                case, stage, ledger = about
                seconds = time.perf_counter() - begun
                message = {"case": case, "stage": stage, "ledger": ledger, "seconds": seconds, "peak": _peak()}
                self._worker.log_event(TOPIC, message)


@dataclass
class Ledger:
    """Adds up what tasks tell.

    Attributes
    ----------
    total : dict of str to Spent
        By stage, of all cases that have ended.
    """

    total: dict[str, Spent] = field(default_factory=dict)
    _open: dict[tuple[str, str], Spent] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)
    _name: str = field(default_factory=lambda: uuid4().hex)

    @contextmanager
    def alone(self, stage: str) -> Iterator[None]:
        """Count the time of the block for a stage that the client does by itself."""
        start = time.perf_counter()
        yield
        self._add(stage, Spent(seconds=time.perf_counter() - start))

    @contextmanager
    def listening(self, client: Client | None, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hear the workers of a cluster within the block; `say` is told of those that are not fit to work."""
        if client is None:
            yield
            return
        self.listen(client, say)
        try:
            yield
        finally:
            # A client that gave a lost scheduler up is closed.
            with suppress(ValueError, ClosedClientError):
                client.unsubscribe_topic(TOPIC)
                client.unsubscribe_topic(gate.TOPIC)

    def listen(self, client: Client, say: Callable[[str], None] | None = None) -> None:
        """Begin to listen, or begin again at a scheduler that was started anew."""
        client.subscribe_topic(TOPIC, self._hear)
        client.subscribe_topic(gate.TOPIC, lambda event: say(gate.complaint(event[1])) if say else None)
        gate.admit(client)

    def watch(self, case: str, stage: str, work: Callable[[], str]) -> tuple[str, Spent]:
        """Do a stage of a case; what it submits is counted for it.

        Returns
        -------
        status : str
            Of `work`.
        spent : Spent
            Nothing where the status is ``"kept"``.
        """
        place = case, stage
        with self._lock:
            self._open[place] = Spent()
        start = time.perf_counter()
        try:
            with dask.annotate(**{ABOUT: [case, stage, self._name]}):
                status = work()
        finally:
            with self._lock:
                told = self._open.pop(place)
            spent = replace(told, cases=1, seconds=time.perf_counter() - start)
        if status == "kept":
            return status, Spent()
        self._add(stage, spent)
        return status, spent

    def _add(self, stage: str, spent: Spent) -> None:
        with self._lock:
            self.total[stage] = self.total.get(stage, Spent()) + spent

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        place = message["case"], message["stage"]
        with self._lock:
            # Other clients of the scheduler may work on cases of the same names.
            if message["ledger"] == self._name and place in self._open:
                one = Spent(tasks=1, worker_seconds=message["seconds"], peak_bytes=message["peak"])
                self._open[place] += one


def _forget_peak() -> None:
    # Linux alone can forget the peak of a process; elsewhere what is resident at the end stands in for it.
    with suppress(OSError):
        _CLEAR.write_text(_FORGET_PEAK)


def _peak() -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
