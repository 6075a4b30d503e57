"""Interface of callbacks that receive the events of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from lungmix.cluster.task_metrics import ResourceUsage


class Callback:
    """Callback that ignores every event; subclasses override the events that they use.

    Events of different cases come from different threads.
    """

    def on_begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """Handle the start of a stage for cases; `sizes` are the bytes of their HU where known."""

    def on_progress(self, case: str, stage: str, done: int, total: int) -> None:
        """Handle progress: `done` of `total` tasks of a stage of a case are finished."""

    def on_usage(self, case: str, stage: str, usage: ResourceUsage) -> None:
        """Handle the resources that a computed stage of a case took."""

    def on_case_end(self, case: str, failure: str | None = None) -> None:
        """Handle the end of a case, with the reason if it failed."""

    def on_end(self) -> None:
        """Handle the end of the stage for all cases."""

    def on_info(self, message: str) -> None:
        """Handle a message for information, such as the address of the dashboard."""

    def on_warning(self, message: str) -> None:
        """Handle a warning, such as advice on a preset."""


@contextmanager
def stage_events(
    callback: Callback, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Send the begin and the end of a block to a callback; yield a function of the progress of the first of `cases`."""
    callback.on_begin(title, cases, sizes)
    try:
        yield lambda done, total: callback.on_progress(cases[0], title, done, total)
    finally:
        callback.on_end()
