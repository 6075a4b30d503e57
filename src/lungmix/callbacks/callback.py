"""Interface of callbacks that receive the events of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from lungmix.cluster.task_metrics import ResourceUsage


class Callback:
    """Base of callbacks, which ignores every event; subclasses override the methods of the events that they use.

    Methods for different cases are called from different threads.
    """

    def on_begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """Handle the start of a stage, `title`, for `cases`; `sizes` are the bytes of HU of each case, if known."""

    def on_progress(self, case: str, stage: str, done: int, total: int) -> None:
        """Handle progress of a case: `done` of `total` tasks of its stage are finished."""

    def on_usage(self, case: str, stage: str, usage: ResourceUsage) -> None:
        """Handle the time and memory that a stage of a case took; not called for a stage that was kept."""

    def on_case_end(self, case: str, failure: str | None = None) -> None:
        """Handle the end of a case, with the reason if it failed."""

    def on_end(self) -> None:
        """Handle the end of the stage that `on_begin` started, after all its cases."""

    def on_info(self, message: str) -> None:
        """Handle a message for information, such as the address of the dashboard."""

    def on_warning(self, message: str) -> None:
        """Handle a warning, such as advice on a preset."""


@contextmanager
def stage_events(
    callback: Callback, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Call `on_begin` before a block and `on_end` after it.

    Yields
    ------
    callable
        ``progress(done, total)``, which reports progress of the first of `cases`, for a block with one item.
    """
    callback.on_begin(title, cases, sizes)
    try:
        yield lambda done, total: callback.on_progress(cases[0], title, done, total)
    finally:
        callback.on_end()
