"""Signals that ask a command to end, as batch systems, containers and closed terminals send them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")


class Ended(KeyboardInterrupt):
    """A signal has asked the command to end: it ends as after Ctrl-C."""


class Received:
    """The first signal that was received within `as_interrupts`.

    Attributes
    ----------
    number : int or None
        Of the signal; None as long as there is none.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the main thread, once: a second signal must not keep it from clearing up."""
        if self.number is None:
            self.number = number
            raise Ended


@contextmanager
def as_interrupts() -> Iterator[Received]:
    """Have SIGTERM and SIGHUP end the block like Ctrl-C; a signal that is ignored, as under ``nohup``, stays ignored.

    Process 1 of a container has no default for these signals, which the system then drops: a handler is what ends it.
    Only the main thread can set handlers; in another one nothing is changed.
    """
    received = Received()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, received)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
