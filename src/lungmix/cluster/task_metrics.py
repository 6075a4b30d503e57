"""Where time and memory go: workers note it with each task, the scheduler adds up by case and stage for the client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import psutil
from distributed import Client, Scheduler, SchedulerPlugin, Worker, WorkerPlugin
from distributed.client import ClosedClientError

from lungmix.cluster import worker_admission
from lungmix.cluster.reconnect import is_closed
from lungmix.cluster.worker_exits import exit_watch

TOPIC = "lungmix-tasks"
"""Under which a scheduler tells what the tasks of a case and stage took."""

ABOUT = "lungmix"
"""Annotation of tasks: case, stage, and which ledger counts them."""

Place = tuple[str, ...]
"""What tasks carry as `ABOUT`."""

_ENDS = ("memory", "erred", "released", "forgotten")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


@dataclass(frozen=True)
class ResourceUsage:
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

    def __add__(self, other: ResourceUsage) -> ResourceUsage:
        return ResourceUsage(
            self.cases + other.cases,
            self.tasks + other.tasks,
            self.seconds + other.seconds,
            self.worker_seconds + other.worker_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; seconds to the millisecond."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


class TaskMetricsPlugin(WorkerPlugin):
    """Notes with each task how long it took and how much memory its process had, for the scheduler to add up."""

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
            if task is not None and ABOUT in (task.annotations or {}):
                # It travels with the message that the task is finished, which costs no message of its own.
                task.metadata[ABOUT] = (time.perf_counter() - begun, _peak())


class TaskTotals(SchedulerPlugin):
    """Adds up what tasks took, and tells it once all that a client wanted of a case and stage is there.

    It tells before the client hears that the last result is there.
    """

    name = "lungmix-totals"
    idempotent = True

    def __init__(self) -> None:
        self._places: dict[Any, Place] = {}
        self._waiting: dict[Place, set[Any]] = {}
        self._sums: dict[Place, tuple[int, float, int]] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """See distributed."""
        self._scheduler = scheduler

    def update_graph(
        self, scheduler: Scheduler, *, keys: set[Any], annotations: Mapping[str, Mapping[Any, Any]], **kwargs: Any
    ) -> None:
        """See distributed; `keys` are those that the client wants."""
        about = annotations.get(ABOUT, {})
        for key in keys & about.keys():
            place = self._places[key] = tuple(about[key])
            self._waiting.setdefault(place, set()).add(key)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """See distributed."""
        took = (kwargs.get("metadata") or {}).get(ABOUT) if start == "processing" and finish == "memory" else None
        if took is not None:
            place = tuple(self._scheduler.tasks[key].annotations[ABOUT])
            tasks, seconds, peak = self._sums.get(place, (0, 0.0, 0))
            self._sums[place] = (tasks + 1, seconds + took[0], max(peak, took[1]))
        if key in self._places and finish in _ENDS:
            self._tick_off(key)

    def _tick_off(self, key: Any) -> None:
        place = self._places.pop(key)
        waiting = self._waiting[place]
        waiting.discard(key)
        if not waiting:
            del self._waiting[place]
            self._scheduler.log_event(TOPIC, (*place, *self._sums.pop(place, (0, 0.0, 0))))


@dataclass
class Measurement:
    """Result of `UsageRecorder.measure`.

    Attributes
    ----------
    status : str
        Status of the stage, ``"kept"`` or ``"done"``.
    usage : ResourceUsage
        Resources that the stage took.
    """

    status: str = "kept"
    usage: ResourceUsage = field(default_factory=ResourceUsage)


@dataclass
class UsageRecorder:
    """Adds up what tasks tell.

    Attributes
    ----------
    total : dict of str to Spent
        By stage, of all cases that have ended.
    """

    total: dict[str, ResourceUsage] = field(default_factory=dict)
    _open: dict[tuple[str, str], ResourceUsage] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)
    _name: str = field(default_factory=lambda: uuid4().hex)

    @contextmanager
    def alone(self, stage: str) -> Iterator[None]:
        """Count the time of the block for a stage that the client does by itself."""
        start = time.perf_counter()
        yield
        self._add(stage, ResourceUsage(seconds=time.perf_counter() - start))

    @contextmanager
    def listening(self, client: Client | None, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hear the workers of a cluster within the block; `say` is told of those that are not fit to work."""
        # What is asked of a client that is closed fails, and says so.
        if client is None or is_closed(client):
            yield
            return
        self.listen(client, say)
        try:
            yield
        finally:
            with suppress(ValueError, ClosedClientError):
                client.unsubscribe_topic(TOPIC)
                client.unsubscribe_topic(worker_admission.TOPIC)

    def listen(self, client: Client, say: Callable[[str], None] | None = None) -> None:
        """Begin to listen, or begin again at a scheduler that was started anew."""
        client.register_plugin(TaskTotals())
        client.register_plugin(exit_watch())
        client.subscribe_topic(TOPIC, self._hear)
        client.subscribe_topic(
            worker_admission.TOPIC, lambda event: say(worker_admission.complaint(event[1])) if say else None
        )
        worker_admission.register_admission(client)

    @contextmanager
    def measure(self, case: str, stage: str) -> Iterator[Measurement]:
        """Measure a stage of a case within the block; what the block submits is counted for it.

        Yields
        ------
        Measurement
            The block sets its status. After the block its usage is set, unless the status is ``"kept"``.
        """
        place = case, stage
        measurement = Measurement()
        with self._lock:
            self._open[place] = ResourceUsage()
        start = time.perf_counter()
        try:
            with dask.annotate(**{ABOUT: [case, stage, self._name]}):
                yield measurement
        finally:
            with self._lock:
                usage = self._open.pop(place)
            if measurement.status != "kept":
                measurement.usage = replace(usage, cases=1, seconds=time.perf_counter() - start)
                self._add(stage, measurement.usage)

    def _add(self, stage: str, spent: ResourceUsage) -> None:
        with self._lock:
            self.total[stage] = self.total.get(stage, ResourceUsage()) + spent

    def _hear(self, event: tuple[float, tuple[str, str, str, int, float, int]]) -> None:
        case, stage, ledger, tasks, seconds, peak = event[1]
        place = case, stage
        with self._lock:
            # Other clients of the scheduler may work on cases of the same names.
            if ledger == self._name and place in self._open:
                self._open[place] += ResourceUsage(tasks=tasks, worker_seconds=seconds, peak_bytes=peak)


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
