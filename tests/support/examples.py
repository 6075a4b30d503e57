"""Number of examples that hypothesis tries; ``make examples`` multiplies it by a factor."""

from __future__ import annotations

import os

from hypothesis import settings

FACTOR = int(os.environ.get("LUNGMIX_EXAMPLES", "1"))
"""Factor of the number of examples; 1 unless the environment sets another."""


def examples(count: int) -> settings:
    """Return hypothesis settings for a test with `count` examples in an ordinary run."""
    return settings(max_examples=count * FACTOR)
