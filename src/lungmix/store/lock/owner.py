"""Owner of a lock, as the object of the lock in the store describes it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

BEAT_S = 20.0
"""Interval of heartbeats, seconds."""

STALE_S = 300.0
"""Age of the last heartbeat, in seconds, above which a lock is stale, unless this process sees that its owner runs."""

RELEASED: set[str] = set()
"""Tokens of locks that this process has released, even if their objects could not be deleted."""


@dataclass(frozen=True, config=ConfigDict(strict=True))
class LockInfo:
    """Owner of a lock.

    Attributes
    ----------
    host : str
        Name of the machine.
    pid : int
        Process number on that machine; 0 if unknown.
    born : float
        Start time of the process, seconds since 1970; it tells processes with the same number apart.
    since, beat : float
        Times at which the lock was taken and last renewed, seconds since 1970.
    token : str
        Identifier of this lock, 32 hexadecimal digits.
    space : str
        Digest that identifies the boot of the machine and the namespace of its process numbers: containers may have the
        same host name, but separate processes.
    """

    host: str
    pid: Annotated[int, Field(ge=0, lt=1 << 31)]
    born: FiniteFloat
    since: FiniteFloat
    beat: FiniteFloat
    token: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    space: str = ""

    @classmethod
    def of_this_process(cls) -> LockInfo:
        """Return an entry with this process as owner, taken now, and a new token."""
        now, born = time.time(), psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), born, now, now, uuid.uuid4().hex, _pid_space())

    @classmethod
    def from_json(cls, content: bytes) -> LockInfo:
        """Return the entry in the object of a lock.

        For an object of another program, or a corrupt one, the owner is unknown; only its last heartbeat may be read.
        """
        with suppress(ValidationError):
            lock_info: LockInfo = TypeAdapter(cls).validate_json(content)
            if lock_info.pid:
                return lock_info
        try:
            beat = _Heartbeat.model_validate_json(content).beat
        except ValidationError:
            beat = 0.0
        if beat > time.time() + STALE_S:
            beat = 0.0
        return cls("", 0, 0.0, beat, beat, hashlib.sha256(content).hexdigest()[:32])

    def to_json(self) -> bytes:
        """Return the content of the object of a lock."""
        return json.dumps(asdict(self)).encode()

    @property
    def is_elsewhere(self) -> bool:
        """True if the owner runs on another machine or in another container, where this process cannot see it."""
        return bool(self.pid) and (self.host, self.space) != (socket.gethostname(), _pid_space())

    @property
    def is_gone(self) -> bool:
        """True if the owner has ended, or its lock is stale, as far as this process can determine."""
        if self.token in RELEASED:
            return True
        is_stale = time.time() - self.beat > STALE_S
        if not self.pid or self.is_elsewhere:
            return is_stale
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            # A start time that differs is no proof of another process: the clock may have been set meanwhile.
            return is_stale and abs(process.create_time() - self.born) > 1.0
        except psutil.NoSuchProcess:
            return is_stale or not _is_hidden(self.pid)
        except psutil.AccessDenied:
            return is_stale

    def __str__(self) -> str:
        owner = f"process {self.pid} on {self.host}" if self.pid else "an unknown process"
        age = time.time() - self.beat
        heartbeat = f" (last heartbeat {_format_age(age)} ago)" if age > 3 * BEAT_S else ""
        return f"{owner}, for {_format_age(time.time() - self.since)}{heartbeat}"


class _Heartbeat(BaseModel):
    beat: FiniteFloat = 0.0


def _pid_space() -> str:
    """Return a digest of the boot and the process number namespace; empty text where they are unknown."""
    identifiers = []
    with suppress(OSError):
        identifiers.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        identifiers.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(identifiers).encode()).hexdigest()[:16] if identifiers else ""


def _is_hidden(pid: int) -> bool:
    """Return True if a process exists although it is not listed: machines may hide processes of other users."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _format_age(seconds: float) -> str:
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
