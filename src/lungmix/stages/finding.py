"""Looking through sources: what they hold and what becomes of it, in the order in which everything counts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungmix.engine import Listener
from lungmix.formats import Refusal, Scan, SeriesRules, Skipped, find_scans
from lungmix.stages.names import place_on_line

_STEPS = 200


@dataclass(frozen=True)
class Finding:
    """Something that a source holds.

    Attributes
    ----------
    place : str
        What it is called where no name may stand, such as ``source 2, item 17``.
    found : Scan, Skipped or Refusal
        The verdict on it.
    """

    place: str
    found: Scan | Skipped | Refusal


def look_through(
    sources: Sequence[str | Path | Scan], rules: SeriesRules | None = None, listener: Listener | None = None
) -> Iterator[Finding]:
    """What sources hold, one after the other; a scan that several of them lead to is taken once.

    Parameters
    ----------
    sources : sequence of str, Path or Scan
        Paths, or scans that were found already.
    rules : SeriesRules, optional
        Which DICOM series are used.
    listener : Listener, optional
        Hears how many files of a source have been read.
    """
    listener = listener or Listener()
    called = [place_on_line(number, 1, 1) for number in range(1, len(sources) + 1)]
    seen: dict[tuple[str, str], str] = {}
    listener.begin("scan", called)
    try:
        for number, (name, source) in enumerate(zip(called, sources, strict=True), start=1):
            if isinstance(source, Scan):
                found: Sequence[Scan | Skipped | Refusal] = [source]
            else:
                found = find_scans(source, rules, _watch(listener, name))
            listener.finish(name)
            for item, one in enumerate(found, start=1):
                place = place_on_line(number, item, len(found))
                if isinstance(one, Scan):
                    known = seen.setdefault((one.key, one.fingerprint), place)
                    yield Finding(place, one if known == place else _again(one, known))
                else:
                    yield Finding(place, one)
    finally:
        listener.end()


def _again(scan: Scan, place: str) -> Skipped:
    return Skipped(scan.name, scan.path, f"is {place} again", scan.series)


def _watch(listener: Listener, name: str) -> Callable[[int, int], None]:
    def watch(done: int, total: int) -> None:
        if done == total or done % max(total // _STEPS, 1) == 0:
            listener.advance(name, "files", done, total)

    return watch
