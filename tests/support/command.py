"""Commands as they are typed, in this process, which spares each of them the seconds of its imports."""

from __future__ import annotations

import io
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest

from lungmix.cli import main


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
