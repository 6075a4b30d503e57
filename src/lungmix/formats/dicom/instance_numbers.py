"""Comparison of the order of slices by instance number and slice location with the order of their positions.

Messages ask to "give each by itself": each scan as a source of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.even_spacing import estimate_spacing, overlaps_by_half, spacing_tolerance
from lungmix.formats.dicom.header import Header
from lungmix.formats.dicom.slice_groups import format_slices
from lungmix.formats.dicom.slice_similarity import SimilarOrder, more_similar_order
from lungmix.formats.series_filter import SeriesFilter

_MAX_LISTED = 4
_MIN_RUN_LENGTH = 3
# Passes are interleaved if the steps within a pass exceed the steps between all slices by this factor.
_MIN_STEP_RATIO = 1.5
_MIN_FRACTION_IN_RUNS = 0.8


def check_numbers(
    slices: list[Header],
    along: npt.NDArray[np.float64],
    median_spacing: float,
    title: str,
    series_filter: SeriesFilter,
    notes: list[str],
) -> None:
    """Check that instance numbers and slice locations are consistent with positions.

    Parameters
    ----------
    slices : list of Header
        Slices in the order of z.
    along : ndarray, shape (slices,)
        Positions along the normal, mm.
    median_spacing : float
        Median distance of neighbouring slices, mm.
    title : str
        Name of the group in messages.
    series_filter : SeriesFilter
        Options; with `trust_positions` an inconsistency is a note rather than an error.
    notes : list of str
        Notes for the user, to which this function appends.

    Raises
    ------
    SourceError
        If numbers or locations are inconsistent; the message numbers slices in the order of z, from 1.
    """
    _check_restarts(slices, title, series_filter, notes)
    numbers = [header.number for header in slices]
    shared_numbers = _find_shared_numbers(numbers)
    if shared_numbers and not series_filter.trust_positions:
        raise SourceError(
            f"{title}: {format_slices(slices, shared_numbers)} share their instance numbers with slices at other "
            "positions: two series may be mixed; give each series by itself, or `trust_positions=True` if they are one "
            "series"
        )
    passes = count_passes(numbers, along)
    if passes > 1 and not series_filter.trust_positions:
        raise SourceError(
            f"{title}: instance numbers of slices 1 to {len(slices)} run through the same range of positions {passes} "
            "times, each time at other positions: slices of several passes may be mixed, and no attribute separates "
            "them; give each pass by itself, or `trust_positions=True` if they are a single pass"
        )
    locations = [header.location for header in slices]
    moved = _inconsistent_locations(slices, along, median_spacing)
    if moved and is_monotonic(locations):
        notes.append(
            f"slice locations are inconsistent with the position of {format_slices(slices, moved)}: positions decide"
        )
        moved = []
    inconsistent = sorted({*_find_out_of_order(numbers), *moved})
    orders = {_compare_with_order(slices, numbers), _compare_with_order(slices, locations) if moved else None}
    if not inconsistent and {SimilarOrder.ATTRIBUTE, SimilarOrder.UNKNOWN} & orders:
        inconsistent = _find_outside_blocks(numbers)
    if not inconsistent and SimilarOrder.ATTRIBUTE in orders:
        inconsistent = [i for i in range(len(slices)) if i not in _kept_order(numbers)[0]]
    if SimilarOrder.ATTRIBUTE not in orders and SimilarOrder.UNKNOWN not in orders and SimilarOrder.POSITIONS in orders:
        notes.append(
            "its instance numbers or slice locations follow another order than its positions, and neighbouring slices "
            "are more similar by position: positions decide"
        )
        return
    if not inconsistent:
        if _is_unordered(numbers):
            notes.append("its instance numbers follow no order of positions: positions decide")
        elif SimilarOrder.UNKNOWN in orders:
            notes.append(
                "its instance numbers follow another order than its positions, and pixels cannot tell which is right: "
                "positions decide"
            )
        return
    lie = "lies" if len(inconsistent) == 1 else "lie"
    description = (
        f"{format_slices(slices, inconsistent)} {lie} at other positions than instance numbers or slice locations say"
    )
    if not series_filter.trust_positions:
        raise SourceError(
            f"{title}: {description}: positions may be swapped; get the files again, or give "
            "`trust_positions=True` if positions are right"
        )
    notes.append(f"{description}: positions trusted")


def _compare_with_order(slices: Sequence[Header], values: Sequence[float | None]) -> SimilarOrder | None:
    """Return the order, by position or by `values`, in which neighbouring slices are more similar.

    None is returned if both orders agree, or if a value is missing or repeated.
    """
    present = [value for value in values if value is not None]
    if (
        len(present) < len(values)
        or len(present) < _MIN_RUN_LENGTH
        or len(set(present)) < len(present)
        or is_monotonic(present)
    ):
        return None
    return more_similar_order(slices, present)


def is_monotonic(values: Sequence[float | None]) -> bool:
    """Return True if no value is missing and all are strictly ascending or descending."""
    present = [value for value in values if value is not None]
    steps = np.diff(present)
    return len(present) == len(values) and bool((steps > 0).all() or (steps < 0).all())


def count_passes(numbers: Sequence[int | None], along: npt.NDArray[np.float64]) -> int:
    """Return the number of passes: how often slices in the order of their numbers run through the same range.

    The result is 1 for slices of a single pass.

    Parameters
    ----------
    numbers : sequence of int or None
        Instance numbers in the order of positions; passes may share them.
    along : ndarray
        Positions in ascending order.
    """
    present = [number for number in numbers if number is not None]
    if len(present) < len(numbers) or len(present) < 2 * _MIN_RUN_LENGTH or is_monotonic(present):
        return 1
    times: Counter[int] = Counter()
    keys = []
    for number in present:
        keys.append((times[number], number))
        times[number] += 1
    ordered = along[sorted(range(len(present)), key=lambda i: keys[i])]
    steps = np.diff(ordered)
    period = estimate_spacing(np.sort(np.abs(steps)))
    if period < _MIN_STEP_RATIO * estimate_spacing(np.diff(along)):
        return 1
    breaks = np.flatnonzero(np.abs(np.abs(steps) - period) > spacing_tolerance(period)) + 1
    runs = [run for run in np.split(ordered, breaks) if len(run) >= _MIN_RUN_LENGTH]
    if sum(map(len, runs)) < _MIN_FRACTION_IN_RUNS * len(present):
        return 1
    return max((sum(overlaps_by_half(run, other) for other in runs) for run in runs), default=1)


def _find_shared_numbers(numbers: Sequence[int | None]) -> list[int]:
    """Return the indices of slices that share their number with another slice.

    There are none if numbers merely restart with each part of a series.
    """
    times = Counter(numbers)
    present = [number for number in numbers if number is not None]
    if len(present) < len(numbers) or 2 * len(times) < len(numbers):
        return []
    steps = np.diff(present)
    # Numbers that restart with each part of a series do so once per part.
    if min((steps <= 0).sum(), (steps >= 0).sum()) <= max(times.values()):
        return []
    return [i for i, number in enumerate(numbers) if times[number] > 1]


def _check_restarts(slices: list[Header], title: str, series_filter: SeriesFilter, notes: list[str]) -> None:
    """Report several scans, one after the other, that have one series identifier and so look like one scan.

    Instance numbers restart at each of these scans. If acquisition numbers differ too, the series has several
    acquisitions, and a note is given. If they are equal, two images of one acquisition share a number, so there are two
    scans, possibly of two patients, and `SourceError` is raised.
    """
    parts = _runs([header.number for header in slices])
    if len(parts) < 2:
        return
    shown = [
        f"{part.start + 1} to {part.stop} ({mark_path(slices[part.start].file)} to "
        f"{mark_path(slices[part.stop - 1].file)})"
        for part in parts[:_MAX_LISTED]
    ]
    more = f" and {len(parts) - _MAX_LISTED} more parts" if len(parts) > _MAX_LISTED else ""
    description = f"instance numbers restart: slices {', '.join(shown)}{more} have the same numbers"
    acquisitions = [{slices[i].hint("AcquisitionNumber") for i in part} for part in parts]
    if "" not in set().union(*acquisitions) and len(set().union(*acquisitions)) == sum(map(len, acquisitions)):
        notes.append(f"{description}, of several acquisitions: the patient may have moved or breathed between them")
    elif series_filter.trust_positions:
        notes.append(f"{description}: positions trusted")
    else:
        raise SourceError(
            f"{title}: {description}; they may be of two consecutive scans: give each scan by itself, or "
            "`trust_positions=True` if they are one scan"
        )


def _runs(numbers: Sequence[int | None]) -> list[range]:
    """Return the ranges of slices in which numbers ascend or descend; none if no number is repeated.

    Also none if a number is missing, or if ranges have fewer than three slices on average.
    """
    present = [number for number in numbers if number is not None]
    if len(present) < len(numbers) or len(set(present)) == len(present):
        return []
    runs: list[range] = []
    start, sign = 0, 0
    for i in range(1, len(present) + 1):
        step = int(np.sign(present[i] - present[i - 1])) if i < len(present) else 0
        if i == len(present) or not step or (sign and step != sign):
            runs.append(range(start, i))
            start, sign = i, 0
        else:
            sign = step
    # Numbers with shorter runs on average are unordered.
    return runs if len(present) >= _MIN_RUN_LENGTH * len(runs) else []


def _find_out_of_order(numbers: Sequence[int | None]) -> list[int]:
    """Return the indices of slices out of order, if the numbers of about two thirds or more of the slices are in order.

    If the numbers of these slices were only exchanged among themselves, all exchanged slices are returned.
    """
    kept, values = _kept_order(numbers)
    out = [i for i in range(len(values)) if i not in kept]
    if not 0 < len(out) <= max(2, len(values) // 3):
        return []
    rank = {number: i for i, number in enumerate(sorted(values))}
    displaced = [i for i, number in enumerate(values) if rank[number] != i]
    return displaced if len(displaced) <= 2 * len(out) else out


def _find_outside_blocks(numbers: Sequence[int | None]) -> list[int]:
    """Return the indices of slices outside blocks of three or more consecutive numbers.

    There are none unless the blocks hold two thirds of the slices.
    """
    present = [number for number in numbers if number is not None]
    if len(present) < len(numbers) or len(set(present)) < len(present):
        return []
    steps = np.diff(np.argsort(np.argsort(present)))
    runs: list[list[int]] = []
    for sign in (1, -1):
        parts = np.split(np.arange(len(present)), np.flatnonzero(steps != sign) + 1)
        runs.append([int(i) for part in parts if len(part) >= _MIN_RUN_LENGTH for i in part])
    kept = set(runs[0] if len(runs[0]) >= len(runs[1]) else runs[1])
    return [i for i in range(len(present)) if i not in kept] if 3 * len(kept) >= 2 * len(present) else []


def _is_unordered(numbers: Sequence[int | None]) -> bool:
    """Return True if no ascending or descending subsequence has half of the numbers, which must be distinct."""
    kept, values = _kept_order(numbers)
    return len(kept) < len(values) // 2


def _kept_order(numbers: Sequence[int | None]) -> tuple[set[int], list[int]]:
    """Return the indices of the longest ascending or descending subsequence, and the numbers, negated if descending.

    Both are empty for fewer than three slices, or if a number is missing or shared.
    """
    present = [number for number in numbers if number is not None]
    if len(present) < 3 or len(present) < len(numbers) or len(set(present)) < len(present):
        return set(), []
    if present[0] > present[-1]:
        present = [-number for number in present]
    runs = [(_longest_run(values), values) for values in (present, [-number for number in present])]
    return max(runs, key=lambda run: len(run[0]))


def _longest_run(values: Sequence[int]) -> set[int]:
    """Return the indices of the longest ascending subsequence (patience sorting)."""
    tops: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for i, value in enumerate(values):
        at = bisect_left(tops, value)
        before.append(ends[at - 1] if at else -1)
        tops[at : at + 1] = [value]
        ends[at : at + 1] = [i]
    run: set[int] = set()
    i = ends[-1] if ends else -1
    while i >= 0:
        run.add(i)
        i = before[i]
    return run


def _inconsistent_locations(slices: list[Header], along: npt.NDArray[np.float64], median_spacing: float) -> list[int]:
    """Return the indices of slices whose slice location is inconsistent with their position.

    If more than a quarter of the slices are inconsistent, the attribute has another meaning, and none is returned.
    """
    if len(slices) < 5 or any(header.location is None for header in slices):
        return []
    location = np.array([header.location for header in slices], float)
    candidates = []
    for sign in (1, -1):
        difference = sign * location - along
        candidates.append(np.flatnonzero(np.abs(difference - np.median(difference)) > 0.5 * median_spacing))
    fewest = min(candidates, key=len)
    return [int(i) for i in fewest] if len(fewest) <= max(2, len(slices) // 4) else []
