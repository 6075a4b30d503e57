"""``lungmix scan``, and messages of run and convert about series that they skip, reject or repair."""

import json
import shutil

import pytest

import lungmix
from lungmix.cli import main
from lungmix.errors import reveal
from lungmix.formats import SeriesFilter
from lungmix.pipeline import Pipeline
from support.series import copy, hu_of, write_series


@pytest.fixture
def folder(tmp_path):
    files = write_series(tmp_path / "Doe^John", hu_of((12, 20, 24)), SeriesNumber=3)
    copy(files[0], tmp_path / "Doe^John" / "top.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesNumber=1)
    return tmp_path / "Doe^John"


def here(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code or 0, capsys.readouterr()


def test_scan_lists_every_series_with_its_verdict(folder, capsys):
    status, said = here(capsys, "scan", folder, "--quiet")
    assert status == 0
    used = next(line for line in said.out.splitlines() if "used" in line)
    for word in ("Doe^John", "3", "12", "24x20x12", "0.75x0.5x1.25", "B40f", "1.25"):
        assert word in used
    assert "skipped: series 1 in Doe^John (1 slice): is a localizer" in said.out
    assert "1 used, 1 skipped, 0 rejected" in said.out


def test_scan_ends_with_status_1_where_something_is_rejected_and_names_slices(folder, capsys):
    (folder / "00005.dcm").unlink()
    status, said = here(capsys, "scan", folder, "--quiet")
    assert status == 1
    assert "between slices 4 and 5 of 11 (00004.dcm, 00006.dcm)" in said.out
    assert "0 used, 1 skipped, 1 rejected" in said.out
    status, said = here(capsys, "scan", folder, "--quiet", "--allow-gaps")
    assert status == 0
    assert "note: between slices 4 and 5 of 11" in said.out


def test_scan_as_json_names_no_file(folder, capsys):
    (folder / "00005.dcm").write_bytes(b"\0" * 128 + b"DICM")
    status, said = here(capsys, "scan", folder, "--quiet", "--json")
    assert status == 1
    answer = json.loads(said.out)
    assert [item["verdict"] for item in answer["found"]] == ["rejected", "skipped", "rejected"]
    assert [item["place"] for item in answer["found"]] == [f"source 1, item {i}" for i in (1, 2, 3)]
    assert answer["found"][0]["series"]["number"] == 3
    for name in ("Doe", "00005", "Series^Test"):
        assert name not in said.out


def test_filter_selects_series_and_an_invalid_filter_is_wrong_usage(folder, capsys):
    status, said = here(capsys, "scan", folder, "--quiet", "--series-filter", "kernel=B70*")
    assert status == 1
    assert "kernel=B70* does not hold" in said.out
    assert "holds no CT series that is used" in said.out
    status, said = here(capsys, "scan", folder, "--series-filter", "kernel~B70")
    assert status == 2
    assert "--series-filter" in said.err


def test_progress_counts_files(folder, capsys):
    _, said = here(capsys, "scan", folder)
    assert "scan 1/1 source 1: done" in said.err


@pytest.mark.slow
def test_convert_keeps_notes_of_gaps_without_names_and_tells_what_it_skipped(folder, client, tmp_path):
    shutil.move(folder / "00005.dcm", tmp_path)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    pipeline = Pipeline(client, cohort)
    rejected = pipeline.convert([folder])
    assert rejected.done == []
    assert "the file" in next(iter(rejected.failed.values()))
    report = pipeline.convert([folder], series=SeriesFilter(allow_gaps=True))
    assert report.done == ["case-001"]
    assert not report.failed
    assert "localizer" in next(iter(report.skipped.values()))
    assert "00004.dcm" in reveal(report.notes["case-001"][0])
    (note,) = cohort["case-001"].stages["convert"]["notes"]
    assert "between slices 4 and 5 of 11" in note
    assert "interpolated" in note
    assert "00004" not in note
    assert cohort["case-001"].geometry.shape == (12, 20, 24)
    # The missing slice is put back: the same case is converted again, without a gap.
    shutil.move(tmp_path / "00005.dcm", folder)
    again = pipeline.convert([folder])
    assert again.done == ["case-001"]
    assert "notes" not in cohort["case-001"].stages["convert"]
    assert (cohort["case-001"].ct.compute() == hu_of((12, 20, 24))).all()
