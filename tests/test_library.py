"""The package as a library: one call, one table, plain errors, and types for those who import it."""

import html
import inspect
import logging
import operator
import os
import subprocess
import sys

import pandas as pd
import pytest

import lungmix
from lungmix.cli.spelling import COMMANDS
from lungmix.errors import CaseNotFoundError, StoreError, UsageError
from lungmix.pipeline import Pipeline, RunResult

TOO_LARGE = lungmix.MaskParameters(opening=1, min_voxels=10**8, radii=(4, 3))
MASK = lungmix.MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))

OUTSIDE = """
from pathlib import Path

import lungmix

result = lungmix.run("s.zarr", [Path("scans")], mask=lungmix.MaskParameters("physical"), model="published")
failed: dict[str, str] = result.failed
cohort = lungmix.open_cohort("s.zarr")
files: list[Path] = lungmix.export_case(cohort["case-001"], "tissue.nrrd")
lungmix.run("s.zarr", mask="physical")  # wrong: a preset's name is no MaskParameters
"""
# The types of what lungmix is built on matter to nobody outside, and take most of the time.
OUTSIDE_SETTINGS = """
[mypy]
ignore_missing_imports = True
follow_imports = silent

[mypy-dask.*,distributed.*,zarr.*,pydicom.*,highdicom.*,matplotlib.*,pandas.*,scipy.*,sklearn.*,nibabel.*,PIL.*,xarray.*]
follow_imports = skip

[mypy-typer.*,click.*,rich.*,tornado.*,jinja2.*,pyarrow.*,obstore.*,psutil.*,numba.*]
follow_imports = skip
"""


@pytest.fixture(scope="module")
def labelled(client, scan, tmp_path_factory):
    store = tmp_path_factory.mktemp("library") / "s.zarr"
    return store, lungmix.run(store, scan, mask=MASK, model="published", client=client)


def test_one_call_brings_a_file_to_measurements(labelled):
    store, result = labelled
    assert isinstance(result, RunResult)
    assert result.done == ["case-001"]
    assert result.page is None
    table = lungmix.open_cohort(store).measurements()
    assert isinstance(table, pd.DataFrame)
    assert list(table["case"]) == ["case-001"]
    assert table["lung_ml"][0] == pytest.approx(result.rows[0]["lung_ml"])


PARAMETER_NAMES = {
    "MaskParameters": "mask",
    "FitParameters": "fit",
    "IntakeParameters": "intake",
    "SeriesFilter": "series",
    "TissueModel": "model",
    "Callback |": "callback",
    "Callable[[str], None]": "warn",
    "Progress |": "progress",
}
"""Name of a parameter by a part of its type."""
METHODS = [lungmix.Pipeline.run, *(operator.attrgetter(name.removeprefix("lungmix."))(lungmix) for name in COMMANDS)]
PUBLIC = {
    *METHODS,
    lungmix.Pipeline.select,
    lungmix.Pipeline.relabel,
    lungmix.find_scans,
    lungmix.connect,
    lungmix.Cohort.locked,
}


@pytest.mark.parametrize("function", sorted(PUBLIC, key=lambda function: function.__qualname__))
def test_parameters_of_one_type_have_one_name(function):
    named = {
        (parameter.name, name)
        for parameter in inspect.signature(function).parameters.values()
        for kind, name in PARAMETER_NAMES.items()
        if kind in str(parameter.annotation)
    }
    assert {name for name, expected in named if name != expected} == set()


def test_report_of_one_call_is_written_at_its_end(labelled, client, tmp_path):
    store, _ = labelled
    missing = tmp_path / "missing.nrrd"
    result = lungmix.run(store, missing, mask=MASK, model="published", client=client, report=str(tmp_path / "page"))
    assert result.page == tmp_path / "page" / "index.html"
    page = result.page.read_text()
    assert result.failed["source 1"] in html.unescape(page)
    assert "case-001" in page
    assert (tmp_path / "page" / "data" / "case-001.js").exists()
    assert "missing.nrrd" not in page


def test_key_table_in_the_folder_of_the_report_is_rejected(client, scan, tmp_path):
    intake = lungmix.IntakeParameters(key=tmp_path / "page" / "key.csv")
    with pytest.raises(UsageError, match="key"):
        lungmix.run(tmp_path / "s.zarr", scan, intake=intake, client=client, report=tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_second_call_without_sources_keeps_everything(labelled, client):
    store, _ = labelled
    again = lungmix.run(store, mask=MASK, model="published", client=client)
    assert again.done == ["case-001"]
    assert not {"convert", "mask", "label"} & again.spent.keys()


def test_result_is_a_few_lines(labelled):
    _, result = labelled
    text = repr(result)
    assert text.splitlines()[0] == "<RunResult: 1 done, 0 failed>"
    assert "published" in text
    result = RunResult(failed={f"case-{i}": "no lung found" for i in range(100)})
    assert len(repr(result).splitlines()) < 8


def test_labels_are_exported_by_one_function(labelled, tmp_path):
    store, _ = labelled
    (file, *_) = lungmix.export_case(lungmix.open_cohort(store)["case-001"], str(tmp_path / "tissue.nrrd"), "tissue")
    assert file.exists()


def test_case_that_is_missing_is_a_key_error_with_a_remedy(labelled):
    cohort = lungmix.open_cohort(labelled[0])
    with pytest.raises(KeyError, match=r"Cohort\.keys") as caught:
        cohort["case-9"]
    assert isinstance(caught.value, CaseNotFoundError)
    assert isinstance(caught.value, lungmix.LungmixError)
    assert str(caught.value).startswith(str(labelled[0]))
    assert (caught.value.path, caught.value.case) == (str(labelled[0]), "case-9")
    assert "case-9" not in cohort
    assert cohort.get("case-9") is None


def test_store_that_is_missing_is_a_missing_file_with_a_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no store at") as caught:
        lungmix.open_cohort(tmp_path / "s.zarr")
    assert isinstance(caught.value, StoreError)
    assert (caught.value.path, caught.value.case) == (str(tmp_path / "s.zarr"), None)
    assert caught.value.remedy in str(caught.value)


def test_errors_of_a_run_name_source_case_and_remedy(client, scan, tmp_path):
    (tmp_path / "cut.nrrd").write_bytes(b"NRRD0004\n")
    store = tmp_path / "s.zarr"
    result = lungmix.run(store, [scan, tmp_path / "cut.nrrd"], mask=TOO_LARGE, model="published", client=client)
    of_mask, of_source = (result.errors[name] for name in ("case-001", "source 2"))
    assert (of_mask.case, of_mask.path) == ("case-001", None)
    assert of_mask.remedy.startswith('try `MaskParameters(preset="physical")`')
    assert (of_source.case, of_source.path) == (None, str(tmp_path / "cut.nrrd"))
    assert of_source.remedy == "get the file again"


def test_error_of_a_scan_names_its_file(scan, tmp_path):
    cut = tmp_path / "cut.nrrd"
    cut.write_bytes(scan.read_bytes())
    (item,) = lungmix.find_scans(cut)
    cut.write_bytes(scan.read_bytes()[:-5000])
    with pytest.raises(lungmix.LungmixError, match="get the file again") as caught:
        list(item.slabs(64))
    assert caught.value.path == str(cut)


def test_wrong_parameter_is_a_value_error():
    with pytest.raises(ValueError, match="is not possible") as caught:
        lungmix.connect(workers=0)
    assert isinstance(caught.value, UsageError)


def test_measurements_of_an_empty_store_say_what_to_do(tmp_path):
    with pytest.raises(StoreError, match="no measurements: run"):
        lungmix.open_cohort(tmp_path / "s.zarr", "a").measurements()


def test_warnings_reach_the_log_of_python_by_default(client, tmp_path, caplog):
    (tmp_path / "Rossi.nrrd").write_bytes(b"NRRD0004\n")
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"))
    with caplog.at_level(logging.INFO, "lungmix"):
        pipeline.callback.on_warning("thick slices: use the preset physical")
        pipeline.callback.on_case_end("case-001", "no lung found")
    assert [record.getMessage() for record in caplog.records] == [
        "thick slices: use the preset physical",
        "case-001 failed: no lung found",
    ]
    assert {record.name for record in caplog.records} == {"lungmix"}


@pytest.mark.slow
def test_type_checker_sees_the_public_types_from_outside(tmp_path):
    (tmp_path / "outside.py").write_text(OUTSIDE)
    (tmp_path / "mypy.ini").write_text(OUTSIDE_SETTINGS)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", os.devnull, "outside.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert 'outside.py:10: error: Argument "mask" to "run"' in errors[0]
