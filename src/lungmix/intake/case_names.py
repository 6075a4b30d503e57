"""Case names: a scan keeps the name of its case in the store; a new scan gets the next free number."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dask.system import CPU_COUNT

from lungmix.formats import Scan
from lungmix.stages import convert
from lungmix.store import Cohort, CohortWriter
from lungmix.store.digests import location_digest

_NUMBERED = re.compile(r"case-(\d{3,})")
_HIGHEST = "highest_number"


def assign_names(cohort: Cohort, scans: Sequence[Scan], *, keep_names: bool = False) -> dict[str, Scan]:
    """Return scans by case name, in the order of the scans.

    A scan that was converted before is recognized by the fingerprint of its files, even if the files were moved. If the
    files changed, it is recognized by its location. Scans whose conversion failed or whose case is corrupt are
    recognized in the same way by the register of the store. New scans become ``case-001``, ``case-002`` and so on, in
    the order of the scans; numbers follow the highest number of completed runs. So names do not depend on patients.

    Parameters
    ----------
    cohort : Cohort
        Cohort opened for writing.
    scans : sequence of Scan
        Scans in the order of the sources.
    keep_names : bool
        Name new cases after their files or folders, made unique.
    """
    salt = CohortWriter(cohort).salt
    by_key: dict[str, list[str]] = defaultdict(list)
    by_location: dict[str, str] = {}
    present = dict(cohort.items())
    origins: dict[str, Any] = {name: case.origin for name, case in present.items()}
    registered = cohort.register
    origins |= {name: origin for name, origin in registered.items() if name not in present}
    for name, origin in origins.items():
        if origin is not None:
            by_key[str(origin.get("key"))].append(name)
            by_location[str(origin.get("source"))] = name
    names: dict[int, str] = {}
    for index, scan in enumerate(scans):
        if by_key[convert.key_for(scan)]:
            names[index] = by_key[convert.key_for(scan)].pop(0)
    assigned = set(names.values())
    used_names = {*origins, *assigned, *cohort.damaged}
    # A killed run may have started only some of its cases. Numbers between those are free, and are used first.
    number, used_numbers = int(cohort.settings.get(_HIGHEST, 0)), set(_numbers(used_names))
    unmatched = [index for index in range(len(scans)) if index not in names]
    locations = _location_digests([scans[index] for index in unmatched], salt, by_location)
    for index, location in zip(unmatched, locations, strict=True):
        scan, name = scans[index], by_location.get(location, "")
        if not name or name in assigned:
            if keep_names:
                name = free_name(scan.name, used_names)
            else:
                number += 1
                while number in used_numbers:
                    number += 1
                name = f"case-{number:03d}"
        names[index] = name
        assigned.add(name)
        used_names.add(name)
    return {names[index]: scan for index, scan in enumerate(scans)}


def cases_with_changed_source(cohort: Cohort, scans: Mapping[str, Scan]) -> list[str]:
    """Return the names of cases whose scan has the same location as before but other files; see `assign_names`."""
    return [
        name
        for name, case in cohort.items()
        if name in scans and (case.origin or {}).get("key") not in (None, convert.key_for(scans[name]))
    ]


def _location_digests(scans: Sequence[Scan], salt: str, recorded: Mapping[str, str]) -> list[str]:
    """Return the digests of scan locations, computed in threads because each is slow.

    If no digest is recorded that could match, the result is empty texts.
    """
    if not recorded:
        return [""] * len(scans)
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        return list(pool.map(lambda scan: location_digest(salt, scan.key), scans))


def source_label(source: int, item: int, items: int) -> str:
    """Return the source label of a scan or a rejected file: the numbers of source and item, instead of its name.

    Both are counted from 1, as in ``source 2, item 17``. A source with only one item is ``source 2``.
    """
    return f"source {source}" if items == 1 else f"source {source}, item {item}"


def persist_case_names(cohort: Cohort, scans: Mapping[str, Scan]) -> None:
    """Record in the store which scan has which case name, before the first conversion.

    So a scan whose conversion fails has the same name in the next run.

    Parameters
    ----------
    cohort : Cohort
        Cohort opened for writing.
    scans : mapping of str to Scan
        Scans by case name, from `assign_names`.
    """
    writer = CohortWriter(cohort)
    salt, registered = writer.salt, cohort.register
    keys = {name: convert.key_for(scan) for name, scan in scans.items()}
    # The digest of the location is slow. For a scan with unchanged files, take it from the register or from its case.
    origins = {name: case.origin for name, case in cohort.items() if name in scans and name not in registered}
    recorded = {
        name: {"key": key, "source": str(origin["source"])}
        for name, key in keys.items()
        if (origin := registered.get(name) or origins.get(name)) and origin.get("key") == key and "source" in origin
    }
    new = [name for name in scans if name not in recorded]
    with ThreadPoolExecutor(CPU_COUNT) as pool:
        locations = pool.map(lambda name: location_digest(salt, scans[name].key), new)
        added = {name: {"key": keys[name], "source": location} for name, location in zip(new, locations, strict=True)}
        writer.register_scans(recorded | added)


def persist_case_numbers(cohort: Cohort) -> None:
    """Record the highest case number, so that it is not used again after its case was removed."""
    # Not a list of the cohort, which would read all cases twice: once more for its length.
    highest = max(_numbers({*cohort, *cohort.register}), default=0)
    if highest > int(cohort.settings.get(_HIGHEST, 0)):
        CohortWriter(cohort).record_settings(**{_HIGHEST: highest})


def free_name(name: str, used: Mapping[str, object] | set[str]) -> str:
    """Return the name; if it is used already, return it with the first free number appended, such as ``name-2``."""
    number, free = 2, name
    while free in used:
        free, number = f"{name}-{number}", number + 1
    return free


def _numbers(names: Iterable[str]) -> list[int]:
    return [int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))]
