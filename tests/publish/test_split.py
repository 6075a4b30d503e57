"""Training and test set: each patient on one side, shares in each stratum, and sides kept when a data set grows."""

from __future__ import annotations

import csv
from collections import Counter
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.errors import UsageError
from lungmix.publish import About, Creator, SplitRule, check_dataset, dataset, publish
from lungmix.publish.folder import read_record
from lungmix.publish.split import Side, read_sides, split_patients, split_text
from lungmix.store.patients import PatientScan, record_patients
from support.labelled import labelled_store

ABOUT, SECOND = (About("Phantoms", version, "CC-BY-4.0", (Creator("Doe, Jane"),)) for version in ("1.0", "2.0"))


def case_row(case, patient=None, scanner="A", score="", involvement="", days=""):
    return {
        "case": case, "patient": patient or case, "days": days, "manufacturer": scanner, "scanner_model": "X",
        "lung_involvement": involvement, "score": score,
    }  # fmt: skip


def rows_read(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def sides_of(split):
    return {row["patient"]: row["split"] for row in split.rows}


@st.composite
def cohorts(draw, patients=(10, 60), first=0):
    """Rows of patients with 1 to 3 scans on few scanners, with and without scores."""
    rows = []
    for number in range(first, first + draw(st.integers(*patients))):
        scanner, score = draw(st.sampled_from("ABC")), draw(st.sampled_from(["", 0, 1, 2, 3, 4, 5]))
        scans = draw(st.sampled_from([1, 1, 1, 2, 3]))
        for scan in range(scans):
            days = draw(st.sampled_from(["", 10 * scan]))
            rows.append(case_row(f"c{number:03d}-{scan}", f"p{number:03d}", scanner, score, 30.0, days))
    return rows


SHARES = st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.5])


@settings(max_examples=60, deadline=None)
@given(cohorts(), SHARES, st.integers(0, 1000), st.randoms())
def test_every_patient_is_on_one_side_and_strata_have_their_share(rows, share, seed, random):
    rule, exact = SplitRule(share, seed), Fraction(str(share))
    split = split_patients(rows, rule, "1.0")
    assert [row["patient"] for row in split.rows] == sorted({row["patient"] for row in rows})
    of_case = {row["case"]: row["split"] for row in split.add_to(rows)}
    assert of_case == {row["case"]: sides_of(split)[row["patient"]] for row in rows}
    strata = Counter(row["stratum"] for row in split.rows)
    tests = Counter(row["stratum"] for row in split.rows if row["split"] == "test")
    for stratum, patients in strata.items():
        assert floor(patients * exact) <= tests[stratum] <= ceil(patients * exact)
    assert abs(tests.total() - len(split.rows) * exact) <= 0.5
    shuffled = random.sample(rows, len(rows))
    assert split_patients(shuffled, rule, "1.0") == split


@settings(max_examples=60, deadline=None)
@given(cohorts(), cohorts(patients=(1, 30), first=100), SHARES, st.integers(0, 1000))
def test_patients_keep_their_sides_and_new_ones_restore_the_shares(rows, added, share, seed):
    first = split_patients(rows, SplitRule(share, seed), "1.0")
    by_patient = {row["patient"]: Side(row["split"], row["since"], row["seed"]) for row in first.rows}
    sides = {row["case"]: by_patient[row["patient"]] for row in rows}
    second = split_patients([*rows, *added], SplitRule(), "2.0", first.to_dict(), sides)
    assert (second.test_share, second.seed) == (share, seed)
    earlier = {patient: side for patient, side in sides_of(second).items() if patient in by_patient}
    assert earlier == sides_of(first)
    assert {row["since"] for row in second.rows if row["patient"] not in by_patient} == {"2.0"}
    for stratum in {row["stratum"] for row in second.rows}:
        of = [row for row in second.rows if row["stratum"] == stratum]
        new = [row["split"] for row in of if row["since"] == "2.0"]
        tests = sum(row["split"] == "test" for row in of)
        assert tests >= floor(Fraction(str(share)) * len(of)) or new.count("train") == 0
        assert tests <= ceil(Fraction(str(share)) * len(of)) or new.count("test") == 0


def test_seed_changes_who_is_tested_and_how_many_stay():
    rows = [case_row(f"c{n:02d}", score=n % 2) for n in range(40)]
    splits = [split_patients(rows, SplitRule(0.2, seed), "1.0") for seed in range(5)]
    assert len({tuple(sides_of(split).items()) for split in splits}) == 5
    assert {Counter(sides_of(split).values())["test"] for split in splits} == {8}


def test_small_strata_are_merged_by_score_then_by_scanner():
    rows = [case_row(f"a{n}", scanner="A", score=1) for n in range(5)]
    rows += [case_row(f"b{n}", scanner="B", score=2) for n in range(3)]
    rows += [case_row(f"c{n}", scanner="C", score=2) for n in range(2)]
    rows += [case_row(f"d{n}", scanner="D", score=n) for n in range(5)]
    rows += [case_row("e", scanner="E", score=5)]
    split = split_patients(rows, SplitRule(0.2), "1.0")
    assert Counter(row["stratum"] for row in split.rows) == {
        "A X, S 1": 5, "other scanners, S 2": 6, "other scanners, other scores": 5,
    }  # fmt: skip
    rows += [case_row("d9", scanner="D", score="")]
    names = {row["stratum"] for row in split_patients(rows, SplitRule(0.2), "1.0").rows}
    assert "D X, other scores" in names


def test_score_of_a_reader_comes_before_that_of_the_lung_involvement():
    rows = [
        case_row("a-2", "a", "B", "", 80.0, 9), case_row("a-1", "a", "A", 1, 80.0, 0),
        case_row("b", None, "A", "", 30.0), case_row("c", None, "A"),
    ]  # fmt: skip
    split = split_patients(rows, SplitRule(0.5), "1.0")
    values = [(row["scans"], row["scanner"], row["score"], row["score_by"]) for row in split.rows]
    assert values == [(2, "A X", 1, "reader"), (1, "A X", 3, "lung_involvement"), (1, "A X", "", "")]


def test_patients_of_both_sides_of_the_previous_version_are_for_training():
    rows = [case_row(f"c{n}") for n in range(12)]
    first = split_patients(rows, SplitRule(), "1.0")
    sides = {row["patient"]: Side(row["split"], "1.0", 0) for row in first.rows}
    test, train = (next(name for name in sides if sides[name].split == side) for side in ("test", "train"))
    joined = [row | ({"patient": "patient-001"} if row["case"] in (test, train) else {}) for row in rows]
    second = split_patients(joined, SplitRule(), "2.0", first.to_dict(), sides)
    assert sides_of(second)["patient-001"] == "train"
    assert second.moved == ["patient-001"]
    assert "patient-001. Results of models" in split_text(second)
    assert second.rows[-1]["since"] == "2.0"


def test_small_data_sets_have_no_sides_unless_a_share_is_given():
    rows = [case_row(f"c{n}") for n in range(9)]
    assert split_patients(rows, SplitRule(), "1.0") is None
    assert split_patients([*rows, case_row("c9")], SplitRule(), "1.0").test_share == 0.2
    assert split_patients([*rows, case_row("c9")], SplitRule(0), "1.0") is None
    assert Counter(sides_of(split_patients(rows, SplitRule(0.5), "1.0")).values())["test"] == 5
    with pytest.raises(UsageError, match="none for the side test"):
        split_patients(rows, SplitRule(0.01), "1.0")
    with pytest.raises(UsageError, match="none for the side train"):
        split_patients(rows[:1], SplitRule(0.5), "1.0")
    with pytest.raises(UsageError, match="test_share"):
        SplitRule(1.0)


def test_published_sides_are_kept_in_the_next_version_and_described(tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant")
    cohort, scores = labelled_store(tmp_path / "s.zarr", 4)
    scan, other = sorted(cohort)[:2]
    record_patients(cohort, {"patient-001": (PatientScan(scan, 0), PatientScan(other, 9))})
    older, newer = tmp_path / "1", tmp_path / "2"
    assert publish(cohort, older, ABOUT, scores=scores, split=SplitRule(0.4, 7)).is_complete
    table, cases = rows_read(older / "split.csv"), rows_read(older / "cases.csv")
    assert Counter(row["split"] for row in table) == {"test": 1, "train": 2}
    assert {row["case"]: row["split"] for row in cases} == {
        row["case"]: {patient["patient"]: patient["split"] for patient in table}[row["patient"]] for row in cases
    }
    assert list(cases[0])[:3] == ["case", "patient", "split"]
    described = {row["column"] for row in rows_read(older / "data_dictionary.csv") if row["file"] == "split.csv"}
    assert described == set(table[0])
    loaded = mlcroissant.Dataset(str(older / "croissant.json"))
    assert not loaded.metadata.issues.errors
    assert {record["patients/patient"].decode() for record in loaded.records("patients")} == {
        *{r["patient"] for r in cases}
    }
    assert "seed 7" in (older / "README.md").read_text()
    assert read_record(older)["split"] == {"test_share": 0.4, "seed": 7}
    assert publish(cohort, newer, SECOND, previous=older, scores=scores).is_complete
    assert (newer / "split.csv").read_bytes() == (older / "split.csv").read_bytes()
    assert {case: side.split for case, side in read_sides(newer).items()} == {r["case"]: r["split"] for r in cases}
    assert check_dataset(newer) == {}
    path = newer / "split.csv"
    path.write_text(path.read_text().replace(",train,", ",test,", 1))
    assert check_dataset(newer) == {
        "split.csv": ["does not have its sum", "does not give each patient of cases.csv one side"]
    }


def test_table_of_an_earlier_call_does_not_stay(tmp_path, monkeypatch):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 2)
    monkeypatch.setattr(dataset, "check_dataset", lambda *_, **__: {"README.md": ["is wrong"]})
    assert not publish(cohort, tmp_path / "d", ABOUT, split=SplitRule(0.5)).is_complete
    assert (tmp_path / "d" / "split.csv").exists()
    monkeypatch.undo()
    assert publish(cohort, tmp_path / "d", ABOUT).is_complete
    assert not (tmp_path / "d" / "split.csv").exists()
    assert "split" not in rows_read(tmp_path / "d" / "cases.csv")[0]


def test_scans_of_a_patient_that_the_store_does_not_record_are_named(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 3)
    key = {
        name: {"patient_id": patient} for name, patient in zip(sorted(cohort), ("p7", "anonymous", "P7"), strict=True)
    }
    with pytest.raises(UsageError, match=r"case-001, case-003 are scans of one patient.*Pipeline.followup"):
        publish(cohort, tmp_path / "d", ABOUT, key=key)
    assert not (tmp_path / "d").exists()
    record_patients(cohort, {"patient-001": (PatientScan("case-001"), PatientScan("case-003"))})
    assert publish(cohort, tmp_path / "d", ABOUT, key=key).is_complete
