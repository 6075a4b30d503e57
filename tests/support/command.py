"""Run commands of lungmix: in a separate process, or in this one, which saves seconds for imports."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest

from lungmix.cli import main

SMALL = ("--preset", "paper", "--opening", "1", "--min-voxels", "1000", "--radius", "3")
"""Options for masks of small phantoms."""


def run(*words: object, **options) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process."""
    command = [sys.executable, "-c", "from lungmix.cli import main; main()", *map(str, words)]
    environment = {**os.environ, "COLUMNS": "140"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, **options)


def run_here(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, and return its exit status and output like a separate process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, COLUMNS="140"),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main(list(map(str, words)))
    return subprocess.CompletedProcess(words, end.value.code, out.getvalue(), err.getvalue())
