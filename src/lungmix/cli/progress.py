"""Progress of a run: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lungmix.cli.names import told
from lungmix.engine import Listener


def listener_for(console: Console, *, quiet: bool) -> Listener:
    """Bars where people look, lines where a file collects them, nothing if asked for."""
    if quiet:
        return Listener()
    return Bars(console) if console.is_terminal else Lines(console)


class Bars(Listener):
    """One bar for all cases, and one for each case in flight."""

    def __init__(self, console: Console):
        self._console = console
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._all = TaskID(0)

    def begin(self, title: str, cases: Sequence[str]) -> None:
        """See `Listener`."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._progress.start()
        self._all = self._progress.add_task(f"[bold]{title}, all cases", total=len(cases))

    def advance(self, case: str, stage: str, done: int, total: int) -> None:
        """See `Listener`."""
        with self._lock:
            if self._progress is None:
                return
            if case not in self._tasks:
                self._tasks[case] = self._progress.add_task(case, total=total)
            self._progress.update(self._tasks[case], description=f"  {case}: {stage}", completed=done, total=total)

    def finish(self, case: str, failure: str | None = None) -> None:
        """See `Listener`."""
        with self._lock:
            if self._progress is None:
                return
            if case in self._tasks:
                self._progress.remove_task(self._tasks.pop(case))
            if failure:
                self._progress.console.print(f"{case}: failed: {told(failure)}", style="red", markup=False)
            self._progress.advance(self._all)

    def end(self) -> None:
        """See `Listener`."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self._tasks.clear()

    def say(self, message: str) -> None:
        """See `Listener`."""
        self._console.print(message, style="yellow", markup=False)


class Lines(Listener):
    """A line when a case has ended, with the time that the rest may take."""

    def __init__(self, console: Console):
        self._console = console
        self._title = ""
        self._total = self._done = 0
        self._start = 0.0

    def begin(self, title: str, cases: Sequence[str]) -> None:
        """See `Listener`."""
        self._title, self._total, self._done, self._start = title, len(cases), 0, time.monotonic()

    def finish(self, case: str, failure: str | None = None) -> None:
        """See `Listener`."""
        self._done += 1
        spent = time.monotonic() - self._start
        left = spent / self._done * (self._total - self._done)
        what = f"failed: {told(failure)}" if failure else "done"
        self._line(f"{self._title} {self._done}/{self._total} {case}: {what} ({spent:.0f} s, about {left:.0f} s left)")

    def say(self, message: str) -> None:
        """See `Listener`."""
        self._line(message)

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
