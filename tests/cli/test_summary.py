"""Summary that a run prints: presets, models, version, path of the table, abbreviations, and one line of times."""

import json
from contextlib import nullcontext

import pytest
from rich.console import Console

import lungmix
import lungmix.verify
from lungmix.callbacks import Callback
from lungmix.cli.commands import maintain
from lungmix.cli.show import result_values, show_result
from lungmix.cli.show_evaluation import show_evaluation
from lungmix.cli.show_fits import to_json
from lungmix.cli.show_verify import show_verified
from lungmix.cluster import ResourceUsage
from lungmix.geometry import Geometry
from lungmix.pipeline import RunResult
from lungmix.pipeline.evaluation import EvaluationResult
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CohortWriter
from lungmix.verify import Verification
from support.command import run_here


def measured(case, mask, model):
    numbers = dict.fromkeys(("lung_ml", "air", "healthy", "ggo", "consolidation", "other", "lung_involvement"), 1.0)
    return {"case": case, **numbers, "mask": mask, "model": model}


def summary(result):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    show_result(console, result, "cohort.zarr/")
    return console.export_text().splitlines()


def test_summary_names_preset_model_version_table_and_abbreviations():
    result = RunResult(done=["case-001"], rows=[measured("case-001", "physical", "published:560987ca13fb")])
    lines = summary(result)
    expected = "preset of the masks: physical; model of the labels: published:560987ca13fb"
    assert f"{expected}; lungmix {lungmix.__version__}" in lines
    assert "table: cohort.zarr/measurements.csv" in lines
    assert any(line.startswith("GGO: ground-glass opacity") and "LI: lung involvement" in line for line in lines)
    assert lines[-1] == "1 done, 0 failed"


def test_summary_counts_cases_of_several_presets():
    rows = [measured(f"case-{n}", mask, "paper:1") for n, mask in enumerate(("paper", "physical", "physical"))]
    assert any(
        "paper (1), physical (2); model of the labels: paper:1;" in line for line in summary(RunResult(rows=rows))
    )


def test_summary_has_voxel_sizes_and_median_and_quartiles_of_measurements():
    rows = [
        {**measured(f"case-{n}", "paper", "paper:1"), "lung_ml": 1000.0 * n, "lung_involvement": value}
        for n, value in enumerate((float("nan"), 10.0, 20.0, 30.0), start=1)
    ]
    spacings = {"case-1": (0.7, 0.7, 1.0), "case-2": (0.8, 0.8, 1.0), "case-3": (0.9, 0.9, 5.0)}
    result = RunResult(done=["case-1"], rows=rows, spacings=spacings)
    for lines in (summary(result), [line.strip() for line in repr(result).splitlines()]):
        assert "voxel size in plane: 0.8 mm (0.7 to 0.9); slice spacing: 1 mm (1 to 5)" in lines
        (medians,) = [line for line in lines if line.startswith("median")]
        assert medians.startswith("median [quartiles] of 4 cases: lung 2,500 [1,750, 3,250] mL; air 1.0 [1.0, 1.0] %; ")
        assert medians.endswith("; LI 20.0 [15.0, 25.0] %")
    assert '"case-3": [\n      0.9,' in to_json(result_values("cohort.zarr", result))


def test_summary_without_measurements_names_no_table():
    assert summary(RunResult(done=["case-001"])) == ["1 done, 0 failed"]


def test_times_are_one_line_and_json_keeps_all_of_them():
    spent = {
        "mask": ResourceUsage(cases=3, tasks=9, worker_seconds=6.0, peak_bytes=100 << 20),
        "label": ResourceUsage(cases=3, tasks=2, worker_seconds=2.0, peak_bytes=300 << 20),
        "fit": ResourceUsage(seconds=1.2),
    }
    result = RunResult(done=["case-001"], spent=spent)
    times = [line for line in summary(result) if line.startswith("time:")]
    assert times == ["time: 8.0 s on workers (mask 75 %, label 25 %); peak memory of a worker: 300 MiB"]
    assert '"worker_seconds": 6.0' in to_json(result_values("cohort.zarr", result))


def test_json_names_options_in_the_reasons_of_quality_control():
    result = RunResult(
        quality=[{"case": "case-001", "reasons": "`min_voxels` and `opening` decide that", "lung_ml": 1.5}]
    )
    (row,) = result_values("s.zarr", result)["quality"]
    assert row == {"case": "case-001", "reasons": "--min-voxels and --opening decide that", "lung_ml": 1.5}


def test_a_note_on_several_references_is_printed_once_with_their_cases():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    result = EvaluationResult(notes={"case-001": ["it has no names"], "case-002": ["it has no names", "resampled"]})
    show_evaluation(console, result, "cohort.zarr")
    notes = [line for line in console.export_text().splitlines() if line.startswith("note:")]
    assert notes == ["note: case-001, case-002: it has no names", "note: case-002: resampled"]


def test_long_names_of_cases_fold_and_no_number_is_cut():
    rows = [{**measured("a-name-as-long-as-folders-have-them", "physical", "paper:1"), "lung_ml": 5432.0, "air": 42.1}]
    rows[0] |= {"right_ml": 2876.0, "left_ml": 2556.0}
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    show_result(console, RunResult(rows=rows), "cohort.zarr")
    text = console.export_text()
    assert "…" not in text
    assert all(number in text for number in ("5432", "2876", "2556", "42.1", "healthy"))
    assert "a-name-as-long-as-folders-have-them" in "".join(line[:11].strip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("unchecked", "line"),
    [
        (0, "2 of 3 cases passed"),
        (1, "2 of 3 checked cases passed; 1 other case of the store not checked: give --all to check each"),
        (37, "2 of 3 checked cases passed; 37 other cases of the store not checked: give --all to check each"),
    ],
)
def test_verify_says_that_a_random_sample_is_not_the_whole_store(unchecked, line, capsys):
    verification = Verification()
    verification.add_problem("b", "its image differs")
    show_verified(Console(width=40), "s.zarr", ["a", "b", "c"], verification, {}, unchecked)
    assert capsys.readouterr().out.splitlines() == ["b: its image differs", line]


def test_verify_prints_the_number_of_cases_that_were_not_checked(tmp_path, monkeypatch):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for number in range(4):
        CohortWriter(cohort).add(f"case-00{number}", Geometry((8, 8, 8)), Acquisition())
    monkeypatch.setattr(maintain, "cluster_session", lambda options: nullcontext((None, Callback())))
    monkeypatch.setattr(lungmix.verify, "verify_cases", lambda *args: Verification())
    assert "3 of 3 checked cases passed; 1 other case of the store" in run_here("verify", tmp_path / "s.zarr").stdout
    for words, unchecked in ((["--sample", 1], 3), (["--sample", 4], 0), (["--all"], 0)):
        done = run_here("verify", tmp_path / "s.zarr", *words, "--json")
        assert json.loads(done.stdout)["unchecked"] == unchecked


def test_many_cases_with_the_same_reason_are_one_line():
    result = EvaluationResult()
    for number in range(1, 8):
        case = f"case-{number:03d}"
        result.fail(case, f"masks has no mask for this case: name it {case}_lung.nrrd")
    result.fail("case-100", "CASE is a word of this reason")
    console = Console(record=True, width=200)
    show_evaluation(console, result, "cohort.zarr")
    lines = [line for line in console.export_text().splitlines() if line.startswith("failed")]
    assert lines == [
        "failed: 7 cases (case-001, case-002, case-003, case-004, case-005 and 2 more): masks has no mask for this "
        "case: name it CASE_lung.nrrd",
        "failed: case-100: CASE is a word of this reason",
    ]
    assert len(result.failed) == 8
