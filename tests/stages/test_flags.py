"""What the summary says beside the numbers: parts of the mask that are no lung, its border, fits of few scans."""

from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

import lungmix
from lungmix.cli.show import show_overview, show_result
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.pipeline import RunResult
from lungmix.stages.fit import MIN_SCANS, doubts_of
from lungmix.stages.flags import remarks_on
from lungmix.store import CohortWriter
from lungmix.webpage.overview import overview_of
from lungmix.webpage.page import write_page

TABLE = {
    "case": "case-003", "lung_ml": 7692.0, "right_ml": 2535.0, "left_ml": 2062.0, "airway_ml": 51.0,
    "elsewhere_ml": 3044.0, "left_out_ml": 0.0, "lung_involvement": 13.1, "right_lung_involvement": 18.0,
    "left_lung_involvement": 18.7, "touches_border": 0,
}  # fmt: skip


def printed(show, what):
    console = Console(width=300, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    show(console, what)
    return console.export_text()


def test_table_and_airway_in_the_mask_are_flagged_with_a_command():
    (text,) = remarks_on(TABLE)
    for words in (
        "7,692 mL in the mask, 4,597 mL in both lungs", "3,044 mL lie outside them", "51 mL are airway",
        "LI 13.1 % with them, 18.3 % without", "`Pipeline.measure(exclude_regions=[ELSEWHERE, AIRWAY])`",
    ):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    "change",
    [
        {"lung_ml": 4597.0, "left_out_ml": 3095.0},
        {"lung_ml": 4648.0, "left_out_ml": 3044.0},
        {"lung_ml": 4648.0, "elsewhere_ml": 0.0},
        {"airway_ml": float("nan"), "elsewhere_ml": float("nan")},
    ],
)
def test_mask_of_lungs_only_has_no_flag(change):
    assert remarks_on({**TABLE, **change}) == []


def test_border_contact_is_named():
    (text,) = remarks_on({**TABLE, "elsewhere_ml": 0.0, "lung_ml": 4648.0, "touches_border": 1})
    assert "border of the scan" in text


def test_fit_of_few_scans_says_that_classes_are_named_by_rank():
    (text,) = doubts_of(PUBLISHED, 3)
    assert "3 scans" in text
    assert "rank" in text
    assert doubts_of(PUBLISHED, MIN_SCANS) == []


def test_class_far_from_its_tissue_is_named():
    shifted = TissueModel(PUBLISHED.weights, (-980.0, -940.0, -650.0, -330.0, 0.0), PUBLISHED.variances)
    (text,) = doubts_of(shifted, MIN_SCANS)
    assert "healthy lung" in text
    assert "-940 HU" in text


def test_same_note_of_many_cases_is_printed_once():
    report = RunResult()
    for number in range(8):
        report.note(f"case-{number}", ["the same"])
        report.note(f"case-{number}", ["the same"])
    assert report.notes["case-0"] == ("the same",)
    text = printed(partial(show_result, store="s.zarr"), report)
    assert text.count("the same") == 1
    assert "case-4 and 3 more: the same" in text


def test_remarks_are_in_the_overview_and_on_the_page(tmp_path, monkeypatch):
    from lungmix.geometry import Geometry
    from lungmix.privacy.acquisition import Acquisition

    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    writer = CohortWriter(cohort)
    writer.add("case-003", Geometry((8, 8, 8)), Acquisition())
    writer.write_text("measurements.csv", "\n".join([",".join(TABLE), ",".join(map(str, TABLE.values())), ""]))
    overview = overview_of(cohort)
    (flag,) = overview.cases[0].flags
    assert "3,044 mL" in flag
    assert overview.to_dict()["cases"][0]["flags"] == [flag]
    assert "note: case-003: 7,692 mL in the mask" in printed(show_overview, overview)
    assert "s.zarr: 1 case " in printed(show_overview, replace(overview, store="s.zarr"))
    page = write_page(cohort, tmp_path / "page", spell=lambda message: message.replace("`Pipeline.measure", "measure"))
    assert "3,044 mL lie outside them" in page.read_text()
    assert "`Pipeline.measure" not in page.read_text()
