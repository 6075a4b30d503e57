"""Warnings of libraries that quote header values, such as names of patients; lungmix words messages of its own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def hide_warnings_of(*packages: str) -> Iterator[None]:
    """Hide the warnings of packages for the duration of a block, in all threads.

    `warnings.catch_warnings` is not safe here: it restores all filters, also those that another thread needs meanwhile.
    A thread that leaves such a block of its own meanwhile ends the hiding.
    """
    entry = ("ignore", None, Warning, re.compile(rf"({'|'.join(packages)})(\.|$)"), 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):
            filters.remove(entry)
