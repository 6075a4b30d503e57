"""What becomes of a source: read in a process of its own, with bounds on time and memory."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import re
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 10
"""Of the processor."""

PATIENCE = 120
"""Seconds on the clock, for what waits and does nothing: others may use the processor too."""

BYTES = 1500 << 20

# A server that has loaded the libraries: every child is a fork of it, clean and at once there.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["lungmix.formats", "lungmix.formats.images", "lungmix.formats.dicom", "hostile.reading"]
)


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes
    ----------
    value : object
        What the function returned; None if it did not.
    fault : str
        Crash, hang, or traceback; empty if it returned.
    """

    value: Any
    fault: str = ""


def apart(function: Callable[..., Any], *arguments: Any, seconds: int = SECONDS, memory: int = BYTES) -> Ended:
    """Call a function in a child that may use so much time, and so much more memory than its libraries."""
    mine, theirs = _SERVER.Pipe(duplex=False)
    child = _SERVER.Process(target=_inside, args=(theirs, seconds, memory, function, arguments))
    child.start()
    theirs.close()
    try:
        if not mine.poll(PATIENCE):
            return Ended(None, f"no answer within {PATIENCE} s")
        try:
            return Ended(*mine.recv())
        except EOFError:
            child.join(5)
            return Ended(None, f"ended by {_ending(child.exitcode)}")
    finally:
        child.kill()
        child.join()
        child.close()
        mine.close()


def _inside(answer: Any, seconds: int, memory: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C++ libraries write their complaints there
    try:
        answer.send((function(*arguments), ""))
    except BaseException:
        answer.send((None, traceback.format_exc()))


def _ending(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"


_REMEDY = re.compile(r"\b(get|give|export|save|put|check|unpack|resample|remove|convert|run|choose|ask)\b")
_CLASS = re.compile(r"\b[A-Z]\w*(Error|Exception|Warning)\b")


def faults_of_reason(reason: str, names: tuple[str, ...]) -> list[str]:
    """What is wrong with a refusal as a sentence for people."""
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
    """Of voxels as int16."""
    return hashlib.sha256(voxels.tobytes()).hexdigest()
