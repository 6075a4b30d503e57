"""Digests: keys of stages, of all that a result was made from, and of the place of a source."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
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


@lru_cache(maxsize=1 << 16)
def place_of(salt: str, key: str) -> str:
    """What a store keeps of where a scan lies.

    A path may hold a name, and names can be guessed. Therefore the digest is salted, and slow: whoever has the store
    learns nothing from it, and trying guesses takes about 50 ms and 16 MiB each.

    Source: scrypt, RFC 7914.

    Parameters
    ----------
    salt : str
        Of the store, hexadecimal.
    key : str
        `lungmix.formats.Scan.key`.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return hashlib.scrypt(key.encode(), salt=bytes.fromhex(salt), n=1 << 14, r=8, p=1, dklen=32).hex()


def digest_of(text: str) -> str:
    """SHA-256 of a text file of the store: 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
