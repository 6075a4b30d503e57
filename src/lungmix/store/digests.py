"""Digests: cache keys of the inputs of stages, digests of source locations, and digests of text files."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any


def cache_key(**inputs: Any) -> str:
    """Return the digest of JSON-ready inputs; equal inputs give equal keys on every machine.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1 << 16)
def location_digest(salt: str, key: str) -> str:
    """Return the digest that a store contains in place of the location (path) of a scan.

    A path may contain the name of a patient, and names can be guessed. Therefore the digest is salted and slow: an
    attacker who has the store needs about 50 ms and 16 MiB for each guess.

    Source: scrypt, RFC 7914.

    Parameters
    ----------
    salt : str
        Salt of the store, hexadecimal.
    key : str
        Location of the scan, `lungmix.formats.Scan.key`.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return hashlib.scrypt(key.encode(), salt=bytes.fromhex(salt), n=1 << 14, r=8, p=1, dklen=32).hex()


def digest_of(text: str) -> str:
    """Return the SHA-256 of a text file of the store: 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
