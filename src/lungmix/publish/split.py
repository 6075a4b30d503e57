"""Training and test set of a data set: all scans of a patient on one side, in equal shares of each scanner and score.

Patients of the previous version keep their sides. Within a stratum, patients follow each other by a digest of the seed
and their first case, so that neither the order of the cases nor that of other patients matters.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

from lungmix.errors import UsageError, count_of
from lungmix.intake.patients import scans_by_key
from lungmix.kernels.data_dictionary import Column
from lungmix.kernels.severity import severity_scores
from lungmix.publish.folder import CASES_FILE, SPLIT_FILE

TRAIN, TEST = "train", "test"
DEFAULT_SHARE = 0.2
FEWEST_PATIENTS = 10
"""Fewest patients that are split unless a share is given: with the share of 0.2, two of them are for tests."""

BY_READER, BY_INVOLVEMENT = "reader", "lung_involvement"
_OTHER_SCANNERS, _OTHER_SCORES, _UNKNOWN = "other scanners", "other scores", "unknown"

SPLIT_COLUMNS = (
    Column("patient", "", "patient, as in cases.csv"),
    Column("scans", "", "number of scans of the patient"),
    Column("scanner", "", "manufacturer and model of the scanner of the first scan"),
    Column("score", "", "highest severity of the scans, 0 to 5"),
    Column("score_by", "", "reader: a radiologist scored it; lung_involvement: computed from the lung involvement"),
    Column("stratum", "", "scanner and score, or the stratum into which small strata were merged"),
    Column("split", "", "train or test"),
    Column("since", "", "version of the data set in which the patient got this side"),
    Column("seed", "", "seed with which the patient got this side"),
)
CASE_COLUMN = Column("split", "", "train or test, the side of the patient in split.csv")

_TEXT = """\
split.csv assigns each patient with all scans to the side train or test, and cases.csv repeats the side for each scan.
A model that is fitted to scans of the side train should be tested on scans of the side test, and nothing should be
chosen by these. Strata are the scanner of the first scan (manufacturer and model) and the highest score S of a patient.
S is that of a radiologist, or else computed from the lung involvement. A stratum with too few patients for one of them
to be on each side is merged with such strata of the same score on other scanners, then of other scores on the same
scanner, then with all others. In each stratum, the test side has its share of the patients, rounded up or down.
"""
FIXED_TEXT = " ".join((_TEXT, *(column.meaning for column in (*SPLIT_COLUMNS, CASE_COLUMN))))
"""Text that data sets with two sides contain."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SplitRule:
    """Share and seed by which patients are assigned to the training and the test set.

    Attributes
    ----------
    test_share : float, optional
        Share of the patients on the test side, below 1; 0 for a data set without sides. By default it is that of the
        previous version, or else 0.2 from 10 patients on.
    seed : int, optional
        Seed of the choice; by default that of the previous version, or else 0.

    Raises
    ------
    UsageError
        If the share is out of range.
    """

    test_share: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.test_share is not None and not 0 <= self.test_share < 1:
            raise UsageError(
                f"`test_share={self.test_share:g}` is no share of patients: give a number from 0 to below 1"
            )


@dataclass(frozen=True)
class Side:
    """Side of a patient, and when the patient got it.

    Attributes
    ----------
    split : str
        ``train`` or ``test``.
    since : str
        Version of the data set.
    seed : int
        Seed of that choice.
    """

    split: str
    since: str
    seed: int


@dataclass(frozen=True)
class Patient:
    """A patient to assign to a side.

    Attributes
    ----------
    name : str
        Name of the patient.
    first_case : str
        First of the names of the cases, by which the patient is drawn.
    scans : int
        Number of scans.
    scanner : str
        Scanner of the first scan.
    score : int or None
        Highest score of the scans.
    score_by : str
        ``reader`` or ``lung_involvement``; empty without a score.
    side : Side or None
        Side in the previous version.
    has_both : bool
        True if the previous version had scans of the patient on both sides, as scans of two patients.
    """

    name: str
    first_case: str
    scans: int
    scanner: str
    score: int | None
    score_by: str
    side: Side | None = None
    has_both: bool = False


@dataclass(frozen=True)
class Split:
    """Sides of all patients.

    Attributes
    ----------
    test_share : float
        Share of the patients that the test side should have.
    seed : int
        Seed of the choice.
    rows : list of dict
        Rows of ``split.csv``, by patient.
    moved : list of str
        Patients that were on both sides of the previous version, and are on the side ``train`` now.
    """

    test_share: float
    seed: int
    rows: list[dict[str, Any]]
    moved: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return share and seed for the record of the data set."""
        return {"test_share": self.test_share, "seed": self.seed}

    def add_to(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return rows of cases with the column ``split`` after that of the patient."""
        sides = {row["patient"]: row["split"] for row in self.rows}
        return [
            {key: value for name in row for key, value in _with_side(name, row, sides[row["patient"]])} for row in rows
        ]


def split_patients(
    rows: Sequence[Row],
    rule: SplitRule,
    version: str,
    previous: Mapping[str, Any] | None = None,
    sides: Mapping[str, Side] | None = None,
) -> Split | None:
    """Assign the patients of a data set to the training and the test set.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of the table of cases.
    rule : SplitRule
        Share and seed.
    version : str
        Version of the data set.
    previous : mapping, optional
        Share and seed of the previous version, see `Split.to_dict`.
    sides : mapping of str to Side, optional
        Sides of the previous version by case, see `read_sides`.

    Returns
    -------
    Split or None
        None if the share is 0, or if no share is given for fewer than 10 patients.

    Raises
    ------
    UsageError
        If a side would have no patient.
    """
    before = previous or {}
    share = rule.test_share if rule.test_share is not None else before.get("test_share")
    seed = int(before.get("seed", 0) if rule.seed is None else rule.seed)
    patients = patients_of_rows(rows, sides or {})
    if share == 0 or (share is None and len(patients) < FEWEST_PATIENTS):
        return None
    share = float(DEFAULT_SHARE if share is None else share)
    for_tests = _rounded(_exact(share) * len(patients))
    for side, number in ((TEST, for_tests), (TRAIN, len(patients) - for_tests)):
        if not sides and not number:
            raise UsageError(
                f"`test_share={share:g}` of {count_of(len(patients), 'patient')} leaves none for the side {side}: give "
                "another share, or 0 for a data set without sides"
            )
    strata = strata_of(patients, share)
    chosen = _choose(strata, share, seed)
    out = []
    for stratum, members in strata.items():
        for patient in members:
            assigned = Side(TEST if patient.name in chosen else TRAIN, version, seed)
            given = assigned if patient.has_both else patient.side or assigned
            out.append({
                "patient": patient.name, "scans": patient.scans, "scanner": patient.scanner,
                "score": "" if patient.score is None else patient.score, "score_by": patient.score_by,
                "stratum": stratum, "split": given.split, "since": given.since, "seed": given.seed,
            })  # fmt: skip
    moved = sorted(patient.name for patient in patients if patient.has_both)
    return Split(share, seed, sorted(out, key=lambda row: str(row["patient"])), moved)


def check_patients(patient_of: Mapping[str, str], key: Mapping[str, Mapping[str, str]]) -> None:
    """Raise `UsageError` if scans of one patient by the key table are of several patients by the name of the case."""
    for scans in scans_by_key(patient_of, key):
        if len({patient_of[name] for name in scans}) > 1:
            raise UsageError(
                f"by the key table {', '.join(scans)} are scans of one patient, which the store does not record: run "
                "`Pipeline.followup()` with `key_table`, so that they are on one side of training and test set"
            )


def patients_of_rows(rows: Sequence[Row], sides: Mapping[str, Side]) -> list[Patient]:
    """Return the patients of the rows of the table of cases, by name."""
    of_patient: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: str(row["case"])):
        of_patient.setdefault(str(row["patient"]), []).append(row)
    patients = []
    for name, scans in sorted(of_patient.items()):
        # Days before the first scan are not known to be such, so scans without days follow those with days.
        first = min(scans, key=lambda row: (row.get("days", "") == "", row.get("days") or 0, str(row["case"])))
        score, score_by = _score_of(scans)
        before = [sides[str(row["case"])] for row in scans if str(row["case"]) in sides]
        patient = Patient(name, str(scans[0]["case"]), len(scans), _scanner_of(first), score, score_by)
        if before:
            has_both = len({side.split for side in before}) > 1
            patient = replace(patient, side=before[0], has_both=has_both)
        patients.append(patient)
    return patients


def strata_of(patients: Sequence[Patient], share: float) -> dict[str, list[Patient]]:
    """Return the patients of each stratum, in which those of small strata are merged; no patient is in two.

    A stratum is small if the share of its patients is less than one patient on either side.
    """
    smallest = ceil(1 / min(_exact(share), 1 - _exact(share)))
    strata: dict[str, list[Patient]] = {}
    left = list(patients)
    for with_scanner, with_score in ((True, True), (False, True), (True, False), (False, False)):
        groups: dict[str, list[Patient]] = {}
        for patient in left:
            scanner = patient.scanner if with_scanner else _OTHER_SCANNERS
            score = f"S {_UNKNOWN if patient.score is None else patient.score}" if with_score else _OTHER_SCORES
            groups.setdefault(f"{scanner}, {score}", []).append(patient)
        is_last = not (with_scanner or with_score)
        large = {name: group for name, group in groups.items() if is_last or len(group) >= smallest}
        strata |= large
        assigned = {patient.name for group in large.values() for patient in group}
        left = [patient for patient in left if patient.name not in assigned]
    return dict(sorted(strata.items()))


def is_consistent(folder: Path) -> bool:
    """Return True if the table of a published folder gives each patient of the table of cases one side, the same."""
    sides = [(row.get("patient"), row.get("split")) for row in _rows_in(folder, SPLIT_FILE)]
    cases = {(row.get("patient"), row.get("split")) for row in _rows_in(folder, CASES_FILE)}
    return len(sides) == len({patient for patient, _ in sides}) and {*sides} == cases


def split_text(split: Split | None) -> str:
    """Return the section of the data card about the two sides."""
    if split is None:
        return "The data set has no training and test set."
    sides = [row["split"] for row in split.rows]
    by_reader = sum(row["score_by"] == BY_READER for row in split.rows)
    computed = sum(row["score_by"] == BY_INVOLVEMENT for row in split.rows)
    lines = [
        _TEXT,
        f"Share of the test side {split.test_share:g}, seed {split.seed}: {sides.count(TRAIN)} patients for training, "
        f"{sides.count(TEST)} for tests. Scores of {count_of(by_reader, 'patient')} by a radiologist, of "
        f"{count_of(computed, 'patient')} computed.\n",
        "| stratum | train | test |",
        "| --- | --- | --- |",
    ]
    for stratum in sorted({row["stratum"] for row in split.rows}):
        of = [row["split"] for row in split.rows if row["stratum"] == stratum]
        lines.append(f"| {stratum.replace('|', ' ')} | {of.count(TRAIN)} | {of.count(TEST)} |")
    if split.moved:
        lines.append(
            f"\nOn both sides of the previous version, as scans of several patients, and for training now: "
            f"{', '.join(split.moved)}. Results of models that were tested with them before are biased."
        )
    return "\n".join(lines)


def read_sides(folder: Path) -> dict[str, Side]:
    """Return the sides of a published folder by case; none if it has no sides."""
    if not (folder / SPLIT_FILE).is_file():
        return {}
    sides = {row["patient"]: Side(row["split"], row["since"], int(row["seed"])) for row in _rows_in(folder, SPLIT_FILE)}
    return {row["case"]: sides[row["patient"]] for row in _rows_in(folder, CASES_FILE)}


def _rows_in(folder: Path, file: str) -> list[dict[str, str]]:
    with (folder / file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _with_side(name: str, row: Row, side: str) -> list[tuple[str, Any]]:
    return [(name, row[name]), *([(CASE_COLUMN.key, side)] if name == "patient" else [])]


def _choose(strata: Mapping[str, Sequence[Patient]], share: float, seed: int) -> set[str]:
    """Return the new patients of the test side, so that each stratum has its share of patients as nearly as it can."""
    exact = {stratum: _exact(share) * len(members) for stratum, members in strata.items()}
    fixed = {
        stratum: sum(patient.side is not None and _side_of(patient) == TEST for patient in members)
        for stratum, members in strata.items()
    }
    new = {
        stratum: [patient for patient in members if _side_of(patient) is None] for stratum, members in strata.items()
    }
    count = {
        stratum: min(max(floor(exact[stratum]), fixed[stratum]), fixed[stratum] + len(new[stratum]))
        for stratum in strata
    }
    total = _rounded(sum(exact.values(), Fraction()))
    while sum(count.values()) < total:
        # No stratum gets more than its share rounded up.
        possible = [
            stratum
            for stratum in strata
            if count[stratum] < min(ceil(exact[stratum]), fixed[stratum] + len(new[stratum]))
        ]
        if not possible:
            break
        stratum = max(possible, key=lambda stratum: (exact[stratum] - count[stratum], _rank(seed, stratum)))
        count[stratum] += 1
    chosen: set[str] = set()
    for stratum, members in new.items():
        drawn = sorted(members, key=lambda patient: _rank(seed, patient.first_case))
        chosen |= {patient.name for patient in drawn[: count[stratum] - fixed[stratum]]}
    return chosen


def _side_of(patient: Patient) -> str | None:
    if patient.has_both:
        return TRAIN
    return None if patient.side is None else patient.side.split


def _rank(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


def _exact(share: float) -> Fraction:
    return Fraction(str(share))


def _rounded(number: Fraction) -> int:
    return floor(number + Fraction(1, 2))


def _scanner_of(row: Row) -> str:
    return " ".join(str(row[key]) for key in ("manufacturer", "scanner_model") if row.get(key, "") != "") or _UNKNOWN


def _score_of(scans: Sequence[Row]) -> tuple[int | None, str]:
    given = [int(row["score"]) for row in scans if row.get("score", "") != ""]
    if given:
        return max(given), BY_READER
    involvement = [float(row["lung_involvement"]) for row in scans if row.get("lung_involvement", "") != ""]
    return (int(severity_scores(involvement).max()), BY_INVOLVEMENT) if involvement else (None, "")
