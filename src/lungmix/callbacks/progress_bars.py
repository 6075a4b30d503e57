"""Bars that show the progress of a run, on a terminal or in a notebook."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lungmix.callbacks.callback import Callback
from lungmix.errors import count_of, redact


class Amount:
    """Progress of a stage over all its cases.

    Attributes
    ----------
    done, total : int
        Bytes of HU of the cases that have ended, and of all cases. If sizes are unknown, numbers of cases instead.
    """

    def __init__(self, cases: Sequence[str], sizes: Mapping[str, int] | None):
        self._sizes = sizes or {}
        self._cases, self._ended = len(cases), 0
        self.done, self.total = 0, sum(map(self._size_of, cases))

    def add(self, case: str) -> None:
        """Count a case as ended."""
        self._ended += 1
        self.done += self._size_of(case)

    @property
    def text(self) -> str:
        """Text such as ``3/62 cases, 1.3 GB of 26.9 GB``."""
        if not self._sizes:
            return f"{self._ended}/{self._cases}"
        return f"{self._ended}/{count_of(self._cases, 'case')}, {decimal(self.done)} of {decimal(self.total)}"

    def _size_of(self, case: str) -> int:
        return self._sizes.get(case, 0) if self._sizes else 1


class ProgressBars(Callback):
    """Callback that shows one bar for all cases and one per case in flight, and prints warnings and failures.

    Parameters
    ----------
    console : rich.console.Console, optional
        Console to print to; by default standard error, or the output of the cell in a notebook.
    spell : callable, optional
        Called with each message, returns it as it is printed. By default names of files are removed.
    """

    def __init__(self, console: Console | None = None, spell: Callable[[str], str] = redact):
        self._console = console or (Console() if Console().is_jupyter else Console(stderr=True))
        self._spell = spell
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._all = TaskID(0)
        self._amount = Amount([], None)

    def on_begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """See `Callback`."""
        self._amount = Amount(cases, sizes)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._progress.start()
        self._all = self._progress.add_task(
            f"[bold]{title}, all cases", total=self._amount.total, amount=self._amount.text
        )

    def on_progress(self, case: str, stage: str, done: int, total: int) -> None:
        """See `Callback`."""
        with self._lock:
            if self._progress is None:
                return
            if case not in self._tasks:
                self._tasks[case] = self._progress.add_task(case, total=total, amount="")
            self._progress.update(
                self._tasks[case],
                description=f"  {case}: {stage}",
                completed=done,
                total=total,
                amount=f"{done}/{total}",
            )

    def on_case_end(self, case: str, failure: str | None = None) -> None:
        """See `Callback`."""
        with self._lock:
            if self._progress is None:
                return
            if case in self._tasks:
                self._progress.remove_task(self._tasks.pop(case))
            if failure:
                self._progress.console.print(f"{case}: failed: {self._spell(failure)}", style="red", markup=False)
            self._amount.add(case)
            self._progress.update(self._all, completed=self._amount.done, amount=self._amount.text)

    def on_end(self) -> None:
        """See `Callback`."""
        with self._lock:
            progress, self._progress = self._progress, None
            self._tasks.clear()
        if progress is not None:
            progress.stop()

    def on_info(self, message: str) -> None:
        """See `Callback`."""
        self._console.print(self._spell(message), markup=False, highlight=False, soft_wrap=True)

    def on_warning(self, message: str) -> None:
        """See `Callback`."""
        self._console.print(self._spell(message), style="yellow", markup=False)
