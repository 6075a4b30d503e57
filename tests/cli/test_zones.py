"""Lung zones on a cluster of two workers: the command, the option of a run, what a store remembers, and errors."""

import csv
import io
import json

import numpy as np
import pytest

import lungmix
from lungmix.phantom import Phantom, write_phantom
from oracle.lung_zones import zones_of
from support.command import SMALL, run_here


@pytest.fixture(scope="module")
def words(client, tmp_path_factory):
    """Store, scan and the options of all commands."""
    folder = tmp_path_factory.mktemp("zones")
    scan = write_phantom(folder / "scan.nrrd", Phantom((80, 64, 64), (5.6, 5.6, 3.7), 4))
    return folder / "s.zarr", scan or folder / "scan.nrrd", ("--scheduler", client.scheduler.address)


def rows_of(store):
    return list(csv.DictReader(io.StringIO((store / "zones.csv").read_text())))


def test_store_keeps_zones_until_they_are_switched_off(words):
    store, scan, cluster = words
    plain = run_here("run", store, scan, "--model", "published", *SMALL, *cluster, "--chunk-slices", "8", "--json")
    assert plain.returncode == 0, plain.stderr
    assert not (store / "zones.csv").exists()
    measured = (store / "measurements.csv").read_bytes()
    missing = run_here("export", store, "case-001", store.parent / "x_zone.nrrd")
    assert missing.returncode == 2
    assert f"lungmix run {store} SOURCE --zones volume" in missing.stderr
    made = run_here("zones", store, *cluster, "--json")
    assert made.returncode == 0, made.stderr
    assert len(json.loads(made.stdout)["zones"]) == len(rows_of(store)) == 66
    case = lungmix.open_cohort(store)["case-001"]
    sides = case.side.compute()
    assert np.array_equal(case.zone.compute(), zones_of(sides, case.geometry.spacing_zyx, "volume"))
    verified = run_here("verify", store, "--all", *cluster, "--json")
    assert json.loads(verified.stdout)["wrong"] == {}, verified.stdout
    again = run_here("run", store, scan, *cluster, "--yes")
    assert again.returncode == 0, again.stderr
    assert "lung zones by volume" in again.stderr
    shown = run_here("zones", store, "--by", "height", *cluster, "--quiet")
    assert "LI of lung zones, %" in shown.stdout
    expected = {row["zone"]: f"{float(row['lung_involvement']):.1f}" for row in rows_of(store)}
    parts = ("upper", "middle", "lower", "ventral", "dorsal", "core", "peel")
    (line,) = (
        line for line in shown.stdout.split("LI of lung zones")[1].splitlines() if line.split()[:1] == ["case-001"]
    )
    assert line.split()[1:] == [expected[f"both_{part}"] for part in parts]
    assert f"zones: {store}/zones.csv" in shown.stdout
    assert lungmix.open_cohort(store)["case-001"].stages["zone"]["by"] == "height"
    assert {row["by"] for row in rows_of(store)} == {"height"}
    off = run_here("run", store, scan, "--zones", "none", *cluster, "--yes", "--json")
    assert off.returncode == 0, off.stderr
    assert not lungmix.open_cohort(store)["case-001"].is_started("zone")
    assert rows_of(store) == []
    assert (store / "measurements.csv").read_bytes() == measured
    verified = run_here("verify", store, "--all", *cluster, "--json")
    assert json.loads(verified.stdout)["wrong"] == {}, verified.stdout


def test_errors_name_options(words):
    store, scan, cluster = words
    done = run_here("run", store.parent / "new.zarr", scan, "--zones", "lobes", *cluster)
    assert done.returncode == 2
    assert "volume, height, volume-common, none" in done.stderr
    assert not (store.parent / "new.zarr").exists()
