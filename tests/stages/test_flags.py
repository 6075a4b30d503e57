"""Remarks in the summary of a run: parts of the mask that are no lung, lungs at the border, fits of few scans."""

from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

import lungmix
from lungmix.cli.show import show_overview, show_result
from lungmix.mixture import PUBLISHED, diagnose
from lungmix.parameters import FitParameters
from lungmix.pipeline import RunResult
from lungmix.stages.fit import MIN_SCANS, doubts_of
from lungmix.stages.flags import flagged_cases, flags_of, quality_row, raised_flags, remarks_on
from lungmix.store import CaseWriter, CohortWriter
from lungmix.store.models import label_doubts
from lungmix.tissue import TISSUES
from lungmix.webpage.overview import overview_of
from lungmix.webpage.page import write_page
from support.labelled import label_record, labelled_store

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
    for fit in ("paper", "converged"):
        (text,) = doubts_of(3, FitParameters(fit=fit))
        assert "3 scans" in text
        assert "rank" in text
        assert doubts_of(MIN_SCANS, FitParameters(fit=fit)) == []


@pytest.mark.parametrize("components", [1, 3, 6])
def test_fit_of_few_scans_without_tissues_names_no_tissues(components):
    (text,) = doubts_of(3, FitParameters(n_components=components))
    assert "components are numbered by the rank of their means" in text
    assert "air" not in text


def test_fit_of_few_scans_under_a_prior_says_nothing():
    assert doubts_of(1, FitParameters(fit="anchored")) == []
    assert doubts_of(1, FitParameters(fit="anchored", prior_strength=0.0)) == doubts_of(1, FitParameters())


def test_labels_by_a_doubtful_mixture_carry_a_flag_and_exclude_no_case(tmp_path):
    cohort, _ = labelled_store(str(tmp_path / "s.zarr"), 2)
    good, doubtful = cohort.values()
    wide = replace(PUBLISHED, variances=(*PUBLISHED.variances[:3], 475.0**2, PUBLISHED.variances[4]))
    label_record(doubtful, wide, "converged")
    row = {tissue.key: 20.0 for tissue in TISSUES}
    flags = {flag.name: flag for flag in raised_flags(doubtful, None, row)}
    assert flags["doubtful_mixture"].value == len(diagnose(wide).sentences(failures_only=True))
    assert "Consolidation: its standard deviation 475 HU" in flags["doubtful_mixture"].reason
    assert "doubtful_mixture" not in {flag.name for flag in raised_flags(good, None, row)}
    assert quality_row(doubtful, row)["mixture_faults"] == flags["doubtful_mixture"].value
    assert any("475 HU" in text for text in flags_of(doubtful, None, row))
    assert flagged_cases(cohort, [doubtful.name]) == {
        name: names for name, names in flagged_cases(cohort, [doubtful.name]).items() if "doubtful_mixture" not in names
    }


def test_recorded_checks_of_labels_are_those_of_the_fit(tmp_path):
    cohort, _ = labelled_store(str(tmp_path / "s.zarr"), 1)
    (case,) = cohort.values()
    record = {**case.stages["label"], "model_doubts": ["pooled lung involvement differs by +4.0 points"]}
    CaseWriter(case).record("label", record)
    assert label_doubts(case) == ["pooled lung involvement differs by +4.0 points"]
    (flag,) = [flag for flag in raised_flags(case, None, {"air": 20.0}) if flag.name == "doubtful_mixture"]
    assert "+4.0 points" in flag.reason


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
