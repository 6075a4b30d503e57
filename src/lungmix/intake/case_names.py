"""Which case of a store a scan is: the one that it made before, or the next number."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dask.system import CPU_COUNT

from lungmix.formats import Scan
from lungmix.stages import convert
from lungmix.store import Cohort
from lungmix.store.digests import place_of

_NUMBERED = re.compile(r"case-(\d{3,})")
_HIGHEST = "highest_number"


def assign_names(cohort: Cohort, scans: Sequence[Scan], *, keep_names: bool = False) -> dict[str, Scan]:
    """Case names of scans, in their order.

    A scan that was converted before is known by the state of its files, wherever they lie now, or else by its place,
    where its files have changed; so is one whose conversion failed, or whose case is damaged, by the register of the
    store. Others become ``case-001``, ``case-002`` and so on, in their order, after the highest number of the runs that
    came to their end: the name of a case says nothing of whose scan it is.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing.
    scans : sequence of Scan
        In the order of the sources.
    keep_names : bool
        Name new cases after their files or folders, made unique.
    """
    salt = cohort.salt
    by_key: dict[str, list[str]] = defaultdict(list)
    by_place: dict[str, str] = {}
    present = dict(cohort.items())
    known: dict[str, Any] = {name: case.origin for name, case in present.items()}
    registered = cohort.register
    known |= {name: origin for name, origin in registered.items() if name not in present}
    for name, record in known.items():
        if record is not None:
            by_key[str(record.get("key"))].append(name)
            by_place[str(record.get("source"))] = name
    names: dict[int, str] = {}
    for index, scan in enumerate(scans):
        if by_key[convert.key_for(scan)]:
            names[index] = by_key[convert.key_for(scan)].pop(0)
    taken = set(names.values())
    there = {*known, *taken, *cohort.damaged}
    # A run that was killed may have begun some of its cases only: the others get the numbers between.
    number, given = int(cohort.settings.get(_HIGHEST, 0)), set(_numbers(there))
    strangers = [index for index in range(len(scans)) if index not in names]
    for index, place in zip(strangers, _places([scans[i] for i in strangers], salt, by_place), strict=True):
        scan, name = scans[index], by_place.get(place, "")
        if not name or name in taken:
            if keep_names:
                name = free_name(scan.name, there)
            else:
                number += 1
                while number in given:
                    number += 1
                name = f"case-{number:03d}"
        names[index] = name
        taken.add(name)
        there.add(name)
    return {names[index]: scan for index, scan in enumerate(scans)}


def cases_with_changed_source(cohort: Cohort, scans: Mapping[str, Scan]) -> list[str]:
    """Cases that stand for the place of their scan, where now lies something else; see `assign_names`."""
    return [
        name
        for name, case in cohort.items()
        if name in scans and (case.origin or {}).get("key") not in (None, convert.key_for(scans[name]))
    ]


def _places(scans: Sequence[Scan], salt: str, known: Mapping[str, str]) -> list[str]:
    """Slow digests of where scans lie, side by side; none where no place is known that they could be."""
    if not known:
        return [""] * len(scans)
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        return list(pool.map(lambda scan: place_of(salt, scan.key), scans))


def place_on_line(source: int, item: int, items: int) -> str:
    """What a scan or a refused file is called where no name may stand: where it was found, counted from 1."""
    return f"source {source}" if items == 1 else f"source {source}, item {item}"


def persist_case_names(cohort: Cohort, scans: Mapping[str, Scan]) -> None:
    """Note which scan has which name before the first is converted: one that fails keeps its name for the next run.

    Parameters
    ----------
    cohort : Cohort
        Opened for writing.
    scans : mapping of str to Scan
        What `assign_names` gave.
    """
    salt, noted = cohort.salt, cohort.register
    keys = {name: convert.key_for(scan) for name, scan in scans.items()}
    # Where a scan of the same files lies was noted before, or stands in its case.
    origins = {name: case.origin for name, case in cohort.items() if name in scans and name not in noted}
    kept = {
        name: {"key": key, "source": str(origin["source"])}
        for name, key in keys.items()
        if (origin := noted.get(name) or origins.get(name)) and origin.get("key") == key and "source" in origin
    }
    new = [name for name in scans if name not in kept]
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        places = pool.map(lambda name: place_of(salt, scans[name].key), new)
        cohort.enter({**kept, **{n: {"key": keys[n], "source": place} for n, place in zip(new, places, strict=True)}})


def persist_case_numbers(cohort: Cohort) -> None:
    """Keep the highest number of a case, so that no other scan gets it if the case is removed."""
    highest = max(_numbers([*cohort, *cohort.register]), default=0)
    if highest > int(cohort.settings.get(_HIGHEST, 0)):
        cohort.record_settings(**{_HIGHEST: highest})


def free_name(name: str, taken: Mapping[str, object] | set[str]) -> str:
    """A name, or with a number after it where it is taken."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _numbers(names: Iterable[str]) -> list[int]:
    return [int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name))]
