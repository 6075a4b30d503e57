"""What instance numbers and slice locations say of the order of slices."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.dicom.even_spacing import overlap_by_half, tolerance_of, usual_step
from lungmix.formats.dicom.header import HINTS, Header
from lungmix.formats.dicom.slice_groups import told
from lungmix.formats.dicom.slice_similarity import Likeness, likeness
from lungmix.formats.series_filter import SeriesFilter

_MOST_NAMED = 4
_FEWEST_IN_RUN = 3
# Passes lie between each other where each has steps that are so much longer than those of all slices.
_FEWEST_STEPS = 1.5
_MOST_IN_RUNS = 0.8
_ACQUISITION = HINTS.index("AcquisitionNumber")


def check_numbers(
    slices: list[Header],
    along: npt.NDArray[np.float64],
    usual: float,
    title: str,
    rules: SeriesFilter,
    notes: list[str],
) -> None:
    """See that instance numbers and slice locations do not contradict positions.

    Parameters
    ----------
    slices : list of Header
        In the order of z.
    along : ndarray, shape (slices,)
        Their positions along the normal, mm.
    usual : float
        Their usual distance, mm.
    title : str
        What the group is called in messages.
    rules : SeriesFilter
        Whether positions are believed all the same.
    notes : list of str
        What people should know is added.

    Raises
    ------
    SourceError
        If they do; the message names slices by their numbers in the order of z.
    """
    _check_restarts(slices, title, rules, notes)
    numbers = [one.number for one in slices]
    doubled = _interleaved(numbers)
    if doubled and not rules.trust_positions:
        raise SourceError(
            f"{title}: {told(slices, doubled)} share their instance numbers with others at other positions: slices of "
            "two series may be mixed; give each by itself, or --trust-positions if they are one"
        )
    passes = passes_between(numbers, along)
    if passes > 1 and not rules.trust_positions:
        raise SourceError(
            f"{title}: instance numbers of slices 1 to {len(slices)} run through the same range of positions {passes} "
            "times, each time at other ones: slices of several passes may be mixed that nothing in their headers tells "
            "apart; give each by itself, or --trust-positions if they are one"
        )
    locations = [one.location for one in slices]
    moved = _elsewhere(slices, along, usual)
    if moved and runs_one_way(locations):
        notes.append(f"slice locations do not go with the position of {told(slices, moved)}: positions decide")
        moved = []
    wrong = sorted({*_out_of_turn(numbers), *moved})
    verdicts = {_verdict(slices, numbers), _verdict(slices, locations) if moved else None}
    if not wrong and {Likeness.ATTRIBUTE, Likeness.UNKNOWN} & verdicts:
        wrong = _out_of_blocks(numbers)
    if not wrong and Likeness.ATTRIBUTE in verdicts:
        wrong = [i for i in range(len(slices)) if i not in _kept_order(numbers)[0]]
    if Likeness.ATTRIBUTE not in verdicts and Likeness.UNKNOWN not in verdicts and Likeness.POSITIONS in verdicts:
        notes.append(
            "its instance numbers or slice locations follow another order than its positions, in which neighbouring "
            "slices are more alike: positions decide"
        )
        return
    if not wrong:
        if _follow_nothing(numbers):
            notes.append("its instance numbers follow no order of positions: positions decide")
        elif Likeness.UNKNOWN in verdicts:
            notes.append(
                "its instance numbers follow another order than its positions, and pixels cannot tell which of them is "
                "right: positions decide"
            )
        return
    lie = "lies" if len(wrong) == 1 else "lie"
    what = f"{told(slices, wrong)} {lie} where instance numbers or slice locations say otherwise"
    if not rules.trust_positions:
        raise SourceError(
            f"{title}: {what}: positions may be swapped; get the files again, or give --trust-positions if right"
        )
    notes.append(f"{what}: positions trusted")


def _verdict(slices: Sequence[Header], values: Sequence[float | None]) -> Likeness | None:
    """Order in which slices are more alike; None where both orders are the same or values say nothing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < _FEWEST_IN_RUN or len(set(known)) < len(known) or runs_one_way(known):
        return None
    return likeness(slices, known)


def runs_one_way(values: Sequence[float | None]) -> bool:
    """Return True if all values are known and run strictly up, or down."""
    known = [value for value in values if value is not None]
    steps = np.diff(known)
    return len(known) == len(values) and bool((steps > 0).all() or (steps < 0).all())


def passes_between(numbers: Sequence[int | None], along: npt.NDArray[np.float64]) -> int:
    """Return how often instance numbers run through the same range, each time at other positions; 1 if they do not.

    Parameters
    ----------
    numbers : sequence of int or None
        In the order of positions; two passes may have the same ones.
    along : ndarray
        Positions in ascending order.
    """
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(known) < 2 * _FEWEST_IN_RUN or runs_one_way(known):
        return 1
    times: Counter[int] = Counter()
    keys = []
    for number in known:
        keys.append((times[number], number))
        times[number] += 1
    ordered = along[sorted(range(len(known)), key=lambda i: keys[i])]
    steps = np.diff(ordered)
    period = usual_step(np.sort(np.abs(steps)))
    if period < _FEWEST_STEPS * usual_step(np.diff(along)):
        return 1
    breaks = np.flatnonzero(np.abs(np.abs(steps) - period) > tolerance_of(period)) + 1
    runs = [run for run in np.split(ordered, breaks) if len(run) >= _FEWEST_IN_RUN]
    if sum(map(len, runs)) < _MOST_IN_RUNS * len(known):
        return 1
    return max((sum(overlap_by_half(run, other) for other in runs) for run in runs), default=1)


def _interleaved(numbers: Sequence[int | None]) -> list[int]:
    """Indices of slices that share their numbers with others, where these do not run one after the other."""
    times = Counter(numbers)
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or 2 * len(times) < len(numbers):
        return []
    steps = np.diff(known)
    # Numbers that begin anew with each part of a series do so once a part.
    if min((steps <= 0).sum(), (steps >= 0).sum()) <= max(times.values()):
        return []
    return [i for i, number in enumerate(numbers) if times[number] > 1]


def _acquisition(header: Header) -> str:
    return header.hints[_ACQUISITION] if len(header.hints) > _ACQUISITION else ""


def _check_restarts(slices: list[Header], title: str, rules: SeriesFilter, notes: list[str]) -> None:
    """Tell of scans of one identifier that lie one behind the other, so that they look like one.

    Where their acquisition numbers differ it is one series of several acquisitions. Where these are the same, two
    images of one acquisition have one number: of two scans, perhaps of two people.
    """
    parts = _runs([one.number for one in slices])
    if len(parts) < 2:
        return
    shown = [
        f"{part.start + 1} to {part.stop} ({mark_path(slices[part.start].file)} to "
        f"{mark_path(slices[part.stop - 1].file)})"
        for part in parts[:_MOST_NAMED]
    ]
    more = f" and {len(parts) - _MOST_NAMED} more parts" if len(parts) > _MOST_NAMED else ""
    what = f"instance numbers begin anew: slices {', '.join(shown)}{more} have the same ones"
    known = [{_acquisition(slices[i]) for i in part} for part in parts]
    if "" not in set().union(*known) and len(set().union(*known)) == sum(map(len, known)):
        notes.append(f"{what}, of several acquisitions: between them the patient may have moved or breathed")
    elif rules.trust_positions:
        notes.append(f"{what}: positions trusted")
    else:
        raise SourceError(
            f"{title}: {what}: two scans may follow each other; give each by itself, or --trust-positions if they are "
            "one"
        )


def _runs(numbers: Sequence[int | None]) -> list[range]:
    """Stretches in which numbers run up or down, where some of them begin anew; one or none where none does."""
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(set(known)) == len(known):
        return []
    runs: list[range] = []
    start, sign = 0, 0
    for i in range(1, len(known) + 1):
        step = int(np.sign(known[i] - known[i - 1])) if i < len(known) else 0
        if i == len(known) or not step or (sign and step != sign):
            runs.append(range(start, i))
            start, sign = i, 0
        else:
            sign = step
    # Numbers of which hardly two run on say nothing at all.
    return runs if len(known) >= _FEWEST_IN_RUN * len(runs) else []


def _out_of_turn(numbers: Sequence[int | None]) -> list[int]:
    """Indices of slices whose instance numbers break an order that two thirds or more keep."""
    kept, values = _kept_order(numbers)
    out = [i for i in range(len(values)) if i not in kept]
    if not 0 < len(out) <= max(2, len(values) // 3):
        return []
    rank = {number: i for i, number in enumerate(sorted(values))}
    displaced = [i for i, number in enumerate(values) if rank[number] != i]
    return displaced if len(displaced) <= 2 * len(out) else out


def _out_of_blocks(numbers: Sequence[int | None]) -> list[int]:
    """Indices of slices between blocks in which numbers follow each other, all up or all down, of most slices."""
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers) or len(set(known)) < len(known):
        return []
    steps = np.diff(np.argsort(np.argsort(known)))
    runs: list[list[int]] = []
    for sign in (1, -1):
        parts = np.split(np.arange(len(known)), np.flatnonzero(steps != sign) + 1)
        runs.append([int(i) for part in parts if len(part) >= _FEWEST_IN_RUN for i in part])
    kept = set(runs[0] if len(runs[0]) >= len(runs[1]) else runs[1])
    return [i for i in range(len(known)) if i not in kept] if 3 * len(kept) >= 2 * len(known) else []


def _follow_nothing(numbers: Sequence[int | None]) -> bool:
    """Whether numbers that are all different run neither up nor down, nor do those of every second slice."""
    kept, values = _kept_order(numbers)
    return len(kept) < len(values) // 2


def _kept_order(numbers: Sequence[int | None]) -> tuple[set[int], list[int]]:
    """Indices of the longest part that runs up, or down, and the numbers, negative where it runs down.

    Empty where there are fewer than three, or not every slice has a number of its own.
    """
    known = [number for number in numbers if number is not None]
    if len(known) < 3 or len(known) < len(numbers) or len(set(known)) < len(known):
        return set(), []
    if known[0] > known[-1]:
        known = [-number for number in known]
    runs = [(_longest_run(values), values) for values in (known, [-number for number in known])]
    return max(runs, key=lambda run: len(run[0]))


def _longest_run(values: Sequence[int]) -> set[int]:
    """Indices of the longest ascending part of a sequence (patience sorting)."""
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


def _elsewhere(slices: list[Header], along: npt.NDArray[np.float64], usual: float) -> list[int]:
    """Indices of the few slices whose slice location does not go with their position."""
    if len(slices) < 5 or any(one.location is None for one in slices):
        return []
    location = np.array([one.location for one in slices], float)
    found = []
    for sign in (1, -1):
        rest = sign * location - along
        found.append(np.flatnonzero(np.abs(rest - np.median(rest)) > 0.5 * usual))
    fewest = min(found, key=len)
    return [int(i) for i in fewest] if len(fewest) <= max(2, len(slices) // 4) else []
