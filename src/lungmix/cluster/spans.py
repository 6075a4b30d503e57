"""Replacement of distributed's spans in the scheduler of a local cluster."""

from __future__ import annotations

from typing import Any

from distributed.scheduler import DEFAULT_EXTENSIONS


class NoSpans:
    """Scheduler extension that stores no spans.

    The extension of distributed that it replaces never forgets a group of tasks, which takes 20 KB per scan.
    """

    def __init__(self, scheduler: Any):
        pass

    def observe_tasks(self, tasks: Any, code: Any, span_metadata: Any) -> dict[Any, dict[str, Any]]:
        """Return no annotations, because no task belongs to a span."""
        return {}

    def heartbeat(self, worker: Any, data: Any) -> None:
        """Ignore the metrics of workers; `lungmix.cluster.task_metrics` measures tasks itself."""


EXTENSIONS = {**DEFAULT_EXTENSIONS, "spans": NoSpans}
"""Extensions of the scheduler of a local cluster."""
