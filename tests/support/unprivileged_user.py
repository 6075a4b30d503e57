"""Run commands as a user who may not write anywhere and has no home folder, as in containers without root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

NOBODY = 65534
UNKNOWN = 54321
"""User id without an entry in the system's list of users."""

# What starts may lie where processes that it starts in turn find nothing any more.
_PROBE = "import subprocess, sys, lungmix; subprocess.run([sys.executable, '-c', 'import lungmix'], check=True)"


def as_nobody(
    command: Sequence[object], folder: Path, *, user: int = NOBODY, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of this interpreter in a folder, without HOME.

    As root it runs under another user; any other user already lacks what belongs to root.
    """
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **variables}
    words = [*_other_user(user), sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@cache
def _other_user(user: int) -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    plain = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    if subprocess.run([*plain, sys.executable, "-c", _PROBE], capture_output=True).returncode == 0:
        return plain
    # The interpreter may be below root's home folder: let other users read it, but not write.
    return (*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


def read_only(folder: Path) -> Path:
    """Make a folder and everything in it read-only."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o555)
    return folder


def open_to_all(folder: Path) -> Path:
    """Let every user enter and write a folder of a test."""
    folder.chmod(0o777)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    return folder
