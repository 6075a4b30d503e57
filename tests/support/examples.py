"""How many examples hypothesis tries: a moderate number, and more by a factor that ``make examples`` sets."""

from __future__ import annotations

import os

from hypothesis import settings

FACTOR = int(os.environ.get("LUNGMIX_EXAMPLES", "1"))
"""1 unless a longer search was asked for."""


def examples(count: int) -> settings:
    """Settings of a test that tries so many examples in an ordinary run."""
    return settings(max_examples=count * FACTOR)
