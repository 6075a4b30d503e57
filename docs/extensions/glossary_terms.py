"""Spellings of the terms of the glossary, and where a text mentions them first."""

from __future__ import annotations

import re

TERMS = {
    "HU": r"HU",
    "LI": r"LI",
    "GGO": r"GGO",
    "lung involvement": r"[Ll]ung involvement",
    "consolidation": r"[Cc]onsolidation",
    "ground-glass opacity": r"[Gg]round-glass opacity",
    "mixture": r"[Mm]ixtures?",
    "island": r"[Ii]slands?",
    "MAP threshold": r"MAP thresholds?",
    "preset": r"[Pp]resets?",
    "published model": r"published (?:model|mixture)",
    "EM": r"EM",
    "BIC": r"BIC",
    "slab": r"[Ss]labs?",
    "shard": r"[Ss]hards?",
    "chunk": r"[Cc]hunks?",
    "halo": r"[Hh]alos?",
    "OME-Zarr": r"OME-Zarr",
    "opening": r"[Oo]penings?",
    "closing": r"[Cc]losings?",
    "phantom": r"[Pp]hantoms?",
    "axial array": r"axial arrays?",
    "reduced copy": r"reduced cop(?:y|ies)",
    "source label": r"source labels?",
    "airway": r"[Aa]irways?",
    "key table": r"[Kk]ey table",
    "scheduler": r"[Ss]cheduler",
    "stage": r"[Ss]tages?",
}
"""Spellings by term. Words with an everyday meaning, such as "case" and "fit", are linked by hand."""

_ANY = re.compile("|".join(rf"(?P<t{i}>(?<![\w.-]){spelling}(?![\w-]))" for i, spelling in enumerate(TERMS.values())))


def split_terms(text: str, seen: set[str]) -> list[tuple[str, str]]:
    """Split text into pieces and the terms that these are linked to, or "": each term once, `seen` is updated."""
    names = list(TERMS)
    pieces: list[tuple[str, str]] = []
    end = 0
    for match in _ANY.finditer(text):
        term = names[int((match.lastgroup or "t0")[1:])]
        if term in seen:
            continue
        seen.add(term)
        pieces += [(text[end : match.start()], ""), (match[0], term)]
        end = match.end()
    return [piece for piece in [*pieces, (text[end:], "")] if piece[0]]
