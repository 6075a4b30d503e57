"""Use of flags: fits without flagged cases, and flags in the summary, in info, in JSON and on the page."""

import io
import json
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lungmix.cli.app import main
from lungmix.cli.show import result_values, show_overview, show_result
from lungmix.errors import ModelError, UsageError
from lungmix.geometry import Geometry
from lungmix.parameters import FitParameters
from lungmix.pipeline import Pipeline, RunResult
from lungmix.quality_flags import QualityParameters
from lungmix.stages.flags import flagged_cases, quality_row
from lungmix.stages.measure import measure_cohort, quality_details
from lungmix.stages.quality import without_numbers
from lungmix.store import QUALITY_FILE, CaseWriter
from lungmix.store.choices import last_fit, remember_quality
from lungmix.webpage.overview import overview_of
from lungmix.webpage.page import write_page
from lungmix.webpage.thumbnails import thumbnail_of
from support.generators import ORIENTATIONS, reoriented
from support.quality import HU, MODEL, PHANTOM, case_with, measured_cohort

pytestmark = pytest.mark.usefixtures("stages_here")


@pytest.fixture
def cluster_here(monkeypatch):
    """A client without workers, for stages that compute in this process."""
    monkeypatch.setattr("lungmix.pipeline.runner.warn_when_no_workers", lambda *_: nullcontext(lambda: None))
    return SimpleNamespace(status="closed")


def forget_numbers(cohort, name):
    """Remove the numbers of quality control from a case, as in a store of an earlier version."""
    CaseWriter(cohort[name]).record_quality({})


def fitted_names(cohort):
    return cohort.settings["fits"]["cases"]


def test_flagged_cases_stay_out_of_the_fit_on_request_and_the_fit_records_them(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    pipeline = Pipeline(None, cohort)
    everything = pipeline.fit(fit=FitParameters(n_init=1))
    assert fitted_names(cohort) == ["plain", "table"]
    without = pipeline.fit(fit=FitParameters(n_init=1, exclude_flagged=True))
    assert fitted_names(cohort) == ["plain"]
    assert cohort.settings["fits"]["flagged"] == {"table": ["outside_lungs"]}
    assert cohort.settings["fits"]["parameters"]["exclude_flagged"] is True
    assert without.model.means != everything.model.means
    assert "1 flagged case not pooled (table: outside_lungs)" in without.notes["fit"]
    assert last_fit(cohort).exclude_flagged
    alone = pipeline.fit(fit=FitParameters(n_init=1), cases=["plain"])
    assert alone.model.means == without.model.means


def test_case_without_numbers_is_reported_and_measured_on_a_cluster(tmp_path, cluster_here, capsys):
    cohort, rows = measured_cohort(tmp_path)
    assert rows[0]["reasons"] == ""
    forget_numbers(cohort, "table")
    result = Pipeline(None, cohort).measure()
    assert [row["reasons"] for row in result.quality] == ["", "not measured"]
    assert "not measured" in cohort.read_text("qc.csv")
    summary = printed(partial(show_result, store="s.zarr"), result)
    assert "to look at: 0 of 2 cases; not measured: 1" in summary
    assert printed(show_overview, overview_of(cohort)).count("not measured") == 1
    with pytest.raises(SystemExit):
        main(["info", str(tmp_path / "s.zarr"), "table", "--json"])
    assert json.loads(capsys.readouterr().out)["quality"] == "not measured"
    assert without_numbers(cohort) == ["table"]
    result = Pipeline(cluster_here, cohort).measure()
    assert [row["flags"] for row in result.quality] == [row["flags"] for row in rows] == ["", "outside_lungs"]
    assert "not measured" not in cohort.read_text("qc.csv")
    assert without_numbers(cohort) == []


def test_numbers_of_components_are_compared_on_the_cases_that_a_fit_pools(tmp_path, cluster_here):
    cohort, _ = measured_cohort(tmp_path)
    parameters = FitParameters(n_init=1, exclude_flagged=True)
    forget_numbers(cohort, "table")
    selected = Pipeline(cluster_here, cohort).select([1, 2], parameters)
    assert selected.done == ["plain"]
    forget_numbers(cohort, "table")
    Pipeline(cluster_here, cohort).fit(fit=parameters)
    assert fitted_names(cohort) == selected.done


def test_changed_set_of_flags_fits_again(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    pipeline, parameters = Pipeline(None, cohort), FitParameters(n_init=1, exclude_flagged=True)
    key = pipeline.fit(fit=parameters) and cohort.settings["fits"]["key"]
    pipeline.fit(fit=parameters)
    assert cohort.settings["fits"]["key"] == key
    remember_quality(cohort, QualityParameters({"outside_lungs": 90}))
    pipeline.fit(fit=parameters)
    assert cohort.settings["fits"]["key"] != key
    assert fitted_names(cohort) == ["plain", "table"]


def test_label_of_one_tissue_keeps_no_case_out_of_a_fit(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    remember_quality(cohort, QualityParameters({"one_label": 1}))
    assert list(flagged_cases(cohort, list(cohort))) == ["table"]


def test_fit_of_flagged_cases_alone_says_what_to_change(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    with pytest.raises(ModelError, match=r"such as table: outside_lungs\).*`exclude_flagged=False`"):
        Pipeline(None, cohort).fit(cases=["table"], fit=FitParameters(exclude_flagged=True))


def test_records_of_fits_of_all_cases_keep_their_bytes():
    assert "exclude_flagged" not in FitParameters().to_dict()
    assert FitParameters().of_both() == FitParameters(exclude_flagged=True).of_both()


@pytest.mark.parametrize(
    ("text", "expected"), [("noise=60", {"noise": 60}), ("noise=inf", {"noise": float("inf")}), ("noise=default", {})]
)
def test_threshold_is_read_from_an_option(text, expected):
    assert QualityParameters({"noise": 10}).updated([text]).thresholds == expected


@pytest.mark.parametrize("text", ["noise", "noise=", "noise=loud", "nois=3", "nois=default"])
def test_option_that_names_no_flag_or_no_number_is_rejected(text):
    with pytest.raises(UsageError, match="nois"):
        QualityParameters().updated([text])


def printed(show, what):
    console = Console(width=300, record=True, file=io.StringIO())
    show(console, what)
    return console.export_text()


def test_run_info_and_json_show_flags(tmp_path, capsys):
    cohort, rows = measured_cohort(tmp_path)
    result = RunResult(quality=rows, rows=[{"case": "table", "lung_ml": 3000.0}])
    assert "to look at: 1 of 2 cases: outside_lungs (1)" in printed(partial(show_result, store="s.zarr"), result)
    assert result_values("s.zarr", result)["quality"][1]["flags"] == "outside_lungs"
    overview = overview_of(cohort)
    assert "outside_lungs" in printed(show_overview, overview)
    (flag,) = overview.to_dict()["cases"][1]["quality"]
    assert (flag["name"], flag["threshold"], flag["unit"]) == ("outside_lungs", 2, "%")
    assert flag["value"] > 2
    with pytest.raises(SystemExit) as ended:
        main(["info", str(tmp_path / "s.zarr"), "table", "--json"])
    assert not ended.value.code
    shown = json.loads(capsys.readouterr().out)
    assert shown["flags"]["outside_lungs"]["slice"] == flag["slice"]
    assert shown["quality"]["outside_percent"] == flag["value"]


def test_summary_gives_both_lungs_and_names_the_table(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    (text,) = overview_of(cohort).cases[1].flags
    table_ml = cohort["table"].side_counts[3].sum() * PHANTOM.geometry.voxel_ml
    assert f"{table_ml:,.0f} mL lie outside the body (table or clothes)" in text
    assert "mL in both lungs" in text


def test_tables_and_texts_give_the_volumes_of_the_region_at_full_size(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    case = CaseWriter(cohort["table"])
    # Numbers as from a reduced copy with coarser voxels: volumes 2 % larger, in two parts.
    elsewhere_ml = case.side_counts[3].sum() * PHANTOM.geometry.voxel_ml
    table_ml, between_ml = 0.9 * elsewhere_ml, 0.1 * elsewhere_ml
    recorded = {"table_ml": 1.02 * table_ml, "between_ml": 1.02 * between_ml, "gas_ml": 0.0}
    case.record_quality({**case.quality, **recorded})
    (row,) = [row for row in measure_cohort(cohort, list(cohort), MODEL, file=QUALITY_FILE) if row["case"] == "table"]
    assert row["table_ml"] == pytest.approx(table_ml, abs=0.01)
    assert row["between_ml"] == pytest.approx(between_ml, abs=0.01)
    assert f": {table_ml:,.0f} mL outside the body" in row["reasons"]
    (text,) = overview_of(cohort).cases[1].flags
    assert f": {table_ml:,.0f} mL lie outside the body (table or clothes) and {between_ml:,.0f} mL lie" in text
    assert quality_details(cohort, cohort["table"])["quality"]["table_ml"] == row["table_ml"]
    # Gas near a lung belongs to the region of the lung.
    case.record_quality({**case.quality, **recorded, "gas_ml": 40.0})
    assert quality_row(cohort["table"], {})["gas_ml"] == pytest.approx(40)


def test_page_shows_flagged_cases_at_the_slice_of_their_reason(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    page = write_page(cohort, tmp_path / "page").read_text()
    assert 'id="look-only"' in page
    assert page.count("data-look") == 1
    assert '<img src="look/table.webp" alt="Axial slice' in page
    assert "lie outside the body (table or clothes)" in page
    assert "Right + left (mL)" in page
    assert "<code>Pipeline.measure(exclude_regions=[" in page
    assert page.index('<a href="#look">To look at</a>') < page.index('<a href="#scanners">')
    files = [file.name for file in (tmp_path / "page" / "look").iterdir()]
    assert files == ["table.webp"]
    remember_quality(cohort, QualityParameters({"outside_lungs": 90}))
    thumbnail = thumbnail_of(cohort["table"], 30)
    purple = np.abs(thumbnail.astype(int) - thumbnail.mean(axis=2, keepdims=True)).max(axis=2) > 8
    assert purple[-40:].any()  # the table under the body has the colour of the region elsewhere
    reader = Image.open(tmp_path / "page" / "look" / "table.webp")
    assert reader.size[0] == thumbnail.shape[1]


def test_page_counts_the_cases_to_look_at_as_the_table_of_flags_does(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    remember_quality(cohort, QualityParameters({"outside_lungs": 90}))
    rows = measure_cohort(cohort, list(cohort), MODEL, file=QUALITY_FILE)
    page = write_page(cohort, tmp_path / "page").read_text()
    assert "lie outside the body (table or clothes)" in page  # a note, which is no flag
    assert page.count("data-look") == sum(bool(row["flags"]) for row in rows) == 0
    assert 'id="look-only"' not in page
    assert ">to look at<" not in page


def test_page_is_written_without_the_thumbnail_of_a_damaged_shard(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    for shard in (tmp_path / "s.zarr" / "table" / "labels" / "side" / "1" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(bytes(255 - byte for byte in shard.read_bytes()))
    page = write_page(cohort, tmp_path / "page").read_text()
    assert "no picture: " in page
    assert "look/table.webp" not in page
    assert not list((tmp_path / "page").rglob("*.webp"))
    assert "lie outside the body (table or clothes)" in page


@pytest.mark.parametrize("orientation", [ORIENTATIONS[20], ORIENTATIONS[40]])
def test_thumbnail_is_the_axial_slice_in_any_storage_order(tmp_path, orientation):
    geometry = Geometry(HU.shape[::-1], PHANTOM.spacing, PHANTOM.origin)
    expected = thumbnail_of(case_with(tmp_path, HU), 30)
    volume, other = reoriented(HU, geometry, orientation)
    actual = thumbnail_of(case_with(tmp_path, volume, other, name="two"), 30)
    assert actual.shape == expected.shape
    assert np.corrcoef(actual.reshape(-1), expected.reshape(-1))[0, 1] > 0.97
