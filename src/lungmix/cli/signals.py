"""SIGTERM and SIGHUP, which batch systems, containers and closed terminals send to end a command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")


class Ended(KeyboardInterrupt):
    """Interruption by a signal: the command ends as after Ctrl-C."""


class Received:
    """The first signal that was received within `as_interrupts`.

    Attributes
    ----------
    number : int or None
        Number of the signal; None before one is received.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the main thread, once: a second signal must not interrupt its cleanup."""
        if self.number is None:
            self.number = number
            raise Ended


@contextmanager
def as_interrupts() -> Iterator[Received]:
    """End the block on SIGTERM and SIGHUP like on Ctrl-C; a signal that is ignored, as under ``nohup``, stays ignored.

    The system drops these signals for process 1 of a container unless it has a handler. Only the main thread can set
    handlers; in another thread nothing changes.
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
