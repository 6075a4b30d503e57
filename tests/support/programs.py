"""Programs that tests open files with, and that lie in environments of their own."""

from __future__ import annotations

import os

import pytest


def need(is_there: bool, message: str) -> None:
    """Fail in CI, and skip elsewhere, unless a program is there."""
    if not is_there:
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
