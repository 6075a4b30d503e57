"""Discovery of scans in sources. Sources and their items are numbered in the order in which they are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungmix.callbacks import Callback, stage_events
from lungmix.formats import RejectedSource, Scan, SeriesFilter, SkippedSource, find_scans
from lungmix.intake.case_names import source_label

_PROGRESS_STEPS = 200


@dataclass(frozen=True)
class DiscoveredScan:
    """Item of a source: a scan, or something that is not used as one.

    Attributes
    ----------
    source_label : str
        Label that stands for the item where file names must not appear, such as ``source 2, item 17``.
    result : Scan, SkippedSource or RejectedSource
        The scan, or the reason why the item is not used.
    """

    source_label: str
    result: Scan | SkippedSource | RejectedSource


def discover_scans(
    sources: Sequence[str | Path | Scan], rules: SeriesFilter | None = None, callback: Callback | None = None
) -> Iterator[DiscoveredScan]:
    """Yield the items of sources in order; a duplicate of an earlier scan is yielded as `SkippedSource`.

    Parameters
    ----------
    sources : sequence of str, Path or Scan
        Paths, or scans that were discovered before.
    rules : SeriesFilter, optional
        Rules that select DICOM series.
    callback : Callback, optional
        Receives the number of files that were read of each source.
    """
    callback = callback or Callback()
    labels = [source_label(number, 1, 1) for number in range(1, len(sources) + 1)]
    seen: dict[tuple[str, str], str] = {}
    with stage_events(callback, "scan", labels):
        for number, (label, source) in enumerate(zip(labels, sources, strict=True), start=1):
            if isinstance(source, Scan):
                results: Sequence[Scan | SkippedSource | RejectedSource] = [source]
            else:
                results = find_scans(source, rules, _progress(callback, label))
            callback.on_case_end(label)
            for item, result in enumerate(results, start=1):
                item_label = source_label(number, item, len(results))
                if isinstance(result, Scan):
                    first_label = seen.setdefault((result.key, result.fingerprint), item_label)
                    if first_label != item_label:
                        reason = f"is a duplicate of {first_label}"
                        result = SkippedSource(result.name, result.path, reason, result.series)
                yield DiscoveredScan(item_label, result)


def _progress(callback: Callback, label: str) -> Callable[[int, int], None]:
    def report_progress(done: int, total: int) -> None:
        if done == total or done % max(total // _PROGRESS_STEPS, 1) == 0:
            callback.on_progress(label, "files", done, total)

    return report_progress
