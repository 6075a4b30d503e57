"""Result of reading a source in a separate process, with limits on time and memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

SECONDS = 10
"""Seconds of processor time that the reading of one source may take."""

PATIENCE = 120
"""Seconds by the clock that the reading of one source may take; more, as other programs use the processor too."""

BYTES = 1500 << 20
"""Memory that the separate process may use in addition to that after the import of its libraries."""

_SPAWN = multiprocessing.get_context("spawn")
_MOST_CALLS = 500


@dataclass(frozen=True)
class Ended:
    """End of a call in the separate process.

    Attributes
    ----------
    value : object
        Return value of the function; None if it did not return.
    fault : str
        Description of a crash or hang, or traceback; empty if the function returned.
    """

    value: Any
    fault: str = ""


class Apart:
    """Separate process that calls functions, with limits on time and memory; it is started again if it ends."""

    def __init__(self) -> None:
        self._child: Any = None

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Ended:
        """Call a function in the separate process, and return how the call ended."""
        if self._child is None or self._calls >= _MOST_CALLS:
            self.end()
            self._start()
        self._calls += 1
        before = self._seconds()
        self._pipe.send((function, arguments))
        for _ in range(PATIENCE * 2):
            if self._pipe.poll(0.5):
                break
            if self._child.is_alive() and self._seconds() - before > SECONDS:
                return self._ended(f"no answer within {SECONDS} s of the processor")
        else:
            return self._ended(f"no answer within {PATIENCE} s")
        try:
            return Ended(*self._pipe.recv())
        except (EOFError, OSError):
            self._child.join(5)
            return self._ended(f"ended by {_ending(self._child.exitcode)}")

    def end(self) -> None:
        """End the separate process."""
        if self._child is not None:
            self._child.kill()
            self._child.join()
            self._child.close()
            self._pipe.close()
            self._child = None

    def _start(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._child, self._calls = _SPAWN.Process(target=_answer, args=(theirs,), daemon=True), 0
        self._child.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    def _ended(self, fault: str) -> Ended:
        self.end()
        return Ended(None, fault)

    def _seconds(self) -> float:
        try:
            times = psutil.Process(self._child.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)


def _answer(pipe: Any) -> None:
    import hostile.reading  # noqa: F401  what is loaded now is not counted

    limit = psutil.Process().memory_info().vms + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C++ libraries write their complaints there
    pipe.send("ready")
    while True:
        function, arguments = pipe.recv()
        try:
            answer = function(*arguments), ""
        except BaseException:
            answer = None, traceback.format_exc()
        pipe.send(answer)


def _ending(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"


_REMEDY = re.compile(r"\b(get|give|export|save|put|check|unpack|resample|remove|convert|run|choose|ask)\b")
_CLASS = re.compile(r"\b[A-Z]\w*(Error|Exception|Warning)\b")


def faults_of_reason(reason: str, names: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the reason of a rejection as a sentence for users; it must contain one of `names`."""
    faults = []
    if not reason.isprintable():
        faults.append("holds characters that do not print")
    if not any(name in reason for name in names):
        faults.append(f"names none of {names}")
    last = re.split(r"[:;,]", reason)[-1]
    if not _REMEDY.search(last) and not _REMEDY.search(reason[reason.find(":") :]):
        faults.append("has no remedy")
    if _CLASS.search(reason) or "Traceback" in reason or "0x" in reason:
        faults.append("shows the inside of the program")
    if len(reason) > 600:
        faults.append("is no sentence but a page")
    return faults


def digest(voxels: Any) -> str:
    """Return the SHA-256 of voxels, int16."""
    return hashlib.sha256(voxels.tobytes()).hexdigest()
