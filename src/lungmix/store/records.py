"""Keys of stages: a digest of all that a result was made from."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def key_of(**parts: Any) -> str:
    """Digest of JSON-ready parts; equal parts give equal keys on every machine.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
