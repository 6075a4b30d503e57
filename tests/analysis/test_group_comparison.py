"""Comparison of groups of a store: who is in which group, which test is made, and what is written."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import lungmix
from lungmix.analysis import group_comparison
from lungmix.analysis.group_comparison import compare_groups, comparison_rows, scan_rows
from lungmix.analysis.group_tests import Settings
from lungmix.cli.show_fits import to_json
from lungmix.cli.show_groups import groups_values, show_groups
from lungmix.errors import StoreError, UsageError, reveal
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.fit import publish
from lungmix.stages.measure import measure_cohort, read_measurements
from lungmix.store import CaseWriter
from lungmix.store.patients import PatientScan, record_patients
from lungmix.webpage.groups_figure import groups_figure, p_text
from lungmix.webpage.studies import write_groups
from support.generators import counts_of_scans, store_of_counts

QUICK = Settings(draws=100)
OUTCOMES = ("home", "ward", "ICU")
N = 12


def involved(fraction):
    weights = (0.1 * (1 - fraction), 0.9 * (1 - fraction), 0.5 * fraction, 0.4 * fraction, 0.1 * fraction)
    return TissueModel(weights, PUBLISHED.means, PUBLISHED.variances)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Return a measured store of 12 scans; the lung involvement grows with the number of the case."""
    url = tmp_path_factory.mktemp("groups") / "s.zarr"
    names = [f"case-{n:03d}" for n in range(1, N + 1)]
    counts = {
        name: counts_of_scans(1, 20_000 + 500 * n, spread=1.0, seed=n, model=involved(0.05 + 0.06 * n))["case-001"]
        for n, name in enumerate(names)
    }
    acquisitions = {
        name: Acquisition(kernel=("B31f", "B70f")[n % 2], kvp=120.0, sex="MF"[n % 2], age=50 + n)
        for n, name in enumerate(names[:-1])
    }
    cohort = store_of_counts(url, counts, acquisitions)
    for case in cohort.values():
        CaseWriter(case).record("label", {"key": "label"})
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, names, PUBLISHED)
    return lungmix.open_cohort(url)


@pytest.fixture
def table(tmp_path):
    def write(*lines, name="patients.csv"):
        file = tmp_path / name
        file.write_text("\n".join(lines) + "\n")
        return file

    return write


def outcomes(names=range(1, N + 1), patient=lambda n: f"p{n}", outcome=lambda n: OUTCOMES[n % 3]):
    return ["case,patient,outcome", *(f"case-{n:03d},{patient(n)},{outcome(n)}" for n in names)]


def involvement_of(cohort, names):
    rows = {row["case"]: row["lung_involvement"] for row in read_measurements(cohort)}
    return [rows[f"case-{n:03d}"] for n in names]


def test_groups_of_a_column_are_tested_by_ranks_if_each_patient_has_one_scan(measured, table):
    result = compare_groups(
        measured, "Outcome", table=table(*outcomes()), groups=("home", "icu", "WARD"), settings=QUICK
    )
    assert result.groups == result.compared == ("home", "ICU", "ward")
    samples = [involvement_of(measured, range(start, N + 1, 3)) for start in (3, 2, 1)]
    first = result.comparisons[0]
    assert first.measurement == "lung_involvement"
    assert first.statistic == pytest.approx(stats.kruskal(*samples).statistic)
    assert first.test == "Kruskal-Wallis, permutations"
    expected = stats.mannwhitneyu(samples[1], samples[0], method="exact").pvalue
    assert first.pairs[0].p == pytest.approx(expected)
    assert first.pairs[0].hodges_lehmann.value == pytest.approx(
        np.median([y - x for x in samples[0] for y in samples[1]]), abs=1e-9
    )
    assert result.rule == (
        "one scan per patient; Kruskal-Wallis test of all groups, Mann-Whitney U tests of pairs; p values corrected "
        "for the pairs of groups and for the 6 measurements by Holm's method"
    )
    assert result.patients_by == "scans of one patient by the column patient"
    p_values = sorted(comparison.p for comparison in result.comparisons)
    assert min(comparison.p_holm for comparison in result.comparisons) == pytest.approx(min(6 * p_values[0], 1))


def test_cases_outside_the_table_and_without_a_group_are_named(measured, table):
    lines = outcomes(range(1, 10), outcome=lambda n: "" if n == 4 else OUTCOMES[n % 2])
    result = compare_groups(measured, "outcome", table=table(*lines, "case-999,p,home"), settings=QUICK)
    assert [scan.case for scan in result.scans] == [f"case-{n:03d}" for n in range(1, 10)]
    assert {scan.case: scan.group for scan in result.scans}["case-004"] is None
    notes = list(map(reveal, result.notes))
    assert "in no group, because outcome is unknown: 1 scan (case-004)" in notes
    assert "measured, but not in the table, left out: case-010, case-011, case-012" in notes
    assert "in the table, but not measured: line 11 (case-999)" in notes
    cells = next(row for row in result.table if row.key == "scans").cells
    assert [cell.n for cell in cells] == [9, 3, 5]


def test_numbers_are_groups_only_if_they_are_few_or_cut(measured, table):
    file = table("case,days", *(f"case-{n:03d},{n}" for n in range(1, N + 1)))
    with pytest.raises(UsageError, match=r"days has 12 different numbers: .* `cuts=\[6.5\]`"):
        compare_groups(measured, "days", table=file)
    result = compare_groups(measured, "days", table=file, cuts=(9, 5), settings=QUICK)
    assert result.groups == ("< 5", "5 to < 9", ">= 9")
    assert [sum(scan.group == name for scan in result.scans) for name in result.groups] == [4, 4, 4]
    few = table("case,ward", *(f"case-{n:03d},{n % 2 + 9}" for n in range(1, N + 1)), name="few.csv")
    assert compare_groups(measured, "ward", table=few, settings=QUICK).groups == ("9", "10")


def test_numbers_of_many_digits_stay_different_groups(measured, table):
    site = table("case,site", *(f"case-{n:03d},{n % 2 + 1000000}" for n in range(1, N + 1)))
    result = compare_groups(measured, "site", table=site, settings=QUICK)
    assert result.groups == result.compared == ("1000000", "1000001")
    assert [sum(scan.group == name for scan in result.scans) for name in result.groups] == [6, 6]
    cut = compare_groups(measured, "site", table=site, cuts=(1000000.5,), settings=QUICK)
    assert cut.groups == ("< 1000000.5", ">= 1000000.5")


def test_age_and_sex_of_the_store_are_groups_and_rows(measured):
    result = compare_groups(measured, "age", cuts=(56,), settings=QUICK)
    assert result.groups == ("< 56", ">= 56")
    sexes = [row for row in result.table if row.key == "sex"]
    assert [(row.level, row.kind) for row in sexes] == [("F", "n (%)"), ("M", "n (%)"), ("", "n missing")]
    assert [cell.n for cell in sexes[0].cells] == [5, 3, 2]
    assert [cell.n for cell in sexes[2].cells] == [1, 0, 0]
    by_sex = compare_groups(measured, "sex", settings=QUICK)
    assert by_sex.groups == ("F", "M")
    assert "sex" not in {row.key for row in by_sex.table}


def test_attributes_of_the_acquisition_are_groups(measured):
    result = compare_groups(measured, "kernel", settings=QUICK)
    assert result.groups == ("B31f", "B70f")
    assert result.patients_by.startswith("each scan counts as a patient")
    assert "in no group, because kernel is unknown: 1 scan (case-012)" in result.notes
    (comparison,) = [item for item in result.comparisons if item.measurement == "lung_ml"]
    assert comparison.test == "Mann-Whitney U, exact"


def test_table_of_the_whole_cohort_has_no_comparison(measured):
    result = compare_groups(measured)
    assert result.groups == result.compared == result.comparisons == ()
    assert all(len(row.cells) == 1 for row in result.table)
    (row,) = [row for row in result.table if row.key == "lung_involvement"]
    assert row.cells[0].value == pytest.approx(np.median(involvement_of(measured, range(1, N + 1))))


def test_small_groups_are_described_but_not_compared(measured, table):
    lines = outcomes(outcome=lambda n: "ICU" if n < 3 else OUTCOMES[n % 2])
    result = compare_groups(measured, "outcome", table=table(*lines), settings=QUICK)
    assert result.groups == ("home", "ICU", "ward")
    assert result.compared == ("home", "ward")
    assert "not compared, because of fewer than 3 patients: ICU (2 patients)" in result.notes
    two = compare_groups(measured, "outcome", table=table(*outcomes(range(1, 6))), settings=QUICK)
    assert two.comparisons == ()
    assert two.notes[-1] == "nothing is compared, because fewer than two groups have 3 patients or more"
    assert len(two.table[0].cells) == 4


@pytest.mark.parametrize("source", ["column", "store", "file", "key"])
def test_scans_of_one_patient_are_known_from_every_source(measured, table, source, monkeypatch):
    pytest.importorskip("statsmodels")
    outcome = lambda n: OUTCOMES[n % 6 % 2]  # noqa: E731
    lines = outcomes(patient=lambda n: f"Miller^{n % 6}", outcome=outcome)
    options = {}
    if source != "column":
        lines = [",".join(line.split(",")[::2]) for line in lines]
    pairs = {f"patient-{n:03d}": (f"case-{n:03d}", f"case-{n + 6:03d}") for n in range(1, 7)}
    if source == "store":
        monkeypatch.setattr(
            "lungmix.analysis.group_comparison.patients_of",
            lambda cohort, need_first: {name: tuple(map(PatientScan, cases)) for name, cases in pairs.items()},
        )
    elif source == "file":
        text = ("case,patient", *(f"{case},{patient}" for patient, cases in pairs.items() for case in cases))
        options = {"patients": table(*text, name="who.csv")}
    elif source == "key":
        key = {case: {"path": f"/x/{case}", "patient_id": p} for p, cases in pairs.items() for case in cases}
        options = {"key": key}
    result = compare_groups(measured, "outcome", table=table(*lines), settings=QUICK, **options)
    assert result.n_patients == 6
    assert [scan.case for scan in result.scans if not scan.is_first] == [f"case-{n:03d}" for n in range(7, 13)]
    assert result.rule.startswith("6 patients have several scans: linear mixed model of all scans")
    comparison = result.comparisons[0]
    assert (comparison.test, comparison.scans) == ("linear mixed model, F test", 12)
    assert comparison.pairs[0].mean_difference is not None
    assert "Miller" not in to_json(groups_values("s", result, []))


def test_first_scans_alone_are_tested_on_request_and_without_statsmodels(measured, table, monkeypatch):
    file = table(*outcomes(patient=lambda n: f"p{n % 6}", outcome=lambda n: OUTCOMES[n % 6 % 2]))
    first = compare_groups(measured, "outcome", table=file, repeats="first", settings=QUICK)
    assert first.rule.startswith("6 patients have several scans: only the first scan of each patient is tested; Mann")
    assert first.comparisons[0].scans == 6
    samples = [involvement_of(measured, names) for names in ((2, 4, 6), (1, 3, 5))]
    assert first.comparisons[0].p == stats.mannwhitneyu(*samples, method="exact").pvalue
    assert not any("statsmodels" in note for note in first.notes)
    monkeypatch.setattr(group_comparison, "is_available", lambda: False)
    without = compare_groups(measured, "outcome", table=file, settings=QUICK)
    assert str(without.comparisons) == str(first.comparisons)
    assert "a mixed model of all scans needs statsmodels: install lungmix[statistics]" in without.notes


def test_order_of_scans_is_that_of_days(measured, monkeypatch):
    scans = (PatientScan("case-007", 0), PatientScan("case-002", 14))
    monkeypatch.setattr(group_comparison, "patients_of", lambda cohort, need_first: {"patient-001": scans})
    result = compare_groups(measured, settings=QUICK)
    assert {scan.case: scan.is_first for scan in result.scans if scan.case in ("case-007", "case-002")} == {
        "case-007": True, "case-002": False,
    }  # fmt: skip


def test_columns_are_described_on_request_and_scores_always(measured, table):
    rows = (f"case-{n:03d},p{n % 6},{n % 6},{'yes' if n % 2 else 'no'},{20 + n},secret{n}" for n in range(1, N + 1))
    file = table("case,patient,S,smoker,crp,note", *rows)
    result = compare_groups(measured, table=file, describe=("Smoker", "crp"), settings=QUICK)
    titles = {row.title: (row.of, row.kind) for row in result.table}
    assert titles["Score S"] == ("scans", "n (%)")
    assert titles["Smoker"] == ("patients", "n (%)")
    assert titles["crp"] == ("patients", "median [quartiles]")
    assert "note" not in titles
    with pytest.raises(UsageError, match="note has 12 different texts: give a column with 10 or fewer"):
        compare_groups(measured, table=file, describe=("note",))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"by": "colour"}, "scans cannot be grouped by colour: choose from scanner, .*, or a column of a `table`"),
        ({"by": "case"}, "cannot be grouped by case"),
        ({"by": "kernel", "cuts": (3,)}, "`cuts` need a column of numbers"),
        ({"by": "kernel", "groups": ("B99",)}, "there is no group B99: choose from B31f, B70f"),
        ({"groups": ("B99",)}, "`groups` need a column: group `by` one"),
        ({"by": "scanner"}, "scanner is unknown for all 12 scans"),
        ({"describe": ("colour",)}, "there is no column colour to describe"),
        ({"measurements": ("case",)}, "'case' is no measurement"),
        ({"summary": "mode"}, "choose from auto, median, mean"),
        ({"repeats": "all"}, "`repeats='all'` is not possible: choose from mixed, first"),
        ({"settings": Settings(draws=5)}, "give 100 or more draws"),
    ],
)
def test_impossible_comparisons_are_rejected_with_a_remedy(measured, options, match):
    with pytest.raises(UsageError, match=match):
        compare_groups(measured, **options)


def test_columns_that_name_each_scan_are_no_groups(measured, table):
    few = table("case,name", *(f"case-{n:03d},Miller{n}" for n in range(1, 8)))
    with pytest.raises(UsageError, match="name has another text for each scan"):
        compare_groups(measured, "name", table=few)
    texts = table("case,x", *(f"case-{n:03d},{'ab'[n % 2]}" for n in range(1, 8)), name="texts.csv")
    with pytest.raises(UsageError, match="x holds texts, which `cuts` cannot divide"):
        compare_groups(measured, "x", table=texts, cuts=(1,))


def test_measurements_by_several_models_are_rejected(measured, monkeypatch):
    def different(cohort):
        raise StoreError("rows of 2 different models")

    monkeypatch.setattr(group_comparison, "comparable_measurements", different)
    with pytest.raises(StoreError, match="2 different models"):
        compare_groups(measured)
    monkeypatch.setattr(group_comparison, "comparable_measurements", lambda cohort: [])
    with pytest.raises(UsageError, match=r"no measured case: run `Pipeline.measure\(\)` first"):
        compare_groups(measured)


class Cells(HTMLParser):
    """Rows of the cells of a table in HTML."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("th", "td")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_table_is_the_same_in_csv_markdown_and_html(measured, table, tmp_path):
    odd = ["a|b*", "<i>_x_"]
    lines = [
        f"{line},{odd[n % 3 % 2] if n else 'x<y'}" for n, line in enumerate(outcomes(outcome=lambda n: odd[n % 2]))
    ]
    result = compare_groups(measured, "outcome", table=table(*lines), describe=("x<y",), settings=QUICK)
    files = write_groups(result, tmp_path / "out")
    assert [file.name for file in files] == [
        "characteristics.csv", "characteristics.md", "characteristics.html", "groups.csv", "groups-scans.csv",
        "groups.png", "groups.svg",
    ]  # fmt: skip
    header, *rows = list(csv.reader(files[0].read_text().splitlines()))
    assert header[4:] == ["all", *sorted(odd, key=str.lower)]
    html = Cells(files[2].read_text()).rows
    assert html[0] == ["", "All", *header[5:]]
    markdown = [
        [re.sub(r"\\(.)", r"\1", cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in files[1].read_text().splitlines()
        if line.startswith("|")
    ]
    plain = [[cell.strip() for cell in row] for row in markdown if row[1].strip() != "---"]
    assert plain == [[cell.strip() for cell in row] for row in html[:-1]]
    numbers = [row[4:] for row in rows]
    assert [row[1:] for row in html[1:-1] if any(row[1:])] == numbers
    assert [row[0] for row in rows].count("Sex") == 3
    assert html[-1][0].startswith("Values are numbers (percentages")


def test_comparisons_and_scans_are_written_and_printed(measured, table, tmp_path):
    pytest.importorskip("statsmodels")
    file = table(*outcomes(patient=lambda n: f"p{n % 9}", outcome=lambda n: OUTCOMES[n % 9 % 3]))
    result = compare_groups(measured, "outcome", table=file, settings=QUICK)
    write_groups(result, tmp_path)
    lines = list(csv.DictReader((tmp_path / "groups.csv").read_text().splitlines()))
    assert [line["first"] for line in lines[:4]] == ["all groups", "home", "home", "ICU"]
    assert float(lines[0]["p"]) == result.comparisons[0].p
    assert float(lines[0]["epsilon_squared"]) == result.comparisons[0].epsilon_squared.value
    pair = result.comparisons[0].pairs[0]
    assert float(lines[1]["hodges_lehmann_low"]) == pair.hodges_lehmann.low
    assert float(lines[1]["mean_difference"]) == pair.mean_difference[0]
    assert (lines[1]["epsilon_squared"], lines[0]["rank_biserial"]) == ("", "")
    assert len(lines) == len(comparison_rows(result)) == 24
    scans = list(csv.DictReader((tmp_path / "groups-scans.csv").read_text().splitlines()))
    assert len(scans) == len(scan_rows(result)) == N
    assert sorted({line["patient"] for line in scans}) == [f"patient-{n:03d}" for n in range(1, 10)]
    console = Console(record=True, width=80)
    show_groups(console, result, [])
    text = console.export_text()
    assert "tests: 3 patients have several scans: linear mixed model" in text
    assert "home | ICU" in text
    assert f"{pair.mean_difference[0]:.1f} ({pair.mean_difference[1]:.1f} to" in text
    assert "12 scans of 9 patients" in text
    answer = json.loads(to_json(groups_values("s", result, [])))
    assert answer["comparisons"][0]["pairs"][0]["p_holm"] == pytest.approx(pair.p_holm)
    assert answer["characteristics"][0]["cells"][0]["n"] == 9


def test_two_groups_have_a_row_for_each_measurement(measured, table):
    result = compare_groups(
        measured, "outcome", table=table(*outcomes(outcome=lambda n: OUTCOMES[n % 2])), settings=QUICK,
        measurements=("mean_hu", "lung_involvement"),
    )  # fmt: skip
    rows = comparison_rows(result)
    assert [row["measurement"] for row in rows] == ["mean_hu", "lung_involvement"]
    assert (rows[0]["p"], rows[0]["p_holm_measurements"]) == (result.comparisons[0].p, result.comparisons[0].p_holm)
    assert rows[0]["p_holm_pairs"] == ""


def test_rows_of_pairs_have_statistic_and_degrees(measured, table):
    pytest.importorskip("statsmodels")
    file = table(*outcomes(patient=lambda n: f"p{n % 9}", outcome=lambda n: OUTCOMES[n % 9 % 3]))
    for repeats in ("mixed", "first"):
        result = compare_groups(measured, "outcome", table=file, repeats=repeats, settings=QUICK)
        pairs = [row for row in comparison_rows(result) if row["second"] and row["p"] != ""]
        assert pairs
        for row in pairs:
            if repeats == "first":
                assert (row["statistic"] >= 0, row["degrees"]) == (True, "")
            else:
                assert row["p"] == pytest.approx(2 * stats.t.sf(abs(row["statistic"]), row["degrees"]))


def test_figure_joins_scans_of_a_patient_and_holds_many_groups(measured, table):
    pytest.importorskip("statsmodels")
    file = table(*outcomes(patient=lambda n: f"p{n % 9}", outcome=lambda n: OUTCOMES[n % 9 % 3]))
    result = compare_groups(measured, "outcome", table=file, settings=QUICK)
    (axes,) = groups_figure(result).axes
    joined = [line for line in axes.lines if line.get_color() == "#8a8a8a" and len(line.get_xdata())]
    assert len(joined) == 3
    assert all(line.get_xdata()[0] < line.get_xdata()[1] for line in joined)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert [label.split("\n")[0] for label in labels] == ["home", "ICU", "ward"]
    assert axes.get_ylabel() == "Lung involvement (%)"
    assert axes.get_title("left").startswith("linear mixed model, F test: p ")
    assert axes.get_title("left").split("\n")[0].endswith(p_text(result.comparisons[0].p_holm))
    corrected = f"this p for {len(result.comparisons)} measurements, p of brackets for 3 pairs"
    assert axes.get_title("left").endswith(corrected)
    of_first = compare_groups(measured, "outcome", table=file, repeats="first", settings=QUICK)
    assert groups_figure(of_first).axes[0].get_title("left").startswith("Kruskal-Wallis, permutations, first scans: p ")
    of_cohort = groups_figure(compare_groups(measured), "lung_ml")
    assert of_cohort.axes[0].get_ylabel() == "Lung (mL)"
    numbers = table("case,x", *(f"case-{n:03d},{n % 6}" for n in range(1, N + 1)), name="many.csv")
    assert groups_figure(compare_groups(measured, "x", table=numbers, settings=QUICK)).axes


def test_names_of_groups_are_no_formulae_in_the_figure(measured, table):
    names = ("$a^$", "[b]")
    result = compare_groups(measured, "outcome", table=table(*outcomes(outcome=lambda n: names[n % 2])), settings=QUICK)
    figure = groups_figure(result)
    figure.canvas.draw()
    assert figure.axes[0].get_xticklabels()[0].get_text().startswith(r"\$a^\$")


@pytest.mark.parametrize("groups", [2, 3])
def test_measurements_that_no_scan_has_are_not_tested(measured, table, tmp_path, groups):
    result = compare_groups(
        measured, "outcome", table=table(*outcomes(outcome=lambda n: OUTCOMES[n % groups])), settings=QUICK,
        measurements=("right_ml",),
    )  # fmt: skip
    (comparison,) = result.comparisons
    assert np.isnan(comparison.p)
    assert any(note.startswith("right_ml: no test") for note in result.notes)
    rows = comparison_rows(result)
    assert len(rows) == {2: 1, 3: 4}[groups]
    assert {row["p"] for row in rows} == {row["epsilon_squared"] for row in rows} == {""}
    assert (tmp_path / "out" / "groups.png") in write_groups(result, tmp_path / "out")


def test_recorded_patients_are_read_from_the_store(measured, tmp_path):
    import shutil

    shutil.copytree(measured.url, tmp_path / "s.zarr")
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    record_patients(cohort, {"patient-001": (PatientScan("case-001", 0), PatientScan("case-003", 9))})
    result = compare_groups(lungmix.open_cohort(tmp_path / "s.zarr"))
    assert result.n_patients == N - 1
    assert result.patients_by == "scans of one patient by the patients that the store records"
