"""``lungmix validate groups``: output, files, options in messages, and exit statuses."""

import io
import json

import pytest
from rich.console import Console

import lungmix
from lungmix.analysis.group_comparison import compare_groups
from lungmix.cli.show_groups import show_groups
from lungmix.mixture import PUBLISHED
from lungmix.stages.fit import publish
from lungmix.stages.measure import measure_cohort
from lungmix.store import CaseWriter
from support.command import run_here
from support.generators import counts_of_scans, store_of_counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("groups")
    cohort = store_of_counts(place / "s.zarr", counts_of_scans(8, 20_000))
    for case in cohort.values():
        CaseWriter(case).record("label", {"key": "label"})
    publish(cohort, PUBLISHED, {"given": True})
    measure_cohort(cohort, list(cohort), PUBLISHED)
    rows = (f"case-00{n},p{n},{'ab'[n % 2]},{20 + n},Miller{n}" for n in range(1, 9))
    (place / "t.csv").write_text("case,patient,arm,age,name\n" + "\n".join(rows) + "\n")
    return place


def groups(folder, *words):
    table = ("--table", folder / "t.csv", "--out", folder / "out", "--bootstrap-draws", "100")
    return run_here("validate", "groups", folder / "s.zarr", *table, *words)


def test_groups_print_tables_or_one_json_object_and_write_files(folder):
    done = groups(folder, "--by", "arm")
    assert done.returncode == 0, done.stderr
    assert "Mann-Whitney U" in done.stdout
    assert "Lung involvement (%)" in done.stdout
    answer = json.loads(groups(folder, "--by", "arm", "--groups", "b,a", "--json").stdout)
    assert answer["groups"] == answer["compared"] == ["b", "a"]
    assert answer["comparisons"][0]["test"] == "Mann-Whitney U, exact"
    assert [row["case"] for row in answer["scans"]] == list(lungmix.open_cohort(folder / "s.zarr"))
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "characteristics.csv", "characteristics.html", "characteristics.md", "groups-scans.csv", "groups.csv",
        "groups.png", "groups.svg",
    ]  # fmt: skip
    assert not any(b"Miller" in path.read_bytes() for path in (folder / "out").iterdir())


def test_numbers_are_cut_and_described_on_request(folder):
    answer = json.loads(
        groups(folder, "--by", "age", "--cut", "25", "--describe", "arm", "--summary", "mean", "--json").stdout
    )
    assert answer["groups"] == ["< 25", ">= 25"]
    kinds = {row["title"]: row["kind"] for row in answer["characteristics"]}
    assert (kinds["Age (years)"], kinds["arm"]) == ("mean ± SD", "n (%)")


def test_narrow_terminals_show_the_titles_of_rows_and_whole_numbers(folder):
    result = compare_groups(lungmix.open_cohort(folder / "s.zarr"), "arm", table=folder / "t.csv")
    stream = io.StringIO()
    show_groups(Console(file=stream, width=80), result, [])
    table, _ = stream.getvalue().split("tests: ")
    for title in ("Patients", "Age (years)", "Mean density", "Ground-glass"):
        assert title in table
    (density,) = [cell for row in result.table if row.key == "mean_hu" for cell in row.cells[:1]]
    for number in (density.value, density.low, density.high):
        assert f"{number:,.1f}".replace("-", "\u2212") in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--by", "age"), "give the numbers at which they are cut into groups, such as --cut 24.5"),
        (("--by", "age", "--cut", "x"), "--cut x is not understood: write one number or several, such as 50,70"),
        (("--by", "colour"), "scans cannot be grouped by colour: choose from arm, age, name, scanner"),
        (("--by", "name"), "name has another text for each scan: give a column of groups"),
        (("--by", "arm", "--repeats", "all"), "--repeats all is not possible: choose from mixed, first"),
        (("--by", "arm", "--patients", "none.csv"), "none.csv cannot be read"),
        (("--by", "arm", "--seed", "-1"), "Invalid value for '--seed'"),
    ],
)
def test_wrong_usage_has_status_2_and_names_options(folder, words, message):
    done = groups(folder, *words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
