"""Time and memory of tasks, measured by workers and added up by the scheduler per case and stage."""

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
"""Topic of events in the scheduler's log; each has the resource totals of all tasks of a case and stage."""

ANNOTATION = "lungmix"
"""Name of the annotation of tasks with case, stage, and name of the recorder that counts them."""

TaskGroupKey = tuple[str, ...]
"""Type of the value of the annotation `ANNOTATION`."""

_ENDS = ("memory", "erred", "released", "forgotten")
_PROCESS_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True)
class ResourceUsage:
    """Resources that a stage took for one case, or for several cases together.

    Attributes
    ----------
    cases : int
        Number of cases.
    tasks : int
        Finished tasks.
    seconds : float
        Elapsed time of the stage on the client, from its start to its end, summed over cases.
    worker_seconds : float
        Time that workers spent within tasks.
    peak_bytes : int
        Peak of the resident memory of a worker's process during one of the tasks; 0 if none was reported.
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
        """Return a JSON-ready dictionary; seconds are rounded to milliseconds."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


class TaskMetricsPlugin(WorkerPlugin):
    """Worker plugin that adds time and peak memory to the metadata of each task, for `TaskTotals`."""

    name = "lungmix-tasks"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Store the worker; see distributed."""
        self._worker = worker
        self._start_times: dict[Any, float] = {}

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """Measure a task from start to end; see distributed.

        A worker has one thread, so the peak memory of its process belongs to the running task.
        """
        if finish == "executing":
            _reset_peak()
            self._start_times[key] = time.perf_counter()
        elif start == "executing" and (start_time := self._start_times.pop(key, None)) is not None:
            task = self._worker.state.tasks.get(key)
            if task is not None and ANNOTATION in (task.annotations or {}):
                # The metadata is part of the message that the task has finished, so no other message is sent.
                task.metadata[ANNOTATION] = (time.perf_counter() - start_time, _peak_bytes())


class TaskTotals(SchedulerPlugin):
    """Scheduler plugin that sums the resources of tasks, and logs the totals of a case and stage as an event.

    The event is logged when all results of a case and stage that a client requested are ready, and just before the
    client is informed of the last result.
    """

    name = "lungmix-totals"
    idempotent = True

    def __init__(self) -> None:
        self._group_of_key: dict[Any, TaskGroupKey] = {}
        self._pending: dict[TaskGroupKey, set[Any]] = {}
        self._totals: dict[TaskGroupKey, tuple[int, float, int]] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """Store the scheduler; see distributed."""
        self._scheduler = scheduler

    def update_graph(
        self, scheduler: Scheduler, *, keys: set[Any], annotations: Mapping[str, Mapping[Any, Any]], **kwargs: Any
    ) -> None:
        """Store which requested keys belong to which case and stage; see distributed."""
        annotated = annotations.get(ANNOTATION, {})
        for key in keys & annotated.keys():
            group = self._group_of_key[key] = tuple(annotated[key])
            self._pending.setdefault(group, set()).add(key)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Add the resources of a finished task; see distributed."""
        metrics = (
            (kwargs.get("metadata") or {}).get(ANNOTATION) if start == "processing" and finish == "memory" else None
        )
        if metrics is not None:
            group = tuple(self._scheduler.tasks[key].annotations[ANNOTATION])
            tasks, seconds, peak = self._totals.get(group, (0, 0.0, 0))
            self._totals[group] = (tasks + 1, seconds + metrics[0], max(peak, metrics[1]))
        if key in self._group_of_key and finish in _ENDS:
            self._complete(key)

    def _complete(self, key: Any) -> None:
        group = self._group_of_key.pop(key)
        pending = self._pending[group]
        pending.discard(key)
        if not pending:
            del self._pending[group]
            self._scheduler.log_event(TOPIC, (*group, *self._totals.pop(group, (0, 0.0, 0))))


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
    """Recorder of the resources that stages take.

    Attributes
    ----------
    total : dict of str to ResourceUsage
        Usage by stage, summed over all cases that have ended.
    """

    total: dict[str, ResourceUsage] = field(default_factory=dict)
    _running: dict[tuple[str, str], ResourceUsage] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock)
    _name: str = field(default_factory=lambda: uuid4().hex)

    @contextmanager
    def alone(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage that uses no workers."""
        start = time.perf_counter()
        yield
        self._add(stage, ResourceUsage(seconds=time.perf_counter() - start))

    @contextmanager
    def listening(self, client: Client | None, warn: Callable[[str], None] | None = None) -> Iterator[None]:
        """Receive events of a cluster within the block; `warn` is called for each worker that is not admitted."""
        # With a closed client, later requests of the block fail with a clear error.
        if client is None or is_closed(client):
            yield
            return
        self.listen(client, warn)
        try:
            yield
        finally:
            with suppress(ValueError, ClosedClientError):
                client.unsubscribe_topic(TOPIC)
                client.unsubscribe_topic(worker_admission.TOPIC)

    def listen(self, client: Client, warn: Callable[[str], None] | None = None) -> None:
        """Register plugins and subscribe to events of the scheduler; needed again after the scheduler restarted."""
        client.register_plugin(TaskTotals())
        client.register_plugin(exit_watch())
        client.subscribe_topic(TOPIC, self._add_event)
        client.subscribe_topic(
            worker_admission.TOPIC,
            lambda event: warn(worker_admission.describe_rejected_worker(event[1])) if warn else None,
        )
        worker_admission.register_admission(client)

    @contextmanager
    def measure(self, case: str, stage: str) -> Iterator[Measurement]:
        """Measure a stage of a case within the block, including all tasks that the block submits.

        Yields
        ------
        Measurement
            The block sets its status. If the status is not ``"kept"``, its usage is set at the end of the block.
        """
        case_stage = case, stage
        measurement = Measurement()
        with self._lock:
            self._running[case_stage] = ResourceUsage()
        start = time.perf_counter()
        try:
            with dask.annotate(**{ANNOTATION: [case, stage, self._name]}):
                yield measurement
        finally:
            with self._lock:
                usage = self._running.pop(case_stage)
            if measurement.status != "kept":
                measurement.usage = replace(usage, cases=1, seconds=time.perf_counter() - start)
                self._add(stage, measurement.usage)

    def _add(self, stage: str, usage: ResourceUsage) -> None:
        with self._lock:
            self.total[stage] = self.total.get(stage, ResourceUsage()) + usage

    def _add_event(self, event: tuple[float, tuple[str, str, str, int, float, int]]) -> None:
        case, stage, recorder_name, tasks, seconds, peak = event[1]
        case_stage = case, stage
        with self._lock:
            # Other clients of the scheduler may work on cases of the same names.
            if recorder_name == self._name and case_stage in self._running:
                self._running[case_stage] += ResourceUsage(tasks=tasks, worker_seconds=seconds, peak_bytes=peak)


def _reset_peak() -> None:
    # Only Linux can reset the peak memory of a process. On other systems, the memory at the end of a task is reported.
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)


def _peak_bytes() -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in _PROCESS_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
