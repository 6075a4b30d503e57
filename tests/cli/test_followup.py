"""The command ``followup``: its table, JSON, exit statuses, and runs that keep its table."""

import csv
import io
import json

import pytest
from rich.console import Console

import lungmix
from lungmix.cli.show_followup import show_registrations
from lungmix.phantom import Cohort, write_cohort
from lungmix.store import CaseWriter
from support.command import SMALL, run_here
from support.labelled import labelled_store


@pytest.fixture
def store(tmp_path):
    labelled_store(tmp_path / "s.zarr", scans=4)
    (tmp_path / "patients.csv").write_text(
        "case;patient;days\ncase-001;Rossi;0\ncase-003;Rossi;14\ncase-002;Verdi;\ncase-004;Verdi;\nnone;Verdi;\n"
    )
    return tmp_path / "s.zarr"


def test_terminal_and_json_have_changes_and_their_mean(store, tmp_path):
    shown = run_here("followup", store, "--patients", tmp_path / "patients.csv")
    assert shown.returncode == 0, shown.stderr
    for text in (
        "patient-001", "case-003", "2 patients with 4 scans", "mean change of LI", f"table: {store}/followup.csv",
        "line 6 (none)", "days of 1 patient are unknown (patient-002)",
    ):  # fmt: skip
        assert text in shown.stdout
    assert "Rossi" not in shown.stdout
    done = run_here("followup", store, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    rows = list(csv.DictReader(io.StringIO((store / "followup.csv").read_text())))
    assert [row["case"] for row in values["followup"]] == [row["case"] for row in rows] == values["done"]
    changes = [row["change_lung_involvement_corrected"] for row in values["followup"]]
    assert changes[0] is changes[2] is None
    assert values["mean_change"]["value"] == pytest.approx((changes[1] + changes[3]) / 2)
    assert values["remarks"] == []
    assert "harmonise" not in shown.stdout or "--harmonise kernel" in shown.stdout


def test_scan_without_labels_gives_status_1_and_wrong_usage_2(store, tmp_path):
    done = run_here("followup", store)
    assert done.returncode == 2
    assert "--patients FILE" in done.stderr
    assert "--key-table FILE" in done.stderr
    (tmp_path / "bad.csv").write_text("case,patient,date\ncase-001,a,01/02/2020\n")
    done = run_here("followup", store, "--patients", tmp_path / "bad.csv")
    assert done.returncode == 2
    assert "bad.csv, line 2" in done.stderr
    assert "Traceback" not in done.stderr
    CaseWriter(lungmix.open_cohort(store, "r+")["case-003"]).drop_stage("label")
    done = run_here("followup", store, "--patients", tmp_path / "patients.csv", "--json")
    assert done.returncode == 1
    values = json.loads(done.stdout)
    assert list(values["failed"]) == ["case-003"]
    assert {row["patient"] for row in values["followup"]} == {"patient-002"}


def test_runs_keep_the_table_up_to_date(client, tmp_path):
    write_cohort(tmp_path / "scans", Cohort(2, 3, (80, 64, 64), (5.6, 5.6, 3.7), followups=1))
    store, cluster = tmp_path / "s.zarr", ("--scheduler", client.scheduler.address)
    run = ("run", store, tmp_path / "scans", "--model", "published", *SMALL, *cluster, "--json")
    assert run_here(*run).returncode == 0
    assert not (store / "followup.csv").exists()
    done = run_here("followup", store, "--patients", tmp_path / "scans" / "patients.csv")
    assert done.returncode == 0, done.stderr
    text = (store / "followup.csv").read_text()
    assert [line.split(",")[:3] for line in text.splitlines()[1:]] == [
        ["case-001", "patient-001", "1"], ["case-003", "patient-001", "2"],
    ]  # fmt: skip
    assert run_here(*run).returncode == 0
    assert (store / "followup.csv").read_text() == text
    # Another mixture gives other rows; zones give further columns.
    assert run_here("relabel", store, "--model", "fit", "--fit", "converged", *cluster).returncode == 0
    assert "converged:" in (store / "followup.csv").read_text()
    assert run_here("zones", store, *cluster).returncode == 0
    assert "change_both_peel_lung_involvement_corrected_high" in (store / "followup.csv").read_text()
    verified = run_here("verify", store, "--all", *cluster, "--json")
    assert json.loads(verified.stdout)["wrong"] == {}, verified.stdout


def test_registered_scans_have_a_table_of_their_own_in_80_columns():
    values = {
        "registration": "deformable", "registration_similarity": 0.971, "registered_lung_involvement_first": 25.31,
        "registered_lung_involvement": 31.84, "change_registered_lung_involvement": 6.53, "new_ml": 123.4,
        "gone_ml": 7.6,
    }  # fmt: skip
    nothing = dict.fromkeys(values, "") | {"registration": ""}
    rows = [{"case": "case-001", **nothing}, {"case": "case-004", **values}]
    rows.append({"case": "case-005", **nothing, "registration": "failed"})
    text = io.StringIO()
    show_registrations(Console(file=text, width=80), rows)
    (line,) = (line for line in text.getvalue().splitlines() if "case-0" in line)
    assert line.split() == ["case-004", "0.97", "25.3", "31.8", "+6.5", "123", "8"]
    text = io.StringIO()
    show_registrations(Console(file=text, width=80), rows[:1] + rows[2:])
    assert text.getvalue() == ""
