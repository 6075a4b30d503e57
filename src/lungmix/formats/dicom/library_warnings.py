"""Suppression of warnings of libraries, which may quote header values such as names of patients."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def hide_warnings_of(*packages: str) -> Iterator[None]:
    """Hide the warnings of packages within a ``with`` block, in all threads.

    `warnings.catch_warnings` is not safe here: at its end it restores the filters of its beginning, and so removes
    filters that other threads have added. If another thread uses it, it may also end the hiding of this block early.
    """
    entry = ("ignore", None, Warning, re.compile(rf"({'|'.join(packages)})(\.|$)"), 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):
            filters.remove(entry)
