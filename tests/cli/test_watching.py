"""Output of a run besides its results: log, dask's report, dashboard, progress by bytes, summary of times."""

import io
import json
import re

import pytest
from rich.console import Console

import lungmix.cluster.dashboard
from lungmix.callbacks.callback import Callback
from lungmix.callbacks.json_log import CallbackList, with_log_file
from lungmix.callbacks.progress_bars import Amount
from lungmix.cli.progress import Lines, callback_for
from lungmix.cluster import performance_page
from lungmix.errors import UsageError, mark_path
from lungmix.phantom import Phantom, write_phantom
from support.command import SMALL, run, run_here

SECRET = "doe-jane"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run with log, progress and dask's report; one of its sources is not a scan."""
    folder = tmp_path_factory.mktemp("run")
    for index in range(2):
        write_phantom(folder / f"{SECRET}-{index}.nrrd", Phantom((90, 64, 64), (5.5, 5.625, 3.0), 4 + index))
    (folder / f"{SECRET}-2.nrrd").write_text("nothing")
    sources = sorted(folder.glob("*.nrrd"))
    done = run(
        "run", folder / "s.zarr", *sources, *SMALL, "-j", 1, "--memory-limit", "2GB", "--json",
        "--log", folder / "run.log", "--performance-report", folder / "dask.html",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return folder, done


@pytest.mark.slow
def test_log_tells_each_stage_of_each_case_with_time_and_memory(ran):
    folder, _ = ran
    lines = [json.loads(line) for line in (folder / "run.log").read_text().splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
        assert line["level"] in ("info", "warning", "error")
    stages = [line for line in lines if line["event"] == "stage"]
    assert {(line["case"], line["stage"]) for line in stages} == {
        (case, stage) for case in ("case-001", "case-002") for stage in ("convert", "mask", "label")
    }
    for line in stages:
        assert line["tasks"] >= 1
        assert line["peak_bytes"] > 50 << 20
        assert line["seconds"] > 0
    (dashboard,) = [line for line in lines if line["event"] == "message" and "dashboard" in line["message"]]
    assert dashboard["level"] == "info"
    voxels = 2 * 90 * 64 * 64
    begun = [line for line in lines if line["event"] == "begin" and line["part"] == "mask"]
    assert [(line["cases"], line["bytes"]) for line in begun] == [(2, 2 * voxels)]
    assert {line["bytes"] for line in lines if line["event"] == "case" and line["part"] == "mask"} == {voxels}


@pytest.mark.slow
def test_log_holds_no_name_of_a_source(ran):
    folder, _ = ran
    assert SECRET not in (folder / "run.log").read_text()


@pytest.mark.slow
def test_report_of_dask_is_a_page_that_needs_no_network(ran):
    folder, _ = ran
    page = (folder / "dask.html").read_text()
    assert "bokeh" in page
    assert not re.search(r"""<script[^>]+src=["']https?:""", page)
    assert SECRET not in page


@pytest.mark.slow
def test_dashboard_is_announced_and_progress_counts_bytes(ran):
    _, done = ran
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+/status", done.stderr)
    assert re.search(r"mask 2/2 cases, 1\.5 MB of 1\.5 MB case-00\d: done", done.stderr)


@pytest.mark.slow
def test_summary_has_the_time_of_each_stage(ran, client):
    folder, done = ran
    spent = json.loads(done.stdout)["spent"]
    assert set(spent) == {"convert", "mask", "fit", "label", "measure"}
    assert spent["mask"]["cases"] == 2
    assert spent["mask"]["worker_seconds"] > 0
    again = run_here("label", folder / "s.zarr", "--scheduler", client.scheduler.address)
    assert again.returncode == 0, again.stderr
    assert "peak MiB" not in again.stdout, "nothing was done, so nothing took time"


@pytest.mark.slow
def test_other_commands_write_the_log_too(ran, client, tmp_path):
    folder, _ = ran
    for words, part in ((("relabel", "--model", "published"), "label"), (("verify", "--sample", 1), "verify")):
        file = tmp_path / f"{part}.log"
        name, *options = words
        done = run_here(name, folder / "s.zarr", *options, "--scheduler", client.scheduler.address, "--log", file)
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in file.read_text().splitlines()]
        assert {"begin", "case", "end"} <= {event["event"] for event in events if event.get("part") == part}


def test_log_appends_to_a_file_and_contains_no_names(tmp_path):
    file = tmp_path / "run.log"
    file.write_text("{}\n")
    with with_log_file(Callback(), file) as callback:
        callback.on_begin("mask", ["case-001"])
        callback.on_case_end("case-001", f"{mark_path('doe.nrrd')} is empty: get it again")
        callback.on_warning(f"look at {mark_path('doe.nrrd')}")
        callback.on_info(f"here is {mark_path('doe.nrrd')}")
        callback.on_end()
    first, *lines = file.read_text().splitlines()
    assert first == "{}"
    assert [json.loads(line)["event"] for line in lines] == ["begin", "failed", "message", "message", "end"]
    assert [json.loads(line)["level"] for line in lines] == ["info", "error", "warning", "info", "info"]
    assert "doe" not in "".join(lines)
    assert "is empty" in lines[1]


def test_log_that_cannot_be_written_is_rejected(tmp_path):
    with pytest.raises(UsageError, match="the log"), with_log_file(Callback(), tmp_path / "none" / "run.log"):
        pass


@pytest.mark.slow
def test_report_of_dask_without_bokeh_names_the_remedy(tmp_path, client, monkeypatch):
    monkeypatch.setattr(lungmix.cluster.dashboard, "find_spec", lambda name: None)
    with (
        pytest.raises(UsageError, match=r"pip install 'lungmix\[dashboard\]'"),
        performance_page(client, tmp_path / "dask.html"),
    ):
        pass
    assert lungmix.cluster.dashboard.dashboard_of(client) is None
    assert not list(tmp_path.iterdir())


def test_time_left_follows_the_bytes_and_not_the_cases():
    amount = Amount(["small", "large"], {"small": 1_000_000, "large": 9_000_000})
    amount.add("small")
    assert (amount.done, amount.total) == (1_000_000, 10_000_000)
    assert amount.text == "1/2 cases, 1.0 MB of 10.0 MB"
    assert Amount(["alone"], {"alone": 1_000_000}).text == "0/1 case, 0 bytes of 1.0 MB"
    plain = Amount(["a", "b"], None)
    plain.add("a")
    assert (plain.done, plain.total, plain.text) == (1, 2, "1/2")
    out = io.StringIO()
    lines = Lines(Console(file=out))
    lines.on_begin("mask", ["small", "large"], {"small": 1_000_000, "large": 9_000_000})
    lines.on_case_end("small")
    assert "mask 1/2 cases, 1.0 MB of 10.0 MB small: done" in out.getvalue()


def test_quiet_hides_progress_and_keeps_warnings(capsys):
    hears = callback_for(quiet=True)
    hears.on_begin("mask", ["case-001"])
    hears.on_progress("case-001", "mask", 1, 2)
    hears.on_info("dashboard: http://127.0.0.1:8787")
    hears.on_warning(f"{mark_path('Rossi.nrrd')} has slices of 5 mm: the preset physical suits them")
    hears.on_case_end("case-001")
    hears.on_end()
    assert capsys.readouterr().err == "Rossi.nrrd has slices of 5 mm: the preset physical suits them\n"


def test_every_event_reaches_all_callbacks_with_its_arguments():
    heard = []
    events = [name for name in vars(Callback) if name.startswith("on_")]

    def recorder(who):
        methods = {
            name: lambda self, *args, name=name, **options: heard.append((who, name, args, options)) for name in events
        }
        return type("Recorder", (Callback,), methods)()

    both = CallbackList(recorder("first"), recorder("second"))
    for name in events:
        getattr(both, name)("case-001", failure=name)
    assert heard == [(who, name, ("case-001",), {"failure": name}) for name in events for who in ("first", "second")]
    assert len(events) == 7
