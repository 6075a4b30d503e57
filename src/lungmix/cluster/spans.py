"""What the scheduler of a local cluster need not remember."""

from __future__ import annotations

from typing import Any

from distributed.scheduler import DEFAULT_EXTENSIONS


class NoSpans:
    """In place of distributed's spans, which keep every group of tasks for ever: 20 KB a scan, and nobody asks."""

    def __init__(self, scheduler: Any):
        pass

    def observe_tasks(self, tasks: Any, code: Any, span_metadata: Any) -> dict[Any, dict[str, Any]]:
        """No task belongs to a span."""
        return {}

    def heartbeat(self, worker: Any, data: Any) -> None:
        """What workers measured for spans is dropped; the ledger has its own figures."""


EXTENSIONS = {**DEFAULT_EXTENSIONS, "spans": NoSpans}
"""Of the scheduler of a local cluster."""
