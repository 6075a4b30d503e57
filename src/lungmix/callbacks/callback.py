"""What happens during a run, told to whoever listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lungmix.cluster.task_metrics import ResourceUsage


class Callback:
    """Does nothing on every event; a face of the program overrides what it shows.

    Events of different cases come from different threads.
    """

    def on_begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """A part of the run begins for these cases; `sizes` are the bytes of their HU where they are known."""

    def on_progress(self, case: str, stage: str, done: int, total: int) -> None:
        """`done` of `total` tasks of a case's stage are finished."""

    def on_usage(self, case: str, stage: str, spent: ResourceUsage) -> None:
        """A stage of a case was made, and took this."""

    def on_case_end(self, case: str, failure: str | None = None) -> None:
        """A case has left this part of the run, with the reason if it failed."""

    def on_end(self) -> None:
        """This part of the run is over for all cases."""

    def on_info(self, message: str) -> None:
        """Something that people may want to know, such as the address of the dashboard."""

    def on_warning(self, message: str) -> None:
        """Something that people should read, such as advice on a preset."""
