"""Functions that run a command, in a separate process or in this one, and return all that it prints."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from lungmix.cli import main


def run_apart(*words: object) -> tuple[int, str]:
    """Run a command in a separate process; return its status, and what it and its libraries print."""
    command = [sys.executable, "-c", "from lungmix.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    return done.returncode, f"{done.stdout}\n{done.stderr}"


def run_inside(*words: object) -> tuple[int, str]:
    """Run a command in this process; return its status and what it prints."""
    printed = io.StringIO()
    # Logs of dask are switched off: they would go to the terminal of the tests.
    logger, handler = logging.getLogger("distributed"), logging.StreamHandler(printed)
    logger.addHandler(handler)
    try:
        with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as end:
            main(list(map(str, words)))
    finally:
        logger.removeHandler(handler)
    return end.value.code, printed.getvalue()
