"""Progress of a command: bars on a terminal, plain lines in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from rich.console import Console

from lungmix.callbacks import Callback, stage_events
from lungmix.callbacks.progress_bars import Amount, ProgressBars
from lungmix.cli.redaction import printable


def callback_for(*, quiet: bool) -> Callback:
    """Return a callback that shows bars on a terminal, or lines in a file; if `quiet`, warnings only."""
    console = Console(stderr=True)
    if quiet:
        return Warnings(console)
    return ProgressBars(console, printable) if console.is_terminal else Lines(console)


def progress_of(title: str, parts: str, *, quiet: bool) -> AbstractContextManager[Callable[[int, int], None]]:
    """Show the progress of a block; yield a function ``progress(done, total)`` that counts `parts`."""
    return stage_events(callback_for(quiet=quiet), title, [parts])


class Warnings(Callback):
    """Callback that prints warnings, and no progress."""

    def __init__(self, console: Console):
        self._console = console

    def on_warning(self, message: str) -> None:
        """See `Callback`."""
        self._console.print(printable(message), markup=False, highlight=False, soft_wrap=True)


class Lines(Callback):
    """Callback that prints one line per ended case, with an estimate of the remaining time."""

    def __init__(self, console: Console):
        self._console = console
        self._title = ""
        self._amount = Amount([], None)
        self._start = 0.0

    def on_begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """See `Callback`."""
        self._title, self._amount, self._start = title, Amount(cases, sizes), time.monotonic()

    def on_case_end(self, case: str, failure: str | None = None) -> None:
        """See `Callback`."""
        amount = self._amount
        amount.add(case)
        elapsed = time.monotonic() - self._start
        remaining = elapsed / max(amount.done, 1) * (amount.total - amount.done)
        outcome = f"failed: {failure}" if failure else "done"
        self._line(f"{self._title} {amount.text} {case}: {outcome} ({elapsed:.0f} s, about {remaining:.0f} s left)")

    def on_info(self, message: str) -> None:
        """See `Callback`."""
        self._line(message)

    def on_warning(self, message: str) -> None:
        """See `Callback`."""
        self._line(message)

    def _line(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
