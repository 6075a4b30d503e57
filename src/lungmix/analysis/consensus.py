"""Consensus of the scores of several readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from statistics import median

from lungmix.errors import UsageError, first_of, mark_untrusted

MEDIAN, MAJORITY = "median", "majority"
RULES = (MEDIAN, MAJORITY)
"""Rules of the consensus besides the score of one reader."""
COMPUTED, CONSENSUS = "computed", "consensus"
"""Names of the computed score and of the consensus in pairs of readers."""


@dataclass(frozen=True)
class Reading:
    """Scores that one reader gave at one time.

    Attributes
    ----------
    label : str
        Name of the reading in results: that of the reader, with the time if the reader has several readings.
    reader : str
        Name of the reader.
    is_first : bool
        True for the first reading of the reader in the file. The others do not enter the consensus.
    """

    label: str
    reader: str
    is_first: bool


def readings_of(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Reading]:
    """Return the reading of each pair of reader and time, in the order of the file.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Reader and time of each score. Readers whose names differ only in upper and lower case are one reader.

    Raises
    ------
    UsageError
        If two readings have the same label, or one has a name that results use for something else.
    """
    spelling: dict[str, str] = {}
    times: dict[str, dict[str, str]] = {}
    for reader, time in pairs:
        spelling.setdefault(reader.lower(), reader)
        times.setdefault(reader.lower(), {}).setdefault(time.lower(), time)
    readings = {}
    for lower, times_of_reader in times.items():
        reader = spelling[lower]
        for number, (lower_time, time) in enumerate(times_of_reader.items()):
            label = reader if len(times_of_reader) == 1 else f"{reader} {time}".strip()
            readings[lower, lower_time] = Reading(label, reader, number == 0)
    labels = [reading.label.lower() for reading in readings.values()]
    for label in labels:
        if label in (*RULES, COMPUTED, CONSENSUS) or labels.count(label) > 1:
            raise UsageError(
                f"the reader {mark_untrusted(label)} has a name that is used otherwise: rename the reader or the time"
            )
    return readings


def check_rule(rule: str, readings: Sequence[Reading]) -> Reading | None:
    """Return the reading whose scores are the consensus; None for the rules `RULES`.

    Raises
    ------
    UsageError
        If the rule is none of `RULES`, and no reader or reading has this name.
    """
    if rule.lower() in RULES:
        return None
    named = [reading for reading in readings if rule.lower() in (reading.label.lower(), reading.reader.lower())]
    if not named:
        labels = first_of([mark_untrusted(reading.label) for reading in readings]) if readings else "one reader only"
        raise UsageError(
            f"the consensus {mark_untrusted(rule)} is unknown: give {MEDIAN}, {MAJORITY} or a reader; the table has "
            f"{labels}"
        )
    return named[0]


def consensus_of(scores: Mapping[Reading, int], rule: str, named: Reading | None = None) -> int | None:
    """Return the consensus of the scores of one scan; None if there is none.

    Parameters
    ----------
    scores : mapping of Reading to int
        Scores of the scan.
    rule : {"median", "majority"}
        ``median`` is the median of the first readings, or the score above it if it lies between two scores.
        ``majority`` is the score that more first readings have than any other score, or the median if there is none.
    named : Reading, optional
        Reading whose score is the consensus, in place of a rule.
    """
    if named is not None:
        return scores.get(named)
    values = [score for reading, score in scores.items() if reading.is_first]
    if not values:
        return None
    frequencies = Counter(values).most_common(2)
    if rule.lower() == MAJORITY and (len(frequencies) == 1 or frequencies[0][1] > frequencies[1][1]):
        return frequencies[0][0]
    return floor(median(values) + 0.5)
