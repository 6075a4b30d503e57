"""Looking through sources: what they hold and what becomes of it, in the order in which everything counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungmix.callbacks import Callback
from lungmix.formats import RejectedSource, Scan, SeriesFilter, SkippedSource, find_scans
from lungmix.intake.case_names import place_on_line

_STEPS = 200


@dataclass(frozen=True)
class DiscoveredScan:
    """Something that a source holds.

    Attributes
    ----------
    place : str
        What it is called where no name may stand, such as ``source 2, item 17``.
    found : Scan, SkippedSource or RejectedSource
        The verdict on it.
    """

    place: str
    found: Scan | SkippedSource | RejectedSource


def discover_scans(
    sources: Sequence[str | Path | Scan], rules: SeriesFilter | None = None, callback: Callback | None = None
) -> Iterator[DiscoveredScan]:
    """What sources hold, one after the other; a scan that several of them lead to is taken once.

    Parameters
    ----------
    sources : sequence of str, Path or Scan
        Paths, or scans that were found already.
    rules : SeriesFilter, optional
        Which DICOM series are used.
    callback : Callback, optional
        Hears how many files of a source have been read.
    """
    callback = callback or Callback()
    called = [place_on_line(number, 1, 1) for number in range(1, len(sources) + 1)]
    seen: dict[tuple[str, str], str] = {}
    callback.on_begin("scan", called)
    try:
        for number, (name, source) in enumerate(zip(called, sources, strict=True), start=1):
            if isinstance(source, Scan):
                found: Sequence[Scan | SkippedSource | RejectedSource] = [source]
            else:
                found = find_scans(source, rules, _watch(callback, name))
            callback.on_case_end(name)
            for item, one in enumerate(found, start=1):
                place = place_on_line(number, item, len(found))
                if isinstance(one, Scan):
                    known = seen.setdefault((one.key, one.fingerprint), place)
                    yield DiscoveredScan(place, one if known == place else _again(one, known))
                else:
                    yield DiscoveredScan(place, one)
    finally:
        callback.on_end()


def _again(scan: Scan, place: str) -> SkippedSource:
    return SkippedSource(scan.name, scan.path, f"is {place} again", scan.series)


def _watch(callback: Callback, name: str) -> Callable[[int, int], None]:
    def watch(done: int, total: int) -> None:
        if done == total or done % max(total // _STEPS, 1) == 0:
            callback.on_progress(name, "files", done, total)

    return watch
