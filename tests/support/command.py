"""Commands as they are typed: in a process of their own, or in this one, which spares the seconds of the imports."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest

from lungmix.cli import main

SMALL = ("--opening", "1", "--min-voxels", "1000", "--radius", "3")
"""Options of masks of small phantoms."""


def run(*words: object, **options) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-c", "from lungmix.cli import main; main()", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "140"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, **options)


def run_here(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command, and return its status and what it prints, as a process of its own would."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, COLUMNS="140"),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main(list(map(str, words)))
    return subprocess.CompletedProcess(words, end.value.code, out.getvalue(), err.getvalue())
