"""Comparison of groups of patients: table of characteristics, and tests of measurements such as lung involvement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.analysis.case_groups import ATTRIBUTES, UNKNOWN, group_cases
from lungmix.analysis.case_table import CaseTable, JoinedTable, Value, join_table, parse_column, read_case_table
from lungmix.analysis.characteristics import PATIENTS, SCANS, Characteristic, Row, check_summary, table_rows
from lungmix.analysis.group_tests import (
    MIXED_MODEL,
    RANKS,
    Comparison,
    PairComparison,
    Settings,
    compare_measurement,
    correct_for_measurements,
)
from lungmix.analysis.reliability import is_available
from lungmix.errors import UsageError, count_of, first_of, mark_untrusted
from lungmix.intake.patients import group_patients
from lungmix.intake.user_tables import plain_name
from lungmix.stages.measure import comparable_measurements
from lungmix.store import Case, Cohort
from lungmix.store.patients import PatientScan, patients_of
from lungmix.tissue import TISSUES

MEASUREMENTS = ("lung_involvement", "ggo", "consolidation", "lung_ml", "ggo_ml", "consolidation_ml")
"""Columns of ``measurements.csv`` that are tested, unless the user gives others."""

MIN_PATIENTS = 3
"""Smallest number of patients of a group that is compared."""

MAX_GROUPS = 10
"""Largest number of different texts in a column by which scans are grouped or counted."""

MAX_NUMBERS = 6
"""Largest number of different numbers in a column by which scans are grouped without cuts."""

MIXED, FIRST = "mixed", "first"
REPEATS = (MIXED, FIRST)
"""What is done if patients have several scans: a mixed model of all scans, or tests of the first scans."""

_FEW_PATIENTS = 20
_ACQUISITION = ("scanner", "kernel", "kvp", "slice-thickness")
_OF_PATIENTS = {"sex": "Sex", "age": "Age (years)"}
_SCORES = ("s", "score")


@dataclass(frozen=True)
class Scan:
    """Scan in a comparison of groups.

    Attributes
    ----------
    case : str
        Name of the case.
    patient : int
        Number of the patient, from 1 on.
    group : str or None
        Name of the group; None if it is unknown.
    is_first : bool
        True for the first scan of a patient: by days, if they are known, else by the name of the case.
    values : dict of str to float
        The tested measurements; NaN where one is missing.
    """

    case: str
    patient: int
    group: str | None
    is_first: bool
    values: dict[str, float]


@dataclass(frozen=True)
class GroupStudy:
    """Result of a comparison of groups.

    Attributes
    ----------
    by : str
        Column or attribute by which scans are grouped; empty for the table of the whole cohort.
    groups : tuple of str
        Names of all groups, in their order.
    compared : tuple of str
        Groups that are compared; empty if there is no comparison.
    scans : tuple of Scan
        All scans, in the order of patients, and of the scans of a patient.
    table : tuple of Row
        Table of characteristics; cells are of all scans, then of each group.
    comparisons : tuple of Comparison
        Comparison of each measurement.
    rule : str
        Sentence about which tests are made, and why.
    patients_by : str
        Sentence about what tells which scans are of one patient.
    settings : Settings
        Numbers of the intervals.
    notes : tuple of str
        Sentences about scans and groups that are left out, and about intervals that are not reliable. Names are marked.
    """

    by: str
    groups: tuple[str, ...]
    compared: tuple[str, ...]
    scans: tuple[Scan, ...]
    table: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    rule: str
    patients_by: str
    settings: Settings
    notes: tuple[str, ...]

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len({scan.patient for scan in self.scans})


def compare_groups(
    cohort: Cohort,
    by: str | None = None,
    *,
    table: str | Path | None = None,
    groups: Sequence[str] = (),
    cuts: Sequence[float] = (),
    describe: Sequence[str] = (),
    measurements: Sequence[str] = (),
    summary: str = "auto",
    repeats: str = MIXED,
    patients: str | Path | None = None,
    key: Mapping[str, Mapping[str, str]] | None = None,
    settings: Settings | None = None,
) -> GroupStudy:
    """Return the characteristics of groups of scans, and tests of their measurements.

    Parameters
    ----------
    cohort : Cohort
        The store, whose measured cases are compared. With a `table`, only the cases that it names.
    by : str, optional
        Column of `table`, ``sex`` or ``age`` if the store keeps them, or an attribute of the acquisition, see
        `lungmix.analysis.case_groups.ATTRIBUTES`. Without it, there is a table of the whole cohort, and no comparison.
    table : str or Path, optional
        CSV file with a column ``case`` or ``patient``, and further columns. Columns ``sex``, ``age`` and ``S`` are
        rows of the table of characteristics.
    groups : sequence of str
        Names of the groups to compare, in this order; by default all, sorted.
    cuts : sequence of float
        Numbers at which a column of numbers is cut into groups: a scan with this number is in the upper group.
    describe : sequence of str
        Further columns of `table` for rows of the table of characteristics.
    measurements : sequence of str
        Columns of ``measurements.csv`` to test; by default `MEASUREMENTS`.
    summary : {"auto", "median", "mean"}
        How numbers are summarised, see `lungmix.analysis.characteristics.summary_of`.
    repeats : {"mixed", "first"}
        What is done if patients have several scans: a mixed model of all scans, or tests of the first scans.
    patients : str or Path, optional
        Table of patients, see `lungmix.intake.patients.read_patients`.
    key : mapping, optional
        Rows of a key table by case. They tell which scans are of one patient, and `table` may then name files or
        patients.
    settings : Settings, optional
        Numbers of the intervals.

    Raises
    ------
    UsageError
        If a column or measurement is unknown, a column has too many different values, or a number is out of range.
    StoreError
        If the measurements may not be compared.
    """
    settings = settings or Settings()
    settings.check()
    check_summary(summary)
    if repeats not in REPEATS:
        raise UsageError(f"`repeats={repeats!r}` is not possible: choose from {', '.join(REPEATS)}")
    rows = {str(row["case"]): row for row in comparable_measurements(cohort)}
    if not rows:
        raise UsageError("the cohort has no measured case: run `Pipeline.measure()` first")
    user_table = None if table is None else read_case_table(table)
    joined = None if user_table is None else join_table(sorted(rows), user_table, key)
    names = sorted(rows if joined is None else joined.cells)
    tested = _check_measurements(measurements, rows[names[0]])
    cases = {name: cohort[name] for name in names}
    columns = _Columns(cases, user_table, joined)
    group_of, group_names = columns.groups(by, cuts)
    group_of, group_names, notes = _select(group_of, group_names, groups, by)
    numbers, patients_by = _number_patients(cohort, names, joined, patients, key)
    names.sort(key=lambda name: numbers[name])
    notes += [] if joined is None else _notes_of_table(joined, set(rows) - set(names))
    scans = tuple(
        Scan(
            name, numbers[name][0], group_of.get(name), numbers[name][1] == 0,
            {key: float(rows[name].get(key, float("nan"))) for key in tested},
        )
        for name in names
    )  # fmt: skip
    characteristics = [
        *columns.characteristics(by, describe),
        *(_measured(column, rows) for column in _described_measurements(rows[names[0]], tested)),
    ]
    of_group = [[name for name in names if group_of.get(name) == group] for group in group_names]
    table_of_all = table_rows(
        characteristics, [names, *of_group], {name: number for name, (number, _) in numbers.items()}, summary
    )
    compared, comparisons, rule, more = _compare(scans, group_names, by, tested, repeats, settings)
    return GroupStudy(
        by or "", tuple(group_names), compared, scans, tuple(table_of_all), comparisons, rule, patients_by, settings,
        (*notes, *more),
    )  # fmt: skip


def comparison_rows(result: GroupStudy) -> list[dict[str, Any]]:
    """Return the comparisons as rows of a table: for each measurement, the test of all groups, then each pair.

    For two groups, the test and the pair are one row.
    """
    rows = []
    nan = float("nan")
    for comparison in result.comparisons:
        of_all = {"measurement": comparison.measurement, "scans": comparison.scans}
        epsilon = comparison.epsilon_squared
        if epsilon is not None:
            rows.append(
                of_all | {"first": "all groups", "second": ""} | _of_test(comparison.test, comparison, nan)
                | {"p_holm_measurements": comparison.p_holm} | _of_pair(None)
                | _bounds("epsilon_squared", epsilon.value, epsilon.low, epsilon.high)
            )  # fmt: skip
        for pair in comparison.pairs:
            names = {"first": pair.first, "second": pair.second}
            if epsilon is None:
                test = _of_test(comparison.test, comparison, nan) | {"p_holm_measurements": comparison.p_holm}
            else:
                test = _of_test(pair.test, pair, pair.p_holm) | {"p_holm_measurements": nan}
            rows.append(of_all | names | test | _of_pair(pair) | _bounds("epsilon_squared", nan, nan, nan))
    return [{key: "" if value != value else value for key, value in row.items()} for row in rows]


def scan_rows(result: GroupStudy) -> list[dict[str, Any]]:
    """Return the scans as rows of a table: case, numbered patient, group, and the tested measurements."""
    return [
        {
            "case": scan.case, "patient": f"patient-{scan.patient:03d}", "first_scan": int(scan.is_first),
            "group": scan.group or "", **scan.values,
        }
        for scan in result.scans
    ]  # fmt: skip


def _select(
    group_of: Mapping[str, str | None], names: Sequence[str], chosen: Sequence[str], by: str | None
) -> tuple[dict[str, str | None], list[str], list[str]]:
    """Return the group of each case among the chosen groups, their names in order, and notes about other cases."""
    if chosen and by is None:
        raise UsageError("`groups` need a column: group `by` one")
    spelled = {name.lower(): name for name in names}
    for name in chosen:
        if name.lower() not in spelled:
            raise UsageError(f"there is no group {mark_untrusted(name)}: choose from {', '.join(names)}")
    selected = [spelled[name.lower()] for name in dict.fromkeys(chosen)] or list(names)
    unknown = sorted(name for name, group in group_of.items() if group is None)
    others = [group for group in names if group not in selected]
    notes = []
    if unknown:
        notes.append(f"in no group, because {by} is unknown: {count_of(len(unknown), 'scan')} ({first_of(unknown)})")
    if others:
        notes.append(f"groups that are left out: {first_of(others)}")
    return {name: group if group in selected else None for name, group in group_of.items()}, selected, notes


def _of_test(test: str, tested: Comparison | PairComparison, p_holm: float) -> dict[str, Any]:
    return {
        "test": test, "statistic": tested.statistic, "degrees": tested.degrees, "p": tested.p, "p_holm_pairs": p_holm
    }  # fmt: skip


def _of_pair(pair: PairComparison | None) -> dict[str, Any]:
    nan = float("nan")
    shift, correlation = (None, None) if pair is None else (pair.hodges_lehmann, pair.rank_biserial)
    cells: dict[str, Any] = {}
    for key, estimate in (("hodges_lehmann", shift), ("rank_biserial", correlation)):
        numbers = (nan,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
        cells |= _bounds(key, *numbers)
    mean = None if pair is None else pair.mean_difference
    return cells | _bounds("mean_difference", *((nan,) * 3 if mean is None else mean))


def _bounds(key: str, value: float, low: float, high: float) -> dict[str, Any]:
    return {key: value, f"{key}_low": low, f"{key}_high": high}


def _check_measurements(measurements: Sequence[str], row: Mapping[str, Any]) -> list[str]:
    numeric = [key for key, value in row.items() if isinstance(value, float)]
    for key in measurements:
        if key not in numeric:
            raise UsageError(
                f"{key!r} is no measurement: choose a column of measurements.csv, such as lung_involvement"
            )
    tested = list(dict.fromkeys(measurements)) or [key for key in MEASUREMENTS if key in numeric]
    if MEASUREMENTS[0] not in numeric and not measurements:
        raise UsageError("lung involvement needs five tissues: fit five components, then label and measure")
    return tested


def _described_measurements(row: Mapping[str, Any], tested: Sequence[str]) -> list[str]:
    usual = ("lung_ml", "lung_involvement", *(tissue.key for tissue in TISSUES), "mean_hu")
    return [key for key in dict.fromkeys((*usual, *tested)) if key in row]


def _measured(column: str, rows: Mapping[str, Mapping[str, Any]]) -> Characteristic:
    return Characteristic(column, "", SCANS, {name: float(row[column]) for name, row in rows.items() if column in row})


class _Columns:
    """Columns by which cases are grouped and described: of the user's table, or from the store."""

    def __init__(self, cases: Mapping[str, Case], table: CaseTable | None, joined: JoinedTable | None):
        self._cases = cases
        self._table = table
        self._joined = joined

    def groups(self, by: str | None, cuts: Sequence[float]) -> tuple[dict[str, str | None], list[str]]:
        """Return the group of each case, and the names of all groups in their order."""
        if by is None:
            return {}, []
        column = self._find(by)
        if column is None:
            if by not in ATTRIBUTES:
                raise UsageError(f"scans cannot be grouped by {mark_untrusted(by)}: {self._choices()}")
            if cuts:
                raise UsageError("`cuts` need a column of numbers: group `by` a column of a table")
            groups = self._by_attribute(by)
            if not groups[1]:
                raise self._unknown(by)
            return groups
        values, is_numeric = column
        present = {value for value in values.values() if value is not None}
        if not present:
            raise self._unknown(by)
        if is_numeric:
            numbers = sorted(float(value) for value in present)
            if cuts:
                return _cut(values, sorted(set(cuts)))
            if len(numbers) > MAX_NUMBERS:
                middle = float(f"{np.median(numbers):.3g}")
                raise UsageError(
                    f"{mark_untrusted(by)} has {len(numbers)} different numbers: give the numbers at which they are "
                    f"cut into groups, such as `cuts=[{middle:g}]`"
                )
            groups_of_numbers = {n: None if v is None else _text_of(float(v)) for n, v in values.items()}
            return groups_of_numbers, list(map(_text_of, numbers))
        if cuts:
            raise UsageError(f"{mark_untrusted(by)} holds texts, which `cuts` cannot divide: omit them")
        texts = _levels(by, values)
        return {name: None if value is None else str(value) for name, value in values.items()}, list(texts)

    def characteristics(self, by: str | None, describe: Sequence[str]) -> list[Characteristic]:
        """Return the characteristics of patients and scans other than measurements."""
        out = []
        if self._table is not None:
            scores = [column for column in self._table.columns if column.strip().lower() in _SCORES]
        else:
            scores = []
        for name in describe:
            if self._table is None or self._table.find_column(name) is None:
                raise UsageError(f"there is no column {mark_untrusted(name)} to describe: {self._choices()}")
        for name in dict.fromkeys((*_OF_PATIENTS, *describe, *scores)):
            column = self._find(name)
            if column is None or (by is not None and name.lower() == by.lower() and not column[1]):
                continue
            values, is_numeric = column
            if all(value is None for value in values.values()):
                continue
            is_score = name in scores
            numbers = sorted({float(v) for v in values.values() if v is not None}) if is_numeric else []
            if is_score and len(numbers) <= MAX_NUMBERS:
                values = {case: None if value is None else _text_of(float(value)) for case, value in values.items()}
                levels: tuple[str, ...] | None = tuple(map(_text_of, numbers))
            else:
                levels = None if is_numeric else _levels(name, values)
            of = SCANS if is_score else PATIENTS
            title = _OF_PATIENTS.get(name.lower(), "Score S" if is_score else name)
            out.append(Characteristic(name, title, of, values, levels))
        for name in _ACQUISITION:
            texts_of_cases, texts = self._by_attribute(name)
            if texts and name != by:
                title = ATTRIBUTES[name].title
                out.append(Characteristic(name, title[:1].upper() + title[1:], SCANS, texts_of_cases, tuple(texts)))
        return out

    def _find(self, name: str) -> tuple[dict[str, Value], bool] | None:
        """Return the values of a column of the table, or of sex and age in the store; None if there is none."""
        title = None if self._table is None else self._table.find_column(name)
        if title is not None and self._joined is not None:
            return parse_column((case, cells[title]) for case, cells in self._joined.cells.items())
        if name.lower() in _OF_PATIENTS:
            stored = {case: getattr(item.acquisition, name.lower()) for case, item in self._cases.items()}
            if any(value is not None for value in stored.values()):
                return {n: float(v) if isinstance(v, int) else v for n, v in stored.items()}, name.lower() == "age"
        return None

    def _by_attribute(self, name: str) -> tuple[dict[str, str | None], list[str]]:
        groups = [group for group in group_cases(self._cases.items(), [name]) if group.values[name] != UNKNOWN]
        name_of: dict[str, str | None] = {case: group.name for group in groups for case in group.cases}
        return {case: name_of.get(case) for case in self._cases}, [group.name for group in groups]

    def _unknown(self, by: str) -> UsageError:
        return UsageError(
            f"{mark_untrusted(by)} is unknown for all {count_of(len(self._cases), 'scan')}: {self._choices()}"
        )

    def _choices(self) -> str:
        columns = () if self._table is None else self._table.columns
        names = ", ".join((*map(mark_untrusted, columns), *(name for name in ATTRIBUTES if name not in columns)))
        hint = ", or a column of a `table`" if self._table is None else ""
        return f"choose from {names}{hint}"


def _levels(name: str, values: Mapping[str, Value]) -> tuple[str, ...]:
    texts = sorted({str(value) for value in values.values() if value is not None}, key=str.lower)
    if len(texts) > MAX_GROUPS:
        raise UsageError(
            f"{mark_untrusted(name)} has {len(texts)} different texts: give a column with {MAX_GROUPS} or fewer"
        )
    if len(texts) > 2 and len(texts) == sum(value is not None for value in values.values()):
        raise UsageError(f"{mark_untrusted(name)} has another text for each scan: give a column of groups")
    return tuple(texts)


def _text_of(number: float) -> str:
    """Return a number with all its digits, so that different numbers have different texts."""
    return f"{number:.15g}"


def _cut(values: Mapping[str, Value], cuts: Sequence[float]) -> tuple[dict[str, str | None], list[str]]:
    texts = list(map(_text_of, cuts))
    names = [f"< {texts[0]}", *(f"{a} to < {b}" for a, b in zip(texts, texts[1:], strict=False)), f">= {texts[-1]}"]
    groups = {
        case: None if value is None else names[int(np.searchsorted(cuts, float(value), "right"))]
        for case, value in values.items()
    }
    return groups, [name for name in names if name in groups.values()]


def _number_patients(
    cohort: Cohort,
    names: Sequence[str],
    joined: JoinedTable | None,
    patients: str | Path | None,
    key: Mapping[str, Mapping[str, str]] | None,
) -> tuple[dict[str, tuple[int, int]], str]:
    """Return the numbers of patient and scan of each case, and what tells which scans are of one patient."""
    recorded = _orders(patients_of(cohort, need_first=False))
    if patients is not None:
        by, patient_of = "the table of patients", _orders(group_patients(cohort, patients, key).patients)
    elif key is not None:
        by, patient_of = "the key table", {}
        # No patient with two scans is no error.
        with suppress(UsageError):
            patient_of = _orders(group_patients(cohort, None, key).patients)
    elif joined is not None and joined.patients:
        by = "the column patient"
        patient_of = {name: (plain_name(p), recorded.get(name, ("", 0))[1]) for name, p in joined.patients.items()}
    else:
        by = "the patients that the store records" if recorded else ""
        patient_of = recorded
    scans: dict[tuple[str, bool], list[tuple[int, str]]] = {}
    for name in names:
        # A scan without a known patient is that of a patient of its own.
        patient, order = patient_of.get(name, (name, 0))
        scans.setdefault((patient, name in patient_of), []).append((order, name))
    numbers = {
        name: (number, position)
        for number, of_patient in enumerate(scans.values(), start=1)
        for position, (_, name) in enumerate(sorted(of_patient))
    }
    if not by:
        return numbers, "each scan counts as a patient, because nothing tells which scans are of one patient"
    return numbers, f"scans of one patient by {by}"


def _orders(patients: Mapping[str, Sequence[PatientScan]]) -> dict[str, tuple[str, int]]:
    """Return the patient of each case, and the position of the scan among those of the patient."""
    return {scan.case: (p, position) for p, scans in patients.items() for position, scan in enumerate(scans)}


def _notes_of_table(joined: JoinedTable, others: set[str]) -> list[str]:
    notes = []
    if others:
        notes.append(f"measured, but not in the table, left out: {first_of(sorted(others))}")
    if joined.unmatched:
        notes.append(f"in the table, but not measured: {first_of(joined.unmatched)}")
    return notes


def _compare(
    scans: Sequence[Scan],
    groups: Sequence[str],
    by: str | None,
    tested: Sequence[str],
    repeats: str,
    settings: Settings,
) -> tuple[tuple[str, ...], tuple[Comparison, ...], str, list[str]]:
    """Return the compared groups, the comparisons, the rule of the tests, and notes."""
    if by is None:
        return (), (), "", []
    notes = []
    grouped = [scan for scan in scans if scan.group is not None]
    first_scans = {scan.patient: scan for scan in reversed(grouped)}
    several = len({scan.patient for scan in grouped if scan is not first_scans[scan.patient]})
    kind, rule = RANKS, "one scan per patient"
    if several:
        count = f"{count_of(several, 'patient')} {'has' if several == 1 else 'have'} several scans"
        if repeats == MIXED and is_available():
            kind = MIXED_MODEL
            rule = f"{count}: linear mixed model of all scans with a random intercept per patient"
        else:
            rule = f"{count}: only the first scan of each patient is tested"
            if repeats == MIXED:
                notes.append("a mixed model of all scans needs statsmodels: install lungmix[statistics]")
    used = [scan for scan in grouped if kind == MIXED_MODEL or scan is first_scans[scan.patient]]
    sizes = {group: len({scan.patient for scan in used if scan.group == group}) for group in groups}
    compared = tuple(group for group in groups if sizes[group] >= MIN_PATIENTS)
    small = [f"{group} ({count_of(sizes[group], 'patient')})" for group in groups if group not in compared]
    if small:
        notes.append(f"not compared, because of fewer than {MIN_PATIENTS} patients: {first_of(small)}")
    if len(compared) < 2:
        notes.append(f"nothing is compared, because fewer than two groups have {MIN_PATIENTS} patients or more")
        return (), (), "", notes
    few = [f"{group} ({sizes[group]})" for group in compared if sizes[group] < _FEW_PATIENTS]
    if few:
        notes.append(f"intervals tend to be too narrow for fewer than {_FEW_PATIENTS} patients: {', '.join(few)}")
    used = [scan for scan in used if scan.group in compared]
    rule += _tests_of(kind, len(compared), len(tested))
    group_numbers = np.array([compared.index(str(scan.group)) for scan in used])
    patient_numbers: npt.NDArray[np.int64] = np.array([scan.patient for scan in used])
    comparisons = correct_for_measurements([
        compare_measurement(
            key, np.array([scan.values[key] for scan in used]), group_numbers, patient_numbers, compared, kind=kind,
            settings=settings,
        )
        for key in tested
    ])  # fmt: skip
    for comparison in comparisons:
        if np.isnan(comparison.p):
            notes.append(f"{comparison.measurement}: no test, because its values are equal or missing")
    return compared, tuple(comparisons), rule, notes


def _tests_of(kind: str, groups: int, measurements: int) -> str:
    if kind == MIXED_MODEL:
        tests = "; F test of the groups" if groups == 2 else "; F test of all groups, t tests of pairs"
    else:
        tests = (
            "; Mann-Whitney U test"
            if groups == 2
            else "; Kruskal-Wallis test of all groups, Mann-Whitney U tests of pairs"
        )
    families = [
        *(["the pairs of groups"] if groups > 2 else []),
        *([f"the {measurements} measurements"] if measurements > 1 else []),
    ]
    return tests + (f"; p values corrected for {' and for '.join(families)} by Holm's method" if families else "")
